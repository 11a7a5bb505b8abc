"""A file system in a file, which comes back as another device each time it is mounted; for root only (Linux)."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

TURNS = 20
PATIENCE = 60.0  # seconds for the processes that use it to be gone


class Image:
    """An ext4 file system of a few megabytes, mounted by a loop device.

    Attributes:
        path: where it is mounted.

    Raises:
        OSError, subprocess.CalledProcessError: it can't be mounted here.
    """

    def __init__(self, folder: Path, megabytes: int = 64) -> None:
        self.path = folder / "mounted"
        self._image, self._other = folder / "image", folder / "other"
        self.path.mkdir()
        for each, size in ((self._image, megabytes), (self._other, 1)):
            with each.open("wb") as file:
                file.truncate(size * 1024 * 1024)
        _run("mkfs.ext4", "-q", str(self._image))
        self._mount()

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    @property
    def device(self) -> int:
        """The number of the device it is mounted from."""
        return self.path.stat().st_dev

    def remount(self) -> None:
        """Mount it from another device."""
        before = self.device
        for turn in range(TURNS):
            self._unmount()
            # The first free one is taken: the one it had, unless something else has that meanwhile.
            spare = _run("losetup", "--find", "--show", str(self._other)) if turn % 2 else ""
            try:
                self._mount()
            finally:
                if spare:
                    _run("losetup", "--detach", spare)
            if self.device != before:
                return
        raise AssertionError(f"it is the device {before} again and again")

    def _unmount(self) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                _run("umount", str(self.path))
            except subprocess.CalledProcessError:  # somebody is about to end who has something open there
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def freeze(self) -> None:
        """Let whoever writes to it wait; not even SIGKILL ends that."""
        _run("fsfreeze", "--freeze", str(self.path))

    def thaw(self) -> None:
        """Let it go on; one that is not frozen does."""
        subprocess.run(["fsfreeze", "--unfreeze", str(self.path)], check=False, capture_output=True)

    def close(self) -> None:
        """Unmount it."""
        self.thaw()
        _run("umount", "--lazy", str(self.path))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
