"""A Redis of the hub's own, for one machine: a child process, reached through a Unix socket in its folder."""
