"""On which file system a file is, by what the kernel says of its mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.log.file_system import FileSystem, file_system_of

MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /srv rw,relatime - nfs4 10.0.0.1:/srv rw,vers=4.2
31 30 8:2 / /srv/local rw - xfs /dev/sdb1 rw
32 22 0:40 / /mnt/two\040words rw - cifs //server/share rw
33 22 0:41 / /covered rw - ext4 /dev/sdc1 rw
34 33 0:42 / /covered rw - fuse.sshfs me@there:/ rw
a line of a kernel that is to come
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/var/lib/hub.db", "ext4", False),
        ("/srv/hub.db", "nfs4", True),
        ("/srvhub/hub.db", "ext4", False),
        ("/srv/local/hub.db", "xfs", False),
        ("/srv/local/../hub.db", "nfs4", True),
        ("/mnt/two words/hub.db", "cifs", True),
        ("/covered/not/there/yet/hub.db", "fuse.sshfs", True),
        ("/", "ext4", False),
    ],
)
def test_the_deepest_mount_counts_and_of_several_at_one_place_the_last(
    mounts: Path, path: str, kind: str, network: bool
) -> None:
    found = file_system_of(Path(path), mounts)
    assert found is not None
    assert (found.kind, found.network) == (kind, network)


def test_a_link_counts_as_what_it_leads_to(mounts: Path, tmp_path: Path) -> None:
    (tmp_path / "hub.db").symlink_to("/srv/hub.db")
    assert file_system_of(tmp_path / "hub.db", mounts) == FileSystem("nfs4", "/srv")


def test_where_the_kernel_does_not_tell_nothing_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, tmp_path / "nowhere") is None
    found = file_system_of(tmp_path)
    assert found is None or found.kind
