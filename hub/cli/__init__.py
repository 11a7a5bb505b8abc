"""`hub serve | publish | listen | load`: the hub on the command line."""

from hub.cli.main import main

__all__ = ["main"]
