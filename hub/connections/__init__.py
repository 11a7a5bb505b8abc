"""Connections: what one client holds open, from the place where its stream begins to its last byte."""
