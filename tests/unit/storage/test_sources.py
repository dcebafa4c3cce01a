"""Reading a folder: mapped where that is safe, read elsewhere, and never a wrong byte."""

import contextlib
import errno
import gc
import mmap
import os
import resource

import pytest

from mltraq_ds.errors import CorruptBlobError, StorageError
from mltraq_ds.storage import LocalStorage, stream_of
from mltraq_ds.storage import mappings as file_mappings
from mltraq_ds.storage.local import MAPPABLE
from mltraq_ds.storage.mounts import filesystem_type
from mltraq_ds.storage.sources import MAP_FROM, new_buffer
from mltraq_ds.testing.storage_hooks import pattern

SIZE = 3 * MAP_FROM + 1000
DATA = pattern(SIZE)


@pytest.fixture
def storage(tmp_path):
    storage = LocalStorage(tmp_path)
    storage.put("x", [DATA], size=SIZE)
    return storage


@pytest.fixture
def mappings(monkeypatch):
    """Count the mappings of files."""
    made = []
    real = mmap.mmap

    class Counting(real):
        def __new__(cls, fd, *arguments, **more):
            if fd >= 0:
                made.append(fd)
            return real.__new__(cls, fd, *arguments, **more)

    monkeypatch.setattr(mmap, "mmap", Counting)
    return made


def is_on_local_disk(path):
    return filesystem_type(os.stat(path).st_dev, str(path)) in MAPPABLE


def test_large_reads_are_mapped(storage, mappings, tmp_path):
    """From 64 KiB a read is a mapping, below it is a copy; both give the same bytes."""
    if not is_on_local_disk(tmp_path):
        pytest.skip("the temporary folder is on no local disk")
    source = storage.open("x")
    assert bytes(source.read(10, MAP_FROM - 1)) == DATA[10 : 10 + MAP_FROM - 1]
    assert mappings == []
    assert bytes(source.read(5001, MAP_FROM)) == DATA[5001 : 5001 + MAP_FROM]
    assert len(mappings) == 1
    assert not source.read(0, SIZE).readonly


def test_mapping_can_be_switched_off(storage, mappings, tmp_path):
    """Without mmap every read is a copy, writable and page-aligned all the same."""
    source = LocalStorage(tmp_path, mmap=False).open("x")
    view = source.read(0, SIZE)
    assert bytes(view) == DATA
    assert not view.readonly
    assert mappings == []


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "virtiofs", None])
def test_network_mounts_are_never_mapped(storage, mappings, monkeypatch, kind):
    """On a network mount, or where the mount is unknown, a vanished server would kill the process: it is read."""
    asked = []
    monkeypatch.setattr("mltraq_ds.storage.local.filesystem_type", lambda device, path: (asked.append(device), kind)[1])
    for _ in range(2):
        assert bytes(storage.open("x").read(0, SIZE)) == DATA
    assert mappings == []
    assert len(asked) <= 1


MOUNTS = r"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:1 / / rw,relatime - ext4 /dev/vda rw
30 27 0:40 / /home/team rw shared:5 - nfs4 server:/x rw
31 30 0:41 / /home/team/a\040b rw shared:5 master:1 - cifs //server/y rw
32 27 0:42 / /hidden rw - tmpfs tmpfs rw
33 32 0:43 / /hidden rw - fuse.sshfs host: rw
"""


@pytest.mark.parametrize(
    ("device", "path", "kind"),
    [
        ((254, 1), "/data/x", "ext4"),
        ((0, 40), "/anything", "nfs4"),
        ((9, 9), "/home/team/x", "nfs4"),
        ((9, 9), "/home/team", "nfs4"),
        ((9, 9), "/home/teammate/x", "ext4"),
        ((9, 9), "/home/team/a b/x", "cifs"),
        ((9, 9), "/hidden/x", "fuse.sshfs"),
    ],
)
def test_filesystem_types(tmp_path, monkeypatch, device, path, kind):
    """The type is that of the device, else of the innermost and latest mount."""
    (tmp_path / "mountinfo").write_text(MOUNTS)
    monkeypatch.setattr("mltraq_ds.storage.mounts._MOUNTS", str(tmp_path / "mountinfo"))
    assert filesystem_type(os.makedev(*device), path) == kind


def test_filesystem_type_unknown(tmp_path, monkeypatch):
    """Without a table of mounts nothing is known, and so nothing mapped."""
    monkeypatch.setattr("mltraq_ds.storage.mounts._MOUNTS", str(tmp_path / "none"))
    assert filesystem_type(os.stat(tmp_path).st_dev, str(tmp_path)) is None


def test_descriptors_are_left_to_others(storage, monkeypatch, mappings):
    """Mappings hold descriptors and arrays live long: beyond a share of the limit, reads are copies."""
    monkeypatch.setattr(file_mappings, "_max_open", lambda: 0)
    assert bytes(storage.open("x").read(0, SIZE)) == DATA
    assert mappings == []


@pytest.mark.parametrize(("soft", "limit"), [(100, 50), (resource.RLIM_INFINITY, 16_384), (10**6, 16_384)])
def test_share_of_descriptors(monkeypatch, soft, limit):
    """Half of the descriptors at most, and a fixed number where there is no limit."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, soft))
    assert file_mappings._max_open() == limit


def test_mapping_that_fails(storage, monkeypatch):
    """Where mapping fails the bytes are read."""
    real = mmap.mmap

    def refuse(fd, *arguments, **more):
        if fd >= 0:
            raise OSError(errno.ENODEV, "No such device")
        return real(fd, *arguments, **more)

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert bytes(storage.open("x").read(0, SIZE)) == DATA


@pytest.mark.parametrize("is_mapped", [True, False])
@pytest.mark.parametrize("size", [0, 10, SIZE - 1, SIZE + 1])
def test_changed_while_open(storage, tmp_path, size, is_mapped):
    """A file that was cut or grew while it was open is refused before its bytes are touched."""
    source = LocalStorage(tmp_path, mmap=is_mapped).open("x")
    os.chmod(tmp_path / "x", 0o644)
    os.truncate(tmp_path / "x", size)
    with pytest.raises(CorruptBlobError, match="restore it from a copy"):
        source.read(0, SIZE)


@pytest.mark.parametrize("is_mapped", [True, False])
def test_cut_between_looking_and_reading(storage, tmp_path, monkeypatch, is_mapped):
    """A file that is cut right after its size was looked at is an error too."""
    before = os.stat(tmp_path / "x")
    source = LocalStorage(tmp_path, mmap=is_mapped).open("x")
    os.chmod(tmp_path / "x", 0o644)
    os.truncate(tmp_path / "x", 1000)
    real = os.fstat

    def fstat(fd):
        monkeypatch.setattr(os, "fstat", real)
        return before

    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(CorruptBlobError, match=f"1000 bytes and {SIZE}"):
        source.read(0, SIZE)


def test_views_hold_the_file(storage, tmp_path):
    """What was read stays when the source is closed and the file removed; descriptors end with the last view."""
    source = storage.open("x")
    view = source.read(100, SIZE - 100)
    source.close()
    storage.delete("x")
    del source
    assert bytes(view) == DATA[100:]
    assert descriptors_below(tmp_path)
    del view
    gc.collect()
    assert descriptors_below(tmp_path) == []


def test_forgotten_source_is_closed(storage, tmp_path):
    """A source that is dropped without closing leaves no descriptor."""
    source = storage.open("x")
    assert descriptors_below(tmp_path)
    del source
    with pytest.raises(CorruptBlobError):
        storage.open("x", size=3)
    gc.collect()
    assert descriptors_below(tmp_path) == []


def descriptors_below(folder):
    """Return the files in a folder that this process has open or mapped; what earlier tests have left is elsewhere."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            path = os.readlink(f"/proc/self/fd/{number}")
            if path.startswith(str(folder)):
                found.append(path)
    return found


def test_disk_that_fails_while_reading(storage, tmp_path, monkeypatch):
    """An error of the disk names the key."""
    source = LocalStorage(tmp_path, mmap=False).open("x")

    def preadv(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(StorageError, match="read 'x'"):
        source.read(0, SIZE)


def test_short_reads(storage, tmp_path, monkeypatch):
    """A system that reads fewer bytes than asked for is asked again."""
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: real(fd, [views[0][:1000]], offset))
    assert bytes(LocalStorage(tmp_path, mmap=False).open("x").read(7, SIZE - 7)) == DATA[7:]


@pytest.mark.parametrize("size", [0, 1, MAP_FROM - 1, MAP_FROM, 3 * 2**20])
def test_new_buffer(size):
    """Buffers are writable, zero and of the size asked for; a child that was forked cannot write into the parent's."""
    buffer = new_buffer(size)
    assert (buffer.nbytes, buffer.readonly) == (size, False)
    assert bytes(buffer) == bytes(size)


def test_buffers_are_not_shared_with_children():
    """What a forked child writes into its buffer stays there."""
    import subprocess
    import sys

    code = (
        "import os; from mltraq_ds.storage.sources import new_buffer; b = new_buffer(2**20); pid = os.fork();\n"
        "if pid == 0:\n    b[0] = 1\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\nassert b[0] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernel_without_huge_pages(monkeypatch):
    """Huge pages are only an advice."""
    real = mmap.mmap

    class Refusing(real):
        def madvise(self, advice):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    assert bytes(new_buffer(MAP_FROM)) == bytes(MAP_FROM)
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert bytes(new_buffer(MAP_FROM)) == bytes(MAP_FROM)


def test_open_reports_other_errors(tmp_path, monkeypatch):
    """An error of opening that is about no link is told."""

    def refuse(*arguments):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="ulimit -n"):
        LocalStorage(tmp_path).open("x")


def test_stream(storage):
    """A stream over a source reads, seeks from every end and stops at the end of the key."""
    source = storage.open("x")
    with stream_of(source.read, source.size) as stream:
        assert stream.seekable()
        assert stream.readable()
        assert stream.read(10) == DATA[:10]
        assert stream.seek(-5, os.SEEK_END) == SIZE - 5
        assert stream.read() == DATA[-5:]
        assert stream.read(1) == b""
        stream.seek(100)
        assert stream.seek(11, os.SEEK_CUR) == stream.tell() == 111
        assert stream.read(3) == DATA[111:114]
        stream.seek(SIZE + 10)
        assert stream.read() == b""
        with pytest.raises(ValueError, match="negative"):
            stream.seek(-1)
