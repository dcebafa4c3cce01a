"""Writing to a folder when the machine does not play along."""

import errno
import os
import pickle
import subprocess
import sys

import pytest

from mltraq_ds.errors import InvalidNameError, KeyExistsError, KeyMissingError, StorageError
from mltraq_ds.storage import LocalStorage, writing
from mltraq_ds.storage.failures import failure_of
from mltraq_ds.storage.mounts import filesystem_type


@pytest.fixture
def tmpfs(tmp_path):
    """Mount a file system of 1 MiB and 20 inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("only root can mount; test_size_limit does without")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def names_in(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("size", [2 * 2**20, 1_000_000])
def test_disk_full(tmpfs, size):
    """A full disk is an OSError with its number, the key and the remedy; what was there is there, and nothing else."""
    storage = LocalStorage(tmpfs)
    storage.put("old", [bytes(200_000)], size=200_000)
    for replace in (False, True):
        with pytest.raises(OSError, match="Free space") as caught:
            storage.put("old" if replace else "x", [bytes(size)], size=size, replace=replace)
        assert isinstance(caught.value, StorageError)
        assert caught.value.errno == errno.ENOSPC
        assert pickle.loads(pickle.dumps(caught.value)).errno == errno.ENOSPC
        assert names_in(tmpfs) == ["old"]
    assert LocalStorage(tmpfs).read("old") == bytes(200_000)


def test_inodes_used_up(tmpfs):
    """A disk without room for another name is told like a full one."""
    storage = LocalStorage(tmpfs, durability="relaxed")
    with pytest.raises(StorageError, match="inodes") as caught:
        for i in range(30):
            storage.put(str(i), [b"1"], size=1)
    assert caught.value.errno == errno.ENOSPC
    assert all(storage.read(name) == b"1" for name in names_in(tmpfs))


def test_read_only_disk(tmpfs):
    """A disk that is mounted read-only is named, and still read."""
    storage = LocalStorage(tmpfs)
    storage.put("x", [b"1"], size=1)
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    for change in (
        lambda: storage.put("y", [b"1"], size=1),
        lambda: storage.put("x", [b"2"], size=1, replace=True),
        lambda: storage.delete("x"),
        lambda: storage.make_folder("a"),
        lambda: storage.prune("a"),
    ):
        with pytest.raises(StorageError, match="read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert LocalStorage(tmpfs).read("x") == b"1"


def test_size_limit(tmp_path):
    """A limit on the size of files is met like a full disk: an error, and nothing left."""
    code = f"""
import errno, resource, signal
from mltraq_ds.storage import LocalStorage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
storage = LocalStorage({str(tmp_path)!r})
for size in (600_000, 3_000_000):
    try:
        storage.put("x", [bytes(size)], size=size)
    except OSError as error:
        assert error.errno == errno.EFBIG and "ulimit" in str(error), error
    else:
        raise SystemExit("no error")
storage.put("y", [b"1"], size=1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert names_in(tmp_path) == ["y"]


def test_folder_without_permission(tmp_path, monkeypatch):
    """A folder that this user may not write is an error with the remedy."""
    storage = LocalStorage(tmp_path / "a")
    storage.put("x", [b"1"], size=1, parents=True)
    if os.getuid():
        os.chmod(tmp_path / "a", 0o500)
    else:  # root may write everywhere

        def refuse(*arguments):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="permission to read and write") as caught:
        storage.put("y", [b"1"], size=1)
    monkeypatch.undo()
    os.chmod(tmp_path / "a", 0o700)
    assert caught.value.errno == errno.EACCES
    assert names_in(tmp_path / "a") == ["x"]


class Recorder:
    """Writes down the system calls that matter for a power cut."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("fsync", "link", "unlink", "replace", "mkdir"):
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))

    def wrap(self, name, function):
        def call(*arguments, **more):
            if name == "fsync":
                path = os.readlink(f"/proc/self/fd/{arguments[0]}")
                what = "fsync folder " + os.path.basename(path) if os.path.isdir(path) else "fsync file"
            else:
                what = name
            self.calls.append(what)
            return function(*arguments, **more)

        return call


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="tells descriptors by /proc")
class TestFlushing:
    """What is flushed, and when: before the name is given, and after."""

    def test_put(self, tmp_path, monkeypatch):
        """The bytes are flushed before the name is made, and the name after."""
        storage = LocalStorage(tmp_path / "root")
        storage.put("x", [b"1"], size=1, parents=True)
        recorder = Recorder(monkeypatch)
        storage.put("y", [b"1"], size=1)
        assert recorder.calls == ["fsync file", "link", "unlink", "fsync folder root"]
        recorder.calls.clear()
        storage.put("y", [b"2"], size=1, replace=True)
        assert recorder.calls == ["fsync file", "replace", "fsync folder root"]

    def test_new_folders(self, tmp_path, monkeypatch):
        """Every folder that had to be made is flushed into the one above it, once, before there is anything in it."""
        recorder = Recorder(monkeypatch)
        name = tmp_path.name
        LocalStorage(tmp_path / "root").put("a/b/x", [b"1"], size=1, parents=True)
        made = ["mkdir", f"fsync folder {name}", "mkdir", "fsync folder root", "mkdir", "fsync folder a"]
        assert recorder.calls == [*made, "fsync file", "link", "unlink", "fsync folder b"]

    def test_folders_made_by_others_are_flushed_once(self, tmp_path, monkeypatch):
        """Whoever made the folders above a key: it is durable only with them; once is enough."""
        (tmp_path / "a" / "b").mkdir(parents=True)
        storage = LocalStorage(tmp_path)
        recorder = Recorder(monkeypatch)
        storage.put("a/b/x", [b"1"], size=1)
        assert recorder.calls[3:] == ["fsync folder b", "fsync folder a", f"fsync folder {tmp_path.name}"]
        recorder.calls.clear()
        storage.put("a/b/y", [b"1"], size=1)
        assert recorder.calls[3:] == ["fsync folder b"]
        storage.delete_folder("a/b")
        (tmp_path / "a" / "b").mkdir()
        recorder.calls.clear()
        storage.put("a/b/y", [b"1"], size=1)
        assert recorder.calls[3:] == ["fsync folder b", "fsync folder a"]

    def test_folder_made_by_another_above_one_of_ours(self, tmp_path, monkeypatch):
        """The name of a folder that somebody else has made is flushed too, when we make the one below it."""
        (tmp_path / "a").mkdir()
        storage = LocalStorage(tmp_path)
        recorder = Recorder(monkeypatch)
        storage.put("a/b/x", [b"1"], size=1, parents=True)
        assert recorder.calls[:3] == ["mkdir", "fsync folder a", f"fsync folder {tmp_path.name}"]
        assert recorder.calls[-1] == "fsync folder b"
        recorder.calls.clear()
        storage.put("a/b/y", [b"1"], size=1)
        assert recorder.calls[3:] == ["fsync folder b"]

    def test_flush_later(self, tmp_path, monkeypatch):
        """Names are left for one flush that visits each folder once."""
        storage = LocalStorage(tmp_path)
        for key in ("a/1", "a/2", "b/1"):
            storage.put(key, [b"1"], size=1, parents=True)
        recorder = Recorder(monkeypatch)
        for key in ("a/3", "a/4", "b/2"):
            storage.put(key, [b"1"], size=1, flush=False)
        assert recorder.calls == ["fsync file", "link", "unlink"] * 3
        recorder.calls.clear()
        storage.flush(["a/3", "a/4", "b/2"])
        assert sorted(recorder.calls) == ["fsync folder a", "fsync folder b"]

    def test_relaxed(self, tmp_path, monkeypatch):
        """With relaxed durability nothing at all is flushed."""
        storage = LocalStorage(tmp_path / "root", durability="relaxed")
        recorder = Recorder(monkeypatch)
        storage.put("a/x", [b"1"], size=1, parents=True)
        storage.put("a/x", [b"1"], size=1, replace=True)
        storage.make_folder("b")
        storage.move_folder("b", "c/d")
        storage.flush(["a/x"])
        assert [call for call in recorder.calls if call.startswith("fsync")] == []

    def test_moved_folder(self, tmp_path, monkeypatch):
        """A folder that is renamed is flushed out of one folder and into the other."""
        storage = LocalStorage(tmp_path)
        storage.make_folder("a")
        recorder = Recorder(monkeypatch)
        assert storage.move_folder("a", "_pending/b")
        above = f"fsync folder {tmp_path.name}"
        assert recorder.calls == ["mkdir", above, "fsync folder _pending", above]
        assert (tmp_path / "_pending" / "b").is_dir()

    def test_flush_of_a_deleted_folder(self, tmp_path):
        """Names in a folder that somebody removed cannot be made durable, and that is said."""
        storage = LocalStorage(tmp_path)
        storage.put("a/x", [b"1"], size=1, parents=True, flush=False)
        storage.delete_folder("a")
        with pytest.raises(KeyMissingError, match="a/x"):
            storage.flush(["a/x"])

    def test_folder_that_cannot_be_flushed(self, tmp_path, monkeypatch):
        """Some file systems cannot flush folders, which is tolerated; a failing disk is not, and the key is whole."""
        storage = LocalStorage(tmp_path)
        number = errno.EINVAL

        def fsync(fd, real=os.fsync):
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                raise OSError(number, os.strerror(number))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        storage.put("x", [b"1"], size=1)
        number = errno.EIO
        with pytest.raises(StorageError, match="health of the disk") as caught:
            storage.put("y", [b"2"], size=1)
        assert caught.value.errno == errno.EIO
        assert storage.read("y") == b"2"

    def test_file_that_cannot_be_flushed(self, tmp_path, monkeypatch):
        """A disk that fails while bytes are flushed leaves nothing."""

        def fsync(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match="put 'x'"):
            LocalStorage(tmp_path).put("x", [b"1"], size=1)
        assert names_in(tmp_path) == []


def test_killed_child_leaves_a_temporary_file(tmp_path):
    """SIGKILL in the middle of a put leaves no key, only a file that sweep finds."""
    code = f"""
from mltraq_ds.storage import LocalStorage
from mltraq_ds.testing import FaultStorage, Kill
storage = FaultStorage(LocalStorage({str(tmp_path)!r}), {{2: Kill("during")}})
storage.put("a/old", [b"old"], size=3, parents=True)
storage.put("a/x", [bytes(2**20)] * 8, size=2**23)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    storage = LocalStorage(tmp_path)
    assert [stat.key for stat in storage.list()] == ["a/old"]
    (left,) = storage.list_unfinished("a")
    assert left.key.startswith("a/.tmp-")
    assert storage.read("a/old") == b"old"
    storage.delete(left.key)
    assert names_in(tmp_path / "a") == ["old"]


def test_keyboard_interrupt_at_every_call(tmp_path, monkeypatch):
    """Ctrl-C at any system call of a put leaves either nothing or the whole key, and never a temporary file."""
    names = ["open", "write", "fsync", "close", "link"]
    for name in names:
        storage = LocalStorage(tmp_path)
        function = getattr(os, name)

        def interrupt(*arguments, name=name, real=function, **more):
            monkeypatch.setattr(os, name, real)
            if name == "close":
                real(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            storage.put("x", [b"1"], size=1)
        assert names_in(tmp_path) == [], name
    storage.put("x", [b"1"], size=1)
    assert storage.read("x") == b"1"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_without_hard_links(tmp_path, monkeypatch, number):
    """Without hard links a name is claimed first: never over an existing one, and gone again if that fails."""

    def link(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)
    storage = LocalStorage(tmp_path)
    storage.put("x", [b"1"], size=1)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)  # both have looked before either wrote
    with pytest.raises(KeyExistsError):
        storage.put("x", [b"2"], size=1)
    assert storage.read("x") == b"1"

    def replace(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(StorageError, match="put 'y'"):
        storage.put("y", [b"2"], size=1)
    assert names_in(tmp_path) == ["x"]


def test_link_that_fails_otherwise(tmp_path, monkeypatch):
    """An error that does not mean "no hard links here" is told, not worked around."""

    def link(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageError, match="health of the disk"):
        LocalStorage(tmp_path).put("x", [b"1"], size=1)
    assert names_in(tmp_path) == []


def test_race_after_looking(tmp_path, monkeypatch):
    """A key that appears between looking and naming is never replaced."""
    storage = LocalStorage(tmp_path)
    storage.put("x", [b"1"], size=1)
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(KeyExistsError) as caught:
        storage.put("x", [b"2"], size=1)
    assert (storage.read("x"), names_in(tmp_path)) == (b"1", ["x"])
    assert pickle.loads(pickle.dumps(caught.value)).errno == errno.EEXIST


def test_blobs_are_read_only(tmp_path):
    """A key is read-only from birth, within the umask; one that will be replaced is not."""
    old = os.umask(0o027)
    try:
        storage = LocalStorage(tmp_path)
        storage.put("x", [b"1"], size=1)
        storage.put("y", [b"1"], size=1, replace=True)
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o440
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o640


def test_late_writer_does_not_revive_a_folder(tmp_path):
    """A folder that is moved away while a key is written stays away, and the writer is told."""
    storage = LocalStorage(tmp_path)
    storage.put("a/x", [b"1"], size=1, parents=True)

    class Buffers:
        def __iter__(self):
            yield b"1"
            storage.move_folder("a", "_pending/gone")
            yield b"2"

    with pytest.raises(KeyMissingError, match="folder does not exist"):
        storage.put("a/late", Buffers(), size=2)
    assert [stat.key for stat in storage.list()] == ["_pending/gone/x"]
    storage.delete_folder("_pending/gone")
    assert list(storage.list_unfinished()) == []


def test_file_in_the_way_of_a_folder(tmp_path):
    """A key whose folder would have the name of a file is refused, with the reason."""
    storage = LocalStorage(tmp_path)
    storage.put("a", [b"1"], size=1)
    with pytest.raises(KeyMissingError, match="a file, not a folder"):
        storage.put("a/b/x", [b"1"], size=1, parents=True)
    with pytest.raises(KeyMissingError, match="a file, not a folder"):
        storage.move_folder("a", "b")
    storage.put("c/d", [b"1"], size=1, parents=True)
    with pytest.raises(KeyExistsError):
        storage.put("c", [b"1"], size=1)
    with pytest.raises(StorageError, match="a folder of this name"):
        storage.put("c", [b"1"], size=1, replace=True)
    with pytest.raises(StorageError, match="delete 'c'"):
        storage.delete("c")
    assert {stat.key for stat in storage.list()} == {"a", "c/d"}
    assert list(storage.list_unfinished()) == []


def test_folder_across_devices(tmp_path, monkeypatch):
    """A folder that cannot be renamed in one step stays where it is; other errors are told."""
    storage = LocalStorage(tmp_path)
    storage.make_folder("a")
    number = errno.EXDEV

    def rename(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "rename", rename)
    assert not storage.move_folder("a", "b")
    number = errno.EIO
    with pytest.raises(StorageError, match="move_folder 'a'"):
        storage.move_folder("a", "b")
    assert storage.folders() == ["a"]


def test_short_writes(tmp_path, monkeypatch):
    """A system that writes fewer bytes than asked for is asked again for the rest."""
    real_write, real_writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda fd, view: real_write(fd, memoryview(view)[: max(1, len(view) // 3)]))
    monkeypatch.setattr(os, "writev", lambda fd, views: real_writev(fd, [views[0], views[1][:2]]))
    buffers = [bytes([i]) * (i * 50) for i in range(40)] + [b"x" * (2**20 + 5), b"y"]
    data = b"".join(buffers)
    LocalStorage(tmp_path).put("x", buffers, size=len(data))
    assert (tmp_path / "x").read_bytes() == data


def test_calls_are_bounded(tmp_path, monkeypatch):
    """No call writes more than the system takes, in bytes or buffers."""
    monkeypatch.setattr(writing, "_MAX_BYTES", 1000)
    monkeypatch.setattr(writing, "_MAX_BUFFERS", 4)
    sizes = []
    real_write, real_writev = os.write, os.writev

    def writev(fd, views):
        sizes.append((len(views), sum(view.nbytes for view in views)))
        return real_writev(fd, views)

    def write(fd, view):
        sizes.append((1, view.nbytes))
        return real_write(fd, view)

    monkeypatch.setattr(os, "writev", writev)
    monkeypatch.setattr(os, "write", write)
    buffers = [bytes([i]) * size for i, size in enumerate([1, 2500, 300, 800, 999, 3, 3, 3, 3, 5000])]
    data = b"".join(buffers)
    LocalStorage(tmp_path).put("x", buffers, size=len(data))
    assert (tmp_path / "x").read_bytes() == data
    assert all(count <= 4 and size <= 1000 for count, size in sizes)


def test_without_writev(tmp_path, monkeypatch):
    """Where the system has no call for many buffers they are written one by one."""
    monkeypatch.delattr(os, "writev")
    LocalStorage(tmp_path).put("x", [b"12", b"3"], size=3)
    assert (tmp_path / "x").read_bytes() == b"123"


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_preallocation_is_optional(tmp_path, monkeypatch, number):
    """A file system that cannot preallocate is written all the same."""
    asked = []

    def posix_fallocate(fd, offset, size):
        asked.append(size)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    kind = filesystem_type(os.stat(tmp_path).st_dev, str(tmp_path))
    monkeypatch.setattr("mltraq_ds.storage.local.PREALLOCATABLE", {kind})
    LocalStorage(tmp_path).put("x", [bytes(2**20)], size=2**20)
    assert (tmp_path / "x").stat().st_size == 2**20
    assert asked == [2**20]
    monkeypatch.setattr("mltraq_ds.storage.local.PREALLOCATABLE", set())
    LocalStorage(tmp_path).put("y", [bytes(2**20)], size=2**20)
    assert asked == [2**20]


class TestLinks:
    """Symbolic links: the root may be one, and none may lead out of it."""

    @pytest.fixture
    def outside(self, tmp_path):
        folder = tmp_path / "outside"
        folder.mkdir()
        (folder / "secret").write_bytes(b"s")
        return folder

    @pytest.fixture
    def storage(self, tmp_path):
        storage = LocalStorage(tmp_path / "root")
        storage.put("in/x", [b"1"], size=1, parents=True)
        return storage

    def test_folder_that_leads_out(self, tmp_path, outside, storage):
        """Nothing is read, written, listed or removed through a folder that is a link out of the root."""
        (tmp_path / "root" / "out").symlink_to(outside)
        for verb in (
            lambda: storage.read("out/secret"),
            lambda: storage.stat("out/secret"),
            lambda: storage.exists("out/secret"),
            lambda: storage.put("out/x", [b"1"], size=1),
            lambda: storage.put("out/a/x", [b"1"], size=1, parents=True),
            lambda: storage.delete("out/secret"),
            lambda: storage.list("out"),
            lambda: storage.folders("out"),
            lambda: storage.make_folder("out/a"),
            lambda: storage.move_folder("in", "out/in"),
            lambda: storage.delete_folder("out/a"),
            lambda: storage.flush(["out/x"]),
        ):
            with pytest.raises(InvalidNameError, match="symbolic link"):
                verb()
        assert names_in(outside) == ["secret"]
        assert "out/secret" not in {stat.key for stat in storage.list()}
        storage.delete_folder("out")
        assert names_in(outside) == ["secret"]
        assert names_in(tmp_path / "root") == ["in"]

    def test_key_that_leads_out(self, tmp_path, outside, storage):
        """A key that is a link out of the root is not followed; replacing and removing it touch only the link."""
        (tmp_path / "root" / "in" / "out").symlink_to(outside / "secret")
        for verb in (storage.read, storage.stat, storage.open, storage.exists):
            with pytest.raises(InvalidNameError, match="leaves"):
                verb("in/out")
        with pytest.raises(KeyExistsError):
            storage.put("in/out", [b"1"], size=1)
        assert {stat.key for stat in storage.list()} == {"in/x", "in/out"}
        storage.put("in/out", [b"new"], size=3, replace=True)
        assert storage.read("in/out") == b"new"
        (tmp_path / "root" / "in" / "other").symlink_to(outside / "secret")
        storage.delete("in/other")
        assert (outside / "secret").read_bytes() == b"s"

    def test_links_inside(self, tmp_path, storage):
        """Links that stay inside are followed; one that leads nowhere is listed and cannot be read."""
        root = tmp_path / "root"
        (root / "folder").symlink_to(root / "in")
        (root / "key").symlink_to("in/x")
        (root / "nowhere").symlink_to("in/y")
        assert storage.read("folder/x") == storage.read("key") == b"1"
        assert storage.stat("key").size == 1
        sizes = {stat.key: stat.size for stat in storage.list()}
        assert set(sizes) == {"in/x", "folder", "key", "nowhere"}
        assert sizes["key"] == 1
        with pytest.raises(KeyMissingError):
            storage.read("nowhere")
        storage.put("folder/y", [b"2"], size=1)
        assert storage.read("nowhere") == b"2"

    def test_root_is_a_link(self, tmp_path, storage):
        """The root itself may be a link."""
        (tmp_path / "link").symlink_to(tmp_path / "root")
        other = LocalStorage(tmp_path / "link")
        assert other.read("in/x") == b"1"
        other.put("in/y", [b"2"], size=1)
        assert storage.read("in/y") == b"2"

    def test_loop(self, tmp_path, storage):
        """A link to itself is an error, not a hang."""
        (tmp_path / "root" / "loop").symlink_to("loop")
        for verb in (storage.read, storage.stat):
            with pytest.raises(StorageError, match="loop"):
                verb("loop")
        assert {stat.key for stat in storage.list()} == {"in/x", "loop"}


def test_folder_removed_while_others_add(tmp_path, monkeypatch):
    """Removing a folder goes on although files appear and vanish meanwhile; one that never ends is an error."""
    storage = LocalStorage(tmp_path)
    storage.put("a/x", [b"1"], size=1, parents=True)
    storage.put("a/y", [b"1"], size=1)
    real = os.rmdir
    added = []
    limit = 3

    def rmdir(path, **more):
        if len(added) < limit:
            added.append(path)
            (tmp_path / "a" / f"late{len(added)}").write_bytes(b"1")
        return real(path, **more)

    real_unlink = os.unlink

    def unlink(path, **more):
        real_unlink(path, **more)
        if len(added) == 0:
            for other in (tmp_path / "a").iterdir():
                real_unlink(other)  # somebody else removes the rest

    monkeypatch.setattr(os, "rmdir", rmdir)
    monkeypatch.setattr(os, "unlink", unlink)
    storage.delete_folder("a")
    assert len(added) == 3
    assert names_in(tmp_path) == []
    monkeypatch.setattr(os, "unlink", real_unlink)
    limit = 1000
    storage.put("a/x", [b"1"], size=1, parents=True)
    with pytest.raises(StorageError, match="delete_folder 'a'"):
        storage.delete_folder("a")


def test_folder_that_goes_at_once(tmp_path, monkeypatch):
    """A folder that somebody else removes first is no error."""

    def gone(path):
        raise FileNotFoundError(errno.ENOENT, "gone")

    monkeypatch.setattr("mltraq_ds.storage.folders._remove_tree_once", gone)
    LocalStorage(tmp_path).delete_folder("a")
    assert names_in(tmp_path) == []


def test_listing_of_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """A listing that cannot be complete is an error: a sweep acts on it."""

    def scandir(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    storage = LocalStorage(tmp_path)
    for verb in (lambda: list(storage.list()), storage.folders):
        with pytest.raises(StorageError, match="permission"):
            verb()


def test_existence_is_never_guessed(tmp_path, monkeypatch):
    """A storage that does not answer is an error, not "no"."""

    def lstat(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "lstat", lstat)
    with pytest.raises(StorageError, match="stat 'x'"):
        LocalStorage(tmp_path).exists("x")


def test_devices_and_pipes_are_no_keys(tmp_path):
    """A pipe is refused at once: opening one the usual way would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    storage = LocalStorage(tmp_path)
    for verb in (storage.open, storage.stat):
        with pytest.raises(StorageError, match="device, pipe or socket"):
            verb("pipe")


def test_texts_of_failures():
    """A failure says what, on which key, why, and what to do, whatever it was."""
    text = str(failure_of("put", "a/x", "file:///s", OSError(errno.ENOSPC, "x")))
    assert text.startswith("put 'a/x' in file:///s failed because of: No space left on device (ENOSPC). Free space")
    assert "TimeoutError: slow. Look at" in str(failure_of("stat", "a", "s3://b", TimeoutError("slow")))
    refused = failure_of("put", "a", "s3://b", PermissionError("Access Denied"))
    assert "Access Denied" in str(refused)
    assert "permission" in str(refused)
    assert refused.errno is None
    assert str(failure_of("list", "", "s3://b", OSError(errno.EIO, "x"))).startswith("list s3://b failed")
