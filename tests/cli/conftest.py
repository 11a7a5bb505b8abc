"""What the tests of the command line share with those over real sockets."""

from tests.web.conftest import complaints, serve

__all__ = ["complaints", "serve"]
