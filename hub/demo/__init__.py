"""The demo: see `hub.demo.routes`."""

from hub.demo.routes import setup_demo

__all__ = ["setup_demo"]
