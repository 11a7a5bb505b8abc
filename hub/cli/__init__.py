"""`hub serve | publish | listen | history | load`: the hub on the command line."""

from hub.cli.main import command, main

__all__ = ["command", "main"]
