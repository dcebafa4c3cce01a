"""A disk that keeps only what was flushed: every change that our storage makes is written down and can be cut anywhere.

`Recorder` stands in for `os` in the modules of the local storage.  It does what it is told, and notes it.
`Disk.after` then builds what a power cut may leave: names that were flushed by an fsync of their folder and bytes that
were flushed by an fsync of their file for certain; of everything else any part, in any order.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(eq=False)
class File:
    """One file, whatever its names."""

    data: bytearray = field(default_factory=bytearray)
    versions: list[tuple[int, bytes]] = field(default_factory=list)  # step -> bytes
    syncs: list[int] = field(default_factory=list)


@dataclass(eq=False)
class Dir:
    """One folder; `changes` are (step, name, what the name stands for afterwards)."""

    start: dict[str, File | Dir] = field(default_factory=dict)
    entries: dict[str, File | Dir] = field(default_factory=dict)
    syncs: list[int] = field(default_factory=list)


@dataclass
class Change:
    """Names that change together: a rename touches two."""

    step: int
    parts: list[tuple[Dir, str, File | Dir | None]]

    def is_kept(self, cut: int) -> bool:
        return any(self.step <= sync < cut for folder, _, _ in self.parts for sync in folder.syncs)


class Disk:
    """What is on a disk, and the history of how it came there."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.top = self._read(root)
        self.changes: list[Change] = []
        self.steps: list[str] = []

    def _read(self, path: Path) -> Dir:
        folder = Dir()
        for child in path.iterdir():
            if child.is_dir():
                folder.start[child.name] = self._read(child)
            else:
                folder.start[child.name] = File(bytearray(child.read_bytes()), [(-1, child.read_bytes())], [])
        folder.entries = dict(folder.start)
        return folder

    def place(self, path: str) -> tuple[Dir, str]:
        """Return the folder and the name that a path means now."""
        node = self.top
        *above, name = os.path.relpath(path, self.root).split("/")
        for part in above:
            found = node.entries[part]
            assert isinstance(found, Dir)
            node = found
        return node, name

    def node(self, path: str) -> File | Dir:
        if os.path.relpath(path, self.root) == ".":
            return self.top
        folder, name = self.place(path)
        return folder.entries[name]

    def change(self, told: str, *parts: tuple[Dir, str, File | Dir | None]) -> None:
        self.changes.append(Change(len(self.steps), list(parts)))
        for folder, name, node in parts:
            if node is None:
                folder.entries.pop(name, None)
            else:
                folder.entries[name] = node
        self.steps.append(told)

    def after(self, cut: int, dice: random.Random | None) -> dict[str, bytes | None]:
        """Return path -> bytes (None for a folder) of what is left if the power goes before step `cut`.

        Without `dice` nothing but what was flushed is left; with it a random part of everything else, too.
        """
        share = dice.choice((0.2, 0.5, 0.8, 1)) if dice else 0
        left: dict[Dir, dict[str, File | Dir]] = {}
        for change in self.changes:
            if change.step < cut and (change.is_kept(cut) or (dice and dice.random() < share)):
                for folder, name, node in change.parts:
                    entries = left.setdefault(folder, dict(folder.start))
                    if node is None:
                        entries.pop(name, None)
                    else:
                        entries[name] = node
        found: dict[str, bytes | None] = {}
        self._walk(self.top, "", left, cut, dice, found)
        return found

    def _walk(self, folder, prefix, left, cut, dice, found) -> None:
        for name, node in left.get(folder, folder.start).items():
            path = f"{prefix}{name}"
            if isinstance(node, Dir):
                found[path] = None
                self._walk(node, f"{path}/", left, cut, dice, found)
            else:
                found[path] = _bytes_of(node, cut, dice)


def _bytes_of(file: File, cut: int, dice: random.Random | None) -> bytes:
    synced = max((step for step in file.syncs if step < cut), default=-1)
    kept = [data for step, data in file.versions if step <= synced]
    last = [data for step, data in file.versions if step < cut]
    sure = kept[-1] if kept else b""
    newest = last[-1] if last else b""
    if newest == sure or dice is None:
        return sure
    half = newest[: len(newest) // 2]
    return dice.choice((newest, sure, half, bytes(len(newest)), half + bytes(len(newest) - len(half))))


class Recorder:
    """Stands in for `os`: does it, notes it, and calls `on_step` before each step."""

    def __init__(self, disk: Disk, on_step: Any) -> None:
        self._disk = disk
        self._on_step = on_step
        self._open: dict[int, File | Dir] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _is_ours(self, path: str) -> bool:
        return str(path).startswith(self._disk.root)

    def open(self, path, flags, mode=0o777, **more):
        fd = os.open(path, flags, mode, **more)
        if self._is_ours(path):
            if flags & os.O_CREAT:
                assert flags & os.O_EXCL
                self._on_step()
                node = File()
                self._disk.change(f"create {path}", (*self._disk.place(path), node))
            else:
                node = self._disk.node(path)
            self._open[fd] = node
        return fd

    def close(self, fd):
        self._open.pop(fd, None)
        os.close(fd)

    def _wrote(self, fd, data):
        file = self._open.get(fd)
        if isinstance(file, File):
            self._on_step()
            file.data += data
            file.versions.append((len(self._disk.steps), bytes(file.data)))
            self._disk.steps.append(f"write {len(data)} bytes")

    def write(self, fd, data):
        count = os.write(fd, data)
        self._wrote(fd, bytes(memoryview(data)[:count]))
        return count

    def writev(self, fd, buffers):
        count = os.writev(fd, buffers)
        self._wrote(fd, b"".join(buffers)[:count])
        return count

    def fsync(self, fd):
        os.fsync(fd)
        self._on_step()
        self._open[fd].syncs.append(len(self._disk.steps))
        self._disk.steps.append("fsync")

    def link(self, source, target):
        os.link(source, target)
        self._on_step()
        self._disk.change(f"link {target}", (*self._disk.place(target), self._disk.node(source)))

    def unlink(self, path):
        os.unlink(path)
        self._on_step()
        self._disk.change(f"unlink {path}", (*self._disk.place(path), None))

    def rename(self, source, target):
        node = self._disk.node(source)
        os.rename(source, target)
        self._on_step()
        self._disk.change(
            f"rename {source} {target}", (*self._disk.place(source), None), (*self._disk.place(target), node)
        )

    def replace(self, source, target):
        self.rename(source, target)

    def mkdir(self, path, mode=0o777):
        os.mkdir(path, mode)
        self._on_step()
        self._disk.change(f"mkdir {path}", (*self._disk.place(path), Dir()))

    def rmdir(self, path):
        os.rmdir(path)
        self._on_step()
        self._disk.change(f"rmdir {path}", (*self._disk.place(path), None))

    def rmtree(self, path, **_):
        """Stand in for `shutil.rmtree`, in the worst order: the newest generation first."""
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name, reverse=True)
        for entry in sorted(entries, key=lambda entry: entry.name != "generations"):
            if entry.is_dir(follow_symlinks=False):
                self.rmtree(entry.path)
            else:
                self.unlink(entry.path)
        self.rmdir(path)
