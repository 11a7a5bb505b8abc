"""The demo: see `hub.demo.routes`.

`hub.demo.listeners` is a link to the folder `listeners` of the project. So the demo has its listeners wherever the hub
is installed, and no package with the name `listeners` lies in `site-packages`, where it could hide the user's own.
"""

from hub.demo.routes import setup_demo

__all__ = ["LISTENERS", "PROVIDER", "setup_demo"]

LISTENERS = "hub.demo.listeners"
"""The module with the demo's own listeners, for whoever names no others."""
PROVIDER = "simulated"
"""What answers in the chat of the demo page, for whoever sets nothing else."""
