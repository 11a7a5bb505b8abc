"""The demo; see `hub.demo.routes`.

`hub.demo.listeners` is a symbolic link to the folder `listeners` of the project. So the demo finds its listeners
wherever the hub is installed, without a package named `listeners` in `site-packages` that could hide the user's own.
"""

from hub.demo.routes import LISTENERS, PROVIDER, setup_demo, setup_demo_hub

__all__ = ["LISTENERS", "PROVIDER", "setup_demo", "setup_demo_hub"]
