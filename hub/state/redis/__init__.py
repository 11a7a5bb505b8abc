"""The state in Redis: shared by all processes of a hub. It is loaded only where it is used."""
