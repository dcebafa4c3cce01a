"""Which file system a file is on: mapping a file of a network mount kills the process when the server goes away."""

from __future__ import annotations

import os
import re

__all__ = ["MAPPABLE", "PREALLOCATABLE", "filesystem_type"]

# Local file systems.  A list of what is known to be safe, since new network file systems keep appearing: a file on
# any other (nfs, cifs, 9p, fuse.sshfs, unknown) is read, not mapped.
_LOCAL = """
    apfs bcachefs btrfs erofs exfat ext2 ext3 ext4 f2fs hfsplus iso9660 jfs nilfs2 ntfs3 overlay ramfs reiserfs rootfs
    squashfs tmpfs udf vfat xfs zfs
"""
#: File systems whose files may be mapped.
MAPPABLE = frozenset(_LOCAL.split())

#: Where preallocation is one system call.  Elsewhere glibc emulates it by writing to every block.
PREALLOCATABLE = frozenset(["bcachefs", "btrfs", "ext4", "f2fs", "overlay", "tmpfs", "xfs"])

_MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(r"\\([0-7]{3})")


def filesystem_type(device: int, path: str) -> str | None:
    """Return the type of the file system of a device, else of the mount that `path` lies in; None if unknown.

    Parameters
    ----------
    device : int
        ``st_dev`` of the file.
    path : str
        Its real path: btrfs reports devices that the table of mounts does not know.
    """
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None  # not Linux, or /proc is not mounted: nothing is mapped
    number = f"{os.major(device)}:{os.minor(device)}"
    longest, best = -1, None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind = right.partition(" ")[0]
        if fields[2] == number:
            return kind
        folder = _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[4])
        is_inside = path == folder or path.startswith(folder.rstrip("/") + "/")
        if is_inside and len(folder) >= longest:  # a later mount hides an earlier one at the same place
            longest, best = len(folder), kind
    return best
