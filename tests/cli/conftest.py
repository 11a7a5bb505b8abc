"""The commands talk to hubs over real sockets: what the tests of `web` share is theirs, too."""

from tests.web.conftest import *  # noqa: F403 - fixtures and hooks, all of them
