"""Who is there: the users of each topic, what streams are told of them, and the events of users, topics and streams."""
