"""Whether a folder lies on a file system of this machine alone."""

from __future__ import annotations

import re
from pathlib import Path

_LOCAL = frozenset(
    (
        *("apfs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs"),
        *("ntfs3", "overlay", "ramfs", "reiserfs", "tmpfs", "vfat", "xfs", "zfs"),
    )
)
_TABLE = Path("/proc/self/mountinfo")


def is_local(folder: Path) -> bool:
    """Whether no other machine can use the folder, by the kind of its file system.

    A kind that is not known counts as shared; where the system has no table of them (macOS), all as local.
    """
    try:
        lines = _TABLE.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return True
    place = folder.resolve()
    longest, kind = -1, ""
    for line in lines:
        mounted, _, source = line.partition(" - ")
        point = Path(_plain(mounted.split(" ")[4]))
        depth = len(point.parts)
        if depth >= longest and place.is_relative_to(point):  # of two at one place the last is seen
            longest, kind = depth, source.split(" ")[0]
    return kind in _LOCAL


def _plain(name: str) -> str:
    """A name as the kernel writes it there: blanks and the like as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)
