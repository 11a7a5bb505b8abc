"""The demo; see `hub.demo.routes`.

`hub.demo.listeners` is a symbolic link to the folder `listeners` of the project. So the demo finds its listeners
wherever the hub is installed, without a package named `listeners` in `site-packages` that could hide the user's own.
"""

from hub.demo.routes import setup_demo

__all__ = ["LISTENERS", "PROVIDER", "setup_demo"]

LISTENERS = "hub.demo.listeners"
"""The module with the demo's own listeners, used where the settings name no others."""
PROVIDER = "simulated"
"""The provider behind the chat of the demo page, used where the settings name no other."""
