"""Fixtures of the tests over every wire."""

from tests.web.conftest import Complaints, Serve, complaints, serve, server, tls

__all__ = ["Complaints", "Serve", "complaints", "serve", "server", "tls"]
