"""Whatever fsspec reaches: kinds of filesystems that we have no server for here."""

import errno
import io
import pickle
from datetime import UTC, datetime, timedelta, timezone

import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from mltraq_ds.errors import CorruptBlobError, KeyExistsError, KeyMissingError, StorageError
from mltraq_ds.storage.clients.anything import AnyClient
from mltraq_ds.storage.remote import RemoteStorage
from mltraq_ds.storage.remote_listing import _finds_by_itself, stat_of, walk
from mltraq_ds.storage.remote_writing import CREATORS

LARGE = 20 * 2**20


class BufferedFile(AbstractBufferedFile):
    """As s3fs has it: parts are uploaded, and published by `commit`."""

    def _initiate_upload(self):
        self.parts = []

    def _upload_chunk(self, final=False):
        self.buffer.seek(0)
        self.parts.append(self.buffer.read())
        self.fs.fail("part")
        if final and self.autocommit:
            self.commit()
        return True

    def commit(self):
        self.fs.store[self.path] = b"".join(self.parts)

    def discard(self):
        self.fs.discarded.append(self.path)


class PlainFile(io.BytesIO):
    """As simple implementations have it: what is closed is there."""

    def __init__(self, filesystem, path):
        super().__init__()
        self.filesystem = filesystem
        self.path = path

    def close(self):
        if not self.closed:
            self.filesystem.store[self.path] = self.getvalue()
        super().close()


class Filesystem(AbstractFileSystem):
    """A flat store of bytes that counts requests and fails where told."""

    cachable = False

    def __init__(self, file_type=BufferedFile):
        super().__init__()
        self.store = {}
        self.file_type = file_type
        self.discarded = []
        self.requests = []
        self.failures = {}

    def fail(self, request):
        self.requests.append(request)
        if request in self.failures:
            raise self.failures[request]

    def ls(self, path, detail=True, **more):
        self.fail("ls")
        inside = path.rstrip("/") + "/"
        found = {}
        for name, data in self.store.items():
            if name == path:
                found[name] = {"name": name, "size": len(data), "type": "file"}
            elif name.startswith(inside):
                child, slash, _ = name[len(inside) :].partition("/")
                kind = "directory" if slash else "file"
                found[child] = {"name": inside + child, "size": 0 if slash else len(data), "type": kind}
        if not found:
            raise FileNotFoundError(path)
        return list(found.values())

    def find(self, path, maxdepth=None, withdirs=False, detail=False, **more):
        self.fail("ls")
        start = path + "/"
        return {k: {"name": k, "size": len(v), "type": "file"} for k, v in self.store.items() if k.startswith(start)}

    def info(self, path, **more):
        self.fail("info")
        if path in self.store:
            return {"name": path, "size": len(self.store[path]), "type": "file"}
        if any(name.startswith(path + "/") for name in self.store):
            return {"name": path, "size": 0, "type": "directory"}
        raise FileNotFoundError(path)

    def cat_file(self, path, start=None, end=None, **more):
        self.fail("get")
        try:
            return self.store[path][start:end]
        except KeyError:
            raise FileNotFoundError(path) from None

    def pipe_file(self, path, value, **more):
        self.fail("pipe")
        self.store[path] = bytes(value)

    def _rm(self, path):
        self.fail("rm")
        if path not in self.store:
            raise FileNotFoundError(path)
        del self.store[path]

    def rm(self, path, recursive=False, maxdepth=None):
        self.fail("rm many")
        names = [path] if isinstance(path, str) else path
        for name in names:
            for key in [k for k in self.store if k == name or (recursive and k.startswith(name + "/"))]:
                del self.store[key]

    def mv(self, path1, path2, **more):
        self.fail("mv")
        self.store[path2] = self.store.pop(path1)

    def _open(self, path, mode="rb", autocommit=True, **more):
        self.fail("open")
        if self.file_type is PlainFile:
            return PlainFile(self, path)
        return BufferedFile(self, path, mode, autocommit=autocommit, block_size=5 * 2**20)


@pytest.fixture
def make(monkeypatch):
    """Return a storage of some scheme over a filesystem of ours."""

    def make(scheme, filesystem):
        monkeypatch.setattr("fsspec.get_filesystem_class", lambda name: Filesystem)
        monkeypatch.setattr("mltraq_ds.storage.filesystems.url_to_fs", lambda url, **options: (filesystem, "bucket/x"))
        return RemoteStorage(f"{scheme}://bucket/x")

    return make


@pytest.mark.parametrize("scheme", ["oss", "ftp"])
@pytest.mark.parametrize("file_type", [BufferedFile, PlainFile])
@pytest.mark.parametrize("size", [5, LARGE])
def test_round_trip(make, scheme, file_type, size):
    """Object stores and servers with folders, new and replaced, small and large: what is read is what was put."""
    filesystem = Filesystem(file_type)
    storage = make(scheme, filesystem)
    assert not storage.creates_if_absent
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    half = len(data) // 2
    storage.put("a/k", [data[:half], data[half:]], size=len(data))
    with pytest.raises(KeyExistsError, match="a/k"):
        storage.put("a/k", [data], size=len(data))
    assert filesystem.store == {"bucket/x/a/k": data}
    storage.put("a/k", [data[::-1]], size=len(data), replace=True)
    assert storage.read("a/k") == data[::-1]
    assert [stat.key for stat in storage.list()] == ["a/k"]
    assert storage.folders() == ["a"]


@pytest.mark.parametrize("scheme", ["oss", "ftp"])
@pytest.mark.parametrize("file_type", [BufferedFile, PlainFile])
@pytest.mark.parametrize("size", [5, LARGE])
@pytest.mark.parametrize("replace", [False, True])
def test_broken_write_leaves_nothing(make, scheme, file_type, size, replace):
    """A value that breaks off is not published by closing its file; an old one stays where the storage can keep it."""
    filesystem = Filesystem(file_type)
    storage = make(scheme, filesystem)
    storage.put("a/k", [b"old"], size=3)

    def broken():
        yield b"1" * (size - 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        storage.put("a/k" if replace else "a/new", broken(), size=size, replace=replace)
    if file_type is PlainFile and replace and scheme == "oss":
        return  # a filesystem that neither commits nor renames cannot do better, and `put` of ours uses it for none
    assert filesystem.store == {"bucket/x/a/k": b"old"}
    if file_type is BufferedFile and size == LARGE:
        assert len(filesystem.discarded) == 1


_UNUSED = {("oss", "mv", 5), ("oss", "mv", LARGE), ("oss", "part", 5), ("ftp", "pipe", 5)}


@pytest.mark.parametrize("scheme", ["oss", "ftp"])
@pytest.mark.parametrize(
    ("request_", "size"),
    [("pipe", 5), ("open", LARGE), ("part", LARGE), ("info", 5), ("mv", 5), ("mv", LARGE), ("part", 5)],
)
def test_storage_that_refuses(make, scheme, request_, size):
    """Whatever request fails, the error names the key, keeps its cause, and nothing is left."""
    filesystem = Filesystem()
    storage = make(scheme, filesystem)
    filesystem.failures[request_] = RuntimeError("slow down")
    if (scheme, request_, size) in _UNUSED:
        storage.put("a/k", [bytes(size)], size=size)
        assert storage.read("a/k") == bytes(size)
        return
    with pytest.raises(StorageError, match=r"put 'a/k' in .*RuntimeError: slow down") as caught:
        storage.put("a/k", [bytes(size)], size=size)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert filesystem.store == {}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("x"), KeyMissingError),
        (PermissionError("Access Denied"), StorageError),
        (TimeoutError("slow"), StorageError),
        (ValueError("what a client raises"), StorageError),
    ],
)
def test_errors_of_reading(make, error, kind):
    """Every verb that reads translates what the client raises, and an absent key only where there is none."""
    filesystem = Filesystem()
    storage = make("oss", filesystem)
    source = storage.open("a/k", size=3)
    filesystem.failures = dict.fromkeys(["get", "info", "ls"], error)
    for verb in (lambda: source.read(0, 3), lambda: storage.read("a/k"), lambda: storage.stat("a/k")):
        with pytest.raises(kind) as caught:
            verb()
        assert caught.value.__cause__ is error
    if kind is StorageError:
        for verb in (lambda: storage.exists("a/k"), storage.folders, lambda: list(storage.list())):
            with pytest.raises(StorageError):
                verb()
    else:
        assert not storage.exists("a/k")
        assert storage.folders() == list(storage.list()) == []


def test_number_of_requests(make):
    """A key of known size is opened without a request, and each read is one."""
    filesystem = Filesystem()
    storage = make("oss", filesystem)
    storage.put("a/k", [bytes(1000)], size=1000, replace=True)
    filesystem.requests.clear()
    source = storage.open("a/k", size=1000)
    source.read(10, 20)
    source.read(980, 20)
    source.read(0, 0)
    assert filesystem.requests == ["get", "get"]
    storage.read("a/k")
    assert filesystem.requests == ["get"] * 3


@pytest.mark.parametrize("found", [999, 1001, 0])
def test_size_that_differs_is_found_without_a_request(make, found):
    """A key that is longer or shorter than it was written is found by the read of its end."""
    filesystem = Filesystem()
    storage = make("oss", filesystem)
    source = storage.open("a/k", size=1000)
    filesystem.store["bucket/x/a/k"] = bytes(found)
    with pytest.raises(CorruptBlobError, match="a/k"):
        source.read(500, 500)


def test_large_reads_come_in_pieces(make, monkeypatch):
    """What is held beside the buffer is bounded."""
    monkeypatch.setattr(AnyClient, "part_size", 10)
    filesystem = Filesystem()
    storage = make("oss", filesystem)
    data = bytes(range(95))
    filesystem.store["bucket/x/k"] = data
    source = storage.open("k")
    filesystem.requests.clear()
    assert bytes(source.read(3, 92)) == data[3:]
    assert filesystem.requests == ["get"] * 10


def test_deletes_come_in_batches(make, monkeypatch):
    """Many keys go in one request; where one was gone the rest are removed one by one."""
    monkeypatch.setattr("mltraq_ds.storage.clients.anything._BATCH", 3)
    filesystem = Filesystem()
    storage = make("oss", filesystem)
    for i in range(7):
        filesystem.store[f"bucket/x/{i}"] = b""
    filesystem.store["bucket/x/*"] = b""
    storage.delete_many([*map(str, range(7)), "*"])
    assert filesystem.store == {}
    assert filesystem.requests == ["rm", "rm many", "rm many", "rm many"]
    filesystem.failures["rm many"] = FileNotFoundError("x")
    filesystem.store["bucket/x/1"] = b""
    storage.delete_many(["0", "1"])
    assert filesystem.store == {}
    filesystem.failures["rm"] = PermissionError("denied")
    with pytest.raises(StorageError, match="delete '0'"):
        storage.delete("0")


class TestProbe:
    """Creation if absent is tried, not assumed."""

    @pytest.fixture
    def storage(self, tmp_path):
        return RemoteStorage((tmp_path / "root").as_uri())

    def test_storage_that_overwrites(self, storage, monkeypatch):
        """A storage that says "done" and overwrites is found out, and its keys are looked up before they are put."""

        def overwrite(filesystem, path, views, size, failing):
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            filesystem.pipe_file(path, b"".join(views))

        monkeypatch.setitem(CREATORS, "file", overwrite)
        assert not storage.creates_if_absent
        storage.put("x", [b"1"], size=1)
        with pytest.raises(KeyExistsError):
            storage.put("x", [b"2"], size=1)
        assert [stat.key for stat in storage.list()] == ["x"]
        assert list(storage.list_unfinished()) == []
        assert storage.read("x") == b"1"

    def test_folder_without_hard_links(self, storage, monkeypatch):
        """A folder without hard links cannot create if absent through fsspec, says so, and works."""

        def link(*arguments):
            raise OSError(errno.EOPNOTSUPP, "not supported")

        monkeypatch.setattr("os.link", link)
        assert not storage.creates_if_absent
        storage.put("x", [b"1"], size=1)
        with pytest.raises(KeyExistsError):
            storage.put("x", [b"2"], size=1)
        storage.put("x", [b"3"], size=1, replace=True)
        assert storage.read("x") == b"3"
        assert list(storage.list_unfinished()) == []

    def test_storage_that_does_not_answer(self, storage, monkeypatch):
        """A storage that cannot be written gives no verdict; asked again it is tried again."""

        def link(*arguments):
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr("os.link", link)
        with pytest.raises(StorageError, match="health"):
            storage.creates_if_absent  # noqa: B018
        monkeypatch.undo()
        assert storage.creates_if_absent

    def test_missing_root(self, storage, tmp_path):
        """A late writer does not make the root by trying."""
        with pytest.raises(KeyMissingError, match="'x'"):
            storage.put("x", [b"1"], size=1)
        assert not (tmp_path / "root").exists()

    def test_replacing_a_folder(self, storage):
        """A key that would take the name of a folder is refused, not moved into it."""
        storage.put("a/x", [b"1"], size=1, parents=True)
        with pytest.raises(StorageError, match="a folder of this name"):
            storage.put("a", [b"1"], size=1, replace=True)
        with pytest.raises(KeyExistsError):
            storage.put("a", [b"1"], size=1)
        assert [stat.key for stat in storage.list()] == ["a/x"]
        assert list(storage.list_unfinished()) == []


@pytest.mark.parametrize(
    ("details", "modified"),
    [
        ({"mtime": 5.0, "created": 7}, 7.0),
        ({"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}, 1767225600.0),
        ({"last_modified": datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, 1767225600.0),
        ({"created": datetime(2026, 1, 1)}, 1767225600.0),
        ({"updated": "2026-01-01T00:00:00Z"}, 1767225600.0),
        ({"updated": "yesterday"}, 99.0),
        ({"created": None}, 99.0),
        ({}, 99.0),
    ],
)
def test_times(details, modified):
    """The newest of the times that a filesystem tells, in any of their forms; unknown is as young as can be."""
    assert stat_of("k", {"size": 1, **details}, 99.0).modified == modified


def test_missing_folder_is_an_empty_listing():
    """A filesystem that raises for a folder that is not there lists nothing."""

    class Empty(Filesystem):
        def find(self, path, **more):
            raise FileNotFoundError(path)

    assert list(walk(Empty(), "bucket/x", "", 0.0)) == []


class TestInheritedListing:
    """Implementations that bring no listing of their own are walked by us, since fsspec's walk hides what it cannot."""

    class Folders(AbstractFileSystem):
        cachable = False
        unreadable: str | None = None
        gone: str | None = None

        def ls(self, path, detail=True, **more):
            if path == self.unreadable:
                raise PermissionError("denied")
            if path == self.gone:
                raise FileNotFoundError(path)
            below = {
                "bucket/x": [("x", "file", 1), ("a", "directory", 0), ("l", "directory", 0)],
                "bucket/x/a": [("", "directory", 0), ("y", "file", 2), ("b/", "directory", 0)],
                "bucket/x/a/b": [("z", "file", 3)],
            }
            return [
                {"name": f"{path}/{name}" if name else path, "type": kind, "size": size, "islink": name == "l"}
                for name, kind, size in below[path]
            ]

    def test_walk(self, make):
        """All keys are found, a folder that lists itself is entered once, and one that is a link never."""
        storage = make("ftp", self.Folders())
        assert {stat.key: stat.size for stat in storage.list()} == {"x": 1, "a/y": 2, "a/b/z": 3}
        assert {stat.key for stat in storage.list("a")} == {"a/y", "a/b/z"}

    def test_folder_that_cannot_be_read(self, make):
        """A listing that cannot be complete is an error, however deep: a sweep acts on it."""
        filesystem = self.Folders()
        filesystem.unreadable = "bucket/x/a/b"
        with pytest.raises(StorageError, match="denied"):
            list(make("ftp", filesystem).list())

    def test_folder_that_goes_meanwhile(self, make):
        """A folder that is removed meanwhile hides nothing else."""
        filesystem = self.Folders()
        filesystem.gone = "bucket/x/a/b"
        assert {stat.key for stat in make("ftp", filesystem).list()} == {"x", "a/y"}

    def test_asynchronous_filesystems(self):
        """Whether an asynchronous implementation brings its own listing is told alike."""

        class Inheriting(AsyncFileSystem):
            cachable = False

        class Own(Inheriting):
            async def _find(self, path, **more):
                return {}

        assert not _finds_by_itself(Inheriting(asynchronous=True))
        assert _finds_by_itself(Own(asynchronous=True))


def test_long_transfers_are_told(make):
    """A callback of fsspec is told of a long put and a long read, all of their bytes, and that they ended."""
    from fsspec.callbacks import Callback

    from mltraq_ds.storage import transfers

    filesystem, seen = Filesystem(), []

    class Told(Callback):
        def close(self):
            seen.append((self.size, self.value))

    def on_transfer(verb, key, size):
        seen.append((verb, key))
        return Told() if key != "ignored" else None

    storage = make("oss", filesystem)
    storage._on_transfer = on_transfer
    data = bytes(transfers.LONG)
    storage.put("k", [data], size=len(data))
    storage.put("small", [b"1"], size=1)
    storage.put("ignored", [data], size=len(data))
    assert storage.open("k", size=len(data)).read(0, len(data)) == data
    whole = (len(data), len(data))
    assert seen == [("put", "k"), whole, ("put", "ignored"), ("read", "k"), whole]
    assert pickle.loads(pickle.dumps(RemoteStorage("memory://x", on_transfer=on_transfer)))._on_transfer is None


def test_bar_of_a_transfer(capsys):
    """A session shows a bar for a long transfer, and none if it is told not to."""
    from mltraq_ds import options
    from mltraq_ds.tracking.transfer_bar import transfer_bar

    bar = transfer_bar("put", "a/k", 2**20)
    bar.set_size(2**20)
    bar.relative_update(2**19)
    bar.close()
    assert "put a/k" in capsys.readouterr().err
    with options.ctx({"tqdm.disable": True}):
        assert transfer_bar("put", "a/k", 2**20) is None
