"""What tests in several folders share."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image import Image


class Disk:
    """A file system of a few megabytes, for root only.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def mount(self, megabytes: int, *options: str) -> None:
        """Give it a size."""
        what = ["-o", ",".join([*options, f"size={megabytes}m"]), "hub-test", str(self.path)]
        subprocess.run(["mount", "-t", "tmpfs", *what], check=True, capture_output=True)

    def grow(self, megabytes: int) -> None:
        """Make it larger."""
        self.mount(megabytes, "remount")

    def fill(self) -> None:
        """Take all the room that is left, and all that becomes free while this goes on."""
        with contextlib.suppress(OSError), (self.path / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1_024))

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    try:
        disk.mount(2)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"mounting a small file system takes root: sudo make test ARGS='-k disk' ({error})")
    yield disk
    disk.unmount()


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    try:
        image = Image(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"mounting a file system in a file takes root and loop devices ({error})")
    yield image
    image.close()
