"""The Python that runs the worker processes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from hub.errors import LogUnavailable

_PYTHON = re.compile(r"(python|pypy)[0-9.]*t?d?(\.exe)?", re.IGNORECASE)


def interpreter() -> str:
    """Return the path of the Python that this process runs on.

    Where Python is embedded (uWSGI, mod_wsgi, a frozen application) `sys.executable` is the program around it, which
    would be started once more: only what is called Python is looked at.

    Raises:
        LogUnavailable: there is none.
    """
    for candidate in _candidates():
        if _PYTHON.fullmatch(Path(candidate).name) and os.access(candidate, os.X_OK) and Path(candidate).is_file():
            return candidate
    raise LogUnavailable(
        f"the processes that keep it need a Python: {sys.executable or 'the running program'} is none, and there is "
        f"none in {Path(sys.prefix) / 'bin'}"
    )


def _candidates() -> Iterator[str]:
    yield from filter(None, (sys.executable, getattr(sys, "_base_executable", "")))
    names = [f"python{sys.version_info[0]}.{sys.version_info[1]}", "python3", "python"]
    for prefix in dict.fromkeys((sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)):
        yield from (str(Path(prefix, "bin", name)) for name in names)
