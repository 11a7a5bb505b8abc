"""The log in Redis: one order for many processes and machines. It is loaded only where it is used."""
