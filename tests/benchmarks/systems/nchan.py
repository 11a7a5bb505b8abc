"""nginx with nchan, as Debian packages it: `apt-get install nginx libnginx-mod-nchan`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.served import Served
from tests.benchmarks.systems.system import Paths
from tests.ports import free_port

MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
CONFIGURATION = """
load_module {module};
worker_processes 1; worker_rlimit_nofile {files}; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 100000000; nchan_shared_memory_size 512M;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} backlog=8192;
    location = /sub {{
      nchan_subscriber eventsource; nchan_channel_id bench; nchan_subscriber_first_message newest;
    }}
    location = /pub {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 1000; }}
  }}
}}
"""


class Nchan:
    """One nginx worker with nchan; its messages are in memory."""

    name = "nchan"
    title = "nginx + nchan"
    paths = Paths("/sub", "/pub")

    def missing(self) -> str:
        if not MODULE.exists() or not self._nginx():
            return "Debian's nginx with libnginx-mod-nchan is not installed"
        return ""

    @staticmethod
    def _nginx() -> str:
        return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or ""

    def version(self) -> str:
        nginx = subprocess.run([self._nginx(), "-v"], capture_output=True, text=True, check=False)
        return f"nginx {nginx.stderr.strip().rpartition('/')[2]}, nchan {_packaged('libnginx-mod-nchan')}"

    def serve(self, folder: Path, *, core: int | None) -> Served:
        port = free_port()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(module=MODULE, folder=folder, port=port, files=20_000, connections=19_500), "utf-8"
        )
        command = [self._nginx(), "-p", str(folder), "-c", str(configuration)]
        return Served(command, port, core=core, folder=folder, environ={})


def _packaged(name: str) -> str:
    """Return the version of a Debian package."""
    dpkg = shutil.which("dpkg-query")
    if dpkg is None:
        return "unknown"
    asked = subprocess.run([dpkg, "-W", "-f", "${Version}", name], capture_output=True, text=True, check=False)
    return asked.stdout or "unknown"
