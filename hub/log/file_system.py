"""The file system that a log's file is on: on those of a network, locks and `fsync` can't be relied on. Pure."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")
OF_A_NETWORK = re.compile(
    r"(nfs[0-9]*|cifs|smb[0-9a-z]*|ncpfs|afs|coda|9p|ceph|glusterfs|lustre|beegfs|gpfs|pvfs2|ocfs2|gfs2?|"
    r"fuse\.(sshfs|glusterfs|ceph|s3fs|rclone|goofys|davfs2?|juicefs|gcsfuse|blobfuse2?|moosefs|mfs))"
)


class FileSystem(NamedTuple):
    """A file system, as the kernel calls it.

    Attributes:
        kind: such as `ext4` or `nfs4`.
        point: where it is mounted.
    """

    kind: str
    point: str

    @property
    def network(self) -> bool:
        """Whether its files are on another machine, as far as its kind tells."""
        return OF_A_NETWORK.fullmatch(self.kind) is not None


def file_system_of(path: Path, mounts: Path = MOUNTS) -> FileSystem | None:
    """Return the file system of *path*, which need not exist; None where the kernel does not tell (not Linux)."""
    with suppress(OSError):
        return _deepest(os.path.realpath(path), mounts.read_text(encoding="utf-8", errors="surrogateescape"))
    return None


def _deepest(path: str, mountinfo: str) -> FileSystem | None:
    """Return the last one mounted at the deepest point above *path*, by lines as in proc_pid_mountinfo(5)."""
    found: FileSystem | None = None
    for line in mountinfo.splitlines():
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _unescaped(fields[4])
        above = point.rstrip("/") + "/"
        if (path + "/").startswith(above) and (found is None or len(point) >= len(found.point)):
            found = FileSystem(after.split(" ")[0], point)
    return found


def _unescaped(text: str) -> str:
    """Return *text* with the spaces, tabs, line breaks and backslashes for which the kernel writes octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
