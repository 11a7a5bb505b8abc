"""`hub load`: open many subscribers on a running hub, publish at a rate, and count what arrives."""

from hub.load.command import add_arguments, run

__all__ = ["add_arguments", "run"]
