"""What tests in several folders share."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.chance import TORTURE, examples
from tests.log.image import Image

FEWEST, MOST = 2, 12  # workers

# How long an example takes is no claim of any test: with several workers one takes long now and then.
hypothesis.settings.register_profile("hub", deadline=None, max_examples=examples(50, 1_000))
hypothesis.settings.load_profile("hub")


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers `-n auto` starts: two for a core, as tests wait for half of their time.

    There is none where only a few tests are asked for: each worker imports all tests before it runs the first.
    """
    options = config.option
    if options.keyword or options.lf or (options.file_or_dir and all("::" in each for each in options.file_or_dir)):
        return 0
    return min(max(FEWEST, (os.cpu_count() or 1) * 2), MOST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make torture` what is marked for it."""
    if not TORTURE:
        left = [item for item in items if item.get_closest_marker("torture")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("torture")]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was imported and collected out of what the garbage collector walks; many a test makes it walk."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, Any]:
    """Fail on CI what is skipped: something is missing that .ci/run has to install."""
    report = yield
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure on CI: {report.longrepr}"
    return report


# A shell that runs its commands in the background has them ignore SIGINT, and what they start inherits that. These
# tests send it to processes of their own.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
