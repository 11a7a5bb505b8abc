"""Fixtures of the tests with clients of Socket.IO."""

from tests.web.conftest import Complaints, Serve, complaints, serve, server, tls

__all__ = ["Complaints", "Serve", "complaints", "serve", "server", "tls"]
