"""Files and folders as values: streamed in, read in place, and extracted without leaving their place."""

import copy
import os
import pickle
import shutil
import stat
import time
import tracemalloc

import msgpack
import numpy as np
import pytest

from mltraq_ds.codecs import Directory, File, decode, encode
from mltraq_ds.codecs import extracting as extracting_module
from mltraq_ds.codecs.directory import DirectoryCodec
from mltraq_ds.codecs.files import FileCodec
from mltraq_ds.errors import CorruptBlobError, InvalidNameError, UnsupportedTypeError, ValueChangedError
from mltraq_ds.testing.codec import CodecConformance, MemorySource, round_trip, sources_of


@pytest.fixture
def model(tmp_path):
    """Return a file of a few bytes."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"0123456789" * 10)
    os.utime(path, ns=(10**18, 1_700_000_000_123_456_789))
    path.chmod(0o750)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """Return a folder with files, folders in it, and empty ones."""
    root = tmp_path / "ckpt"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty" / "er").mkdir(parents=True)
    (root / "a.txt").write_text("é")
    (root / "sub" / "model.bin").write_bytes(b"x" * 3_000_000)
    (root / "sub" / "deep" / ".hidden").write_bytes(b"")
    (root / "A b:c").write_text("odd")
    return root


def test_file(model):
    """A file comes back with name, bytes, time and whether it is executable, before it is read."""
    encoded = encode(File(model), name="m")
    assert [member.name for member in encoded.members] == ["m.pt"]
    assert encoded.members[0].streamed
    assert encoded.summary["codec"] == "mltraq_ds.file/1"
    assert encoded.summary["file"] == "model.pt"
    again = decode(encoded.tree, sources_of(encoded.members))
    assert (again.name, again.size, again.is_executable) == ("model.pt", 100, True)
    assert again.modified_ns == 1_700_000_000_123_456_789
    assert again.read_bytes() == model.read_bytes()
    assert again.read_text() == "0123456789" * 10
    with again.open() as stream:
        stream.seek(95)
        assert stream.read() == b"56789"
    assert again == File(model)
    assert repr(again) == repr(File(model)) == "File('model.pt', 100 bytes)"
    assert copy.deepcopy(again) is again
    assert copy.copy(again) is again


def test_file_is_not_read_to_encode(model):
    """Encoding looks at a file and does not read it."""
    model.chmod(0o000)
    encode(File(model))


def test_file_is_never_whole_in_memory(tmp_path):
    """Streaming a file takes a chunk of memory."""
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(200 * 2**20)
    tracemalloc.start()
    try:
        (member,) = encode(File(path), name="l").members
        assert member.name == "l.bin"
        assert sum(map(len, member.buffers())) == 200 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def _change(path, change):
    """Change a file of 100 bytes in one way."""
    if change == "gone":
        path.unlink()
    elif change == "written again":
        path.write_bytes(path.read_bytes()[::-1])
    elif change == "replaced":
        other = path.with_name("other")
        other.write_bytes(path.read_bytes()[::-1])
        os.utime(other, ns=(0, path.stat().st_mtime_ns))
        other.chmod(path.stat().st_mode)
        other.replace(path)
    elif change == "a folder":
        path.unlink()
        path.mkdir()
    elif change == "mode":
        path.chmod(0o640)
    else:
        path.write_bytes(b"x" * (101 if change == "grown" else 99))


CHANGES = ["grown", "shrunk", "gone", "written again", "replaced", "a folder", "mode"]


@pytest.mark.parametrize("change", CHANGES)
def test_file_that_changes(model, change):
    """A file that is not as it was when it was noted is neither encoded, nor streamed, nor read."""
    file = File(model)
    (member,) = encode(file).members
    _change(model, change)
    message = r"/model\.pt' cannot be stored because it changed since File\(\.\.\.\) was made.*Make File\(\.\.\.\) anew"
    for use in (lambda: encode(file), lambda: list(member.buffers()), file.read_bytes):
        with pytest.raises(ValueChangedError, match=message):
            use()
    assert (file.name, file.size) == ("model.pt", 100)
    if change not in ("gone", "a folder"):
        assert round_trip(File(model)).read_bytes() == model.read_bytes()


def test_file_that_changes_while_it_is_read(model):
    """A change that comes when the last byte was read is noticed too."""
    (member,) = encode(File(model)).members
    stream = member.buffers()
    assert next(stream) == model.read_bytes()
    _change(model, "written again")
    with pytest.raises(ValueChangedError, match="written again"):
        next(stream)


def test_file_written_again_at_once(tmp_path):
    """A file just written, noted, and written again with as many bytes is another one, however quick that was."""
    path = tmp_path / "tmp.pt"
    for number in range(20):
        path.write_bytes(b"%03d" % number)
        file = File(path)
        path.write_bytes(b"abc")
        with pytest.raises(ValueChangedError):
            encode(file)


def test_waiting_is_short(tmp_path):
    """A file that was written long ago, or that says it comes from the future, does not keep anybody waiting."""
    path = tmp_path / "f"
    path.touch()
    started = time.monotonic()
    for modified_ns in (10**18 + 1, time.time_ns() // 10**9 * 10**9 + 10**15 + 1):
        os.utime(path, ns=(0, modified_ns))
        File(path)
    assert time.monotonic() - started < 1


def test_noted_state_travels(model, checkpoint):
    """What was noted goes along to another process, so that a change is noticed there."""
    file, folder = pickle.loads(pickle.dumps((File(model), Directory(checkpoint))))
    assert file.read_bytes() == model.read_bytes()
    assert encode(folder).tree == encode(Directory(checkpoint)).tree
    _change(model, "written again")
    (checkpoint / "new").touch()
    for value in pickle.loads(pickle.dumps((file, folder))):
        with pytest.raises(ValueChangedError):
            encode(value)


@pytest.mark.parametrize("change", [*CHANGES, "added", "folder added", "folder removed", "all gone", "a link"])
def test_directory_that_changes(checkpoint, change):
    """A folder in which anything is not as it was when it was noted is refused by its path."""
    folder = Directory(checkpoint)
    if change == "added":
        (checkpoint / "sub" / "more").touch()
    elif change == "folder added":
        (checkpoint / "sub" / "none").mkdir()
    elif change == "folder removed":
        (checkpoint / "empty" / "er").rmdir()
    elif change == "all gone":
        shutil.rmtree(checkpoint)
    elif change == "a link":
        (checkpoint / "link").symlink_to("a.txt")
    elif change == "mode":
        (checkpoint / "a.txt").chmod(0o777)
    else:
        _change(checkpoint / "a.txt", change)
    with pytest.raises(ValueChangedError, match=r"/ckpt' .* changed since Directory\(\.\.\.\) .*Make Directory"):
        encode(folder)


def test_relative_path_is_fixed(model, monkeypatch, tmp_path):
    """A relative path means the same file when the working directory has changed."""
    monkeypatch.chdir(model.parent)
    file = File("model.pt")
    folder = Directory(".")
    monkeypatch.chdir("/")
    assert file.read_bytes() == model.read_bytes()
    assert "model.pt" in folder


def test_file_refused(tmp_path):
    """Folders, special files and missing ones are refused at once, odd names when they are stored."""
    (tmp_path / "a_file").write_bytes(b"x")
    with pytest.raises(UnsupportedTypeError, match=r"not a folder\. Store a file as File\(path\)"):
        Directory(tmp_path / "a_file")
    with pytest.raises(UnsupportedTypeError, match=r"not a regular file. Store a folder as Directory"):
        File(tmp_path)
    with pytest.raises(FileNotFoundError, match="File.* cannot be made because nothing is at this path: .*missing"):
        File(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match="Directory.* cannot be made because nothing .*missing"):
        Directory(tmp_path / "missing")
    (tmp_path / "back\\slash").touch()
    with pytest.raises(InvalidNameError, match="backslash"):
        encode(File(tmp_path / "back\\slash"))
    with pytest.raises(TypeError):
        hash(File(tmp_path / "back\\slash"))


def test_equality(tmp_path, model):
    """Two files are equal when names and bytes are, whatever their size."""
    for folder, content in (
        ("a", b"x" * 2_000_000),
        ("b", b"x" * 1_999_999 + b"y"),
        ("c", b"x" * 2_000_000),
        ("d", b""),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f").write_bytes(content)
    a, b, c, d = (File(tmp_path / folder / "f") for folder in "abcd")
    assert a == c
    assert a != b
    assert a != d
    assert a != File(model)
    assert a != "f"
    assert Directory(tmp_path / "a") == Directory(tmp_path / "c")
    assert Directory(tmp_path / "a") != Directory(tmp_path / "b")
    assert Directory(tmp_path / "a") != {}


def test_extract_file(model, tmp_path):
    """A file is extracted to a path or into a folder, with time and mode; nothing is overwritten unasked."""
    file = round_trip(File(model))
    (tmp_path / "out").mkdir()
    place = file.extract(tmp_path / "out")
    assert place == tmp_path / "out" / "model.pt"
    assert place.read_bytes() == model.read_bytes()
    assert place.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert place.stat().st_mode & stat.S_IXUSR
    with pytest.raises(FileExistsError, match="overwrite=True"):
        file.extract(tmp_path / "out")
    place.write_text("changed")
    file.extract(place, overwrite=True)
    assert place.read_bytes() == model.read_bytes()
    assert file.extract(tmp_path / "new" / "folders" / "x.pt").read_bytes() == model.read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.pt"]
    # From a path as well.
    assert File(model).extract(tmp_path / "y").read_bytes() == model.read_bytes()


def test_extract_replaces_links(model, tmp_path):
    """A link where the file should be is refused or replaced, never followed."""
    victim = tmp_path / "victim"
    victim.write_text("keep")
    link = tmp_path / "link"
    link.symlink_to(victim)
    file = round_trip(File(model))
    with pytest.raises(FileExistsError):
        file.extract(link)
    file.extract(link, overwrite=True)
    assert not link.is_symlink()
    assert victim.read_text() == "keep"


def test_extract_without_hard_links(model, tmp_path, monkeypatch):
    """On a file system without hard links nothing is overwritten either."""

    def refuse(*args):
        raise OSError("no links here")

    monkeypatch.setattr(extracting_module.os, "link", refuse)
    file = round_trip(File(model))
    file.extract(tmp_path / "new")
    with pytest.raises(FileExistsError):
        file.extract(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == model.read_bytes()


def test_failed_extraction_leaves_nothing(model, checkpoint, tmp_path):
    """When reading fails half-way, there is no file, no folder and no temporary one."""

    class Broken(MemorySource):
        def open(self):
            raise TimeoutError("no answer")

    out = tmp_path / "out"
    for value in (File(model), Directory(checkpoint)):
        encoded = encode(value)
        again = decode(encoded.tree, [Broken("x", b"\0" * member.size) for member in encoded.members])
        with pytest.raises(TimeoutError):
            again.extract(out / "place")
        assert list(out.iterdir()) == []


def test_directory(checkpoint):
    """A folder comes back as a mapping of relative paths to files, one member each, before any is read."""
    encoded = encode(Directory(checkpoint), name="ckpt")
    names = [member.name for member in encoded.members]
    assert names == ["ckpt/A b=3ac", "ckpt/a.txt", "ckpt/sub/deep/=2ehidden", "ckpt/sub/model.bin"]
    assert encoded.summary["length"] == 4
    again = decode(encoded.tree, sources_of(encoded.members))
    assert [*again] == ["A b:c", "a.txt", "sub/deep/.hidden", "sub/model.bin"]
    assert again.paths("*.txt") == ["a.txt"]
    assert again.paths("sub/*") == ["sub/model.bin"]
    assert again.paths() == [*again]
    assert again["a.txt"].read_text() == "é"
    assert again["a.txt"].name == "a.txt"
    assert again.open("sub/model.bin").read() == b"x" * 3_000_000
    assert (again.name, len(again), again.size) == ("ckpt", 4, 3_000_005)
    assert again == Directory(checkpoint)
    assert repr(again) == "Directory('ckpt', 4 files)"
    assert copy.deepcopy(again) is again
    assert copy.copy(again) is again
    for folder in (again, Directory(checkpoint)):
        assert [file.size for file in folder.values()] == [3, 2, 0, 3_000_000]
        assert [path for path, _ in folder.items()] == [*folder]
    with pytest.raises(KeyError):
        _ = again["missing"]
    with pytest.raises(TypeError):
        hash(again)


def test_directories_in_containers(checkpoint):
    """Folders in lists and dicts keep their files apart."""
    value = {"a": Directory(checkpoint), "b": [Directory(checkpoint), Directory(checkpoint)], 1: Directory(checkpoint)}
    encoded = encode(value, name="v")
    names = [member.name for member in encoded.members]
    assert len(set(names)) == 16
    assert "v/a/sub/model.bin" in names
    assert "v/b/1/a.txt" in names
    assert decode(encoded.tree, sources_of(encoded.members)) == value


def test_extract_directory(checkpoint, tmp_path):
    """A folder appears whole, with empty folders; what is there is kept unless overwriting is asked for."""
    again = round_trip(Directory(checkpoint))
    out = again.extract(tmp_path / "out")
    assert Directory(out) == Directory(checkpoint)
    assert (out / "empty" / "er").is_dir()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        again.extract(out)
    (out / "a.txt").write_text("changed")
    (out / "mine").write_text("mine")
    again.extract(out, overwrite=True)
    assert (out / "a.txt").read_text() == "é"
    assert (out / "mine").read_text() == "mine"
    (tmp_path / "waiting").mkdir()
    assert Directory(again.extract(tmp_path / "waiting")) == Directory(checkpoint)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        again.extract(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "file", "out", "waiting"]
    assert again.extract(tmp_path / "fresh", overwrite=True).is_dir()


def test_extract_directory_does_not_follow_links(checkpoint, tmp_path):
    """A link in the folder, or in its place, leads nowhere."""
    again = round_trip(Directory(checkpoint))
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    out.mkdir()
    (out / "sub").symlink_to(outside)
    with pytest.raises(InvalidNameError, match="is a link"):
        again.extract(out, overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "empty").symlink_to(outside)
    with pytest.raises(InvalidNameError, match="is a link"):
        again.extract(other, overwrite=True)
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(FileExistsError):
        again.extract(tmp_path / "link")
    assert list(outside.iterdir()) == []


def test_links_and_special_files_are_refused(checkpoint):
    """A link or a socket in a folder is refused with its place, at once."""
    (checkpoint / "sub" / "link").symlink_to("/etc/passwd")
    with pytest.raises(UnsupportedTypeError, match=r"cannot be stored because .*sub/link' is a link"):
        Directory(checkpoint)
    (checkpoint / "sub" / "link").unlink()
    os.mkfifo(checkpoint / "pipe")
    with pytest.raises(UnsupportedTypeError, match="neither a file nor a folder"):
        Directory(checkpoint)
    (checkpoint / "pipe").unlink()
    (checkpoint / "back\\slash").touch()
    with pytest.raises(InvalidNameError, match="backslash"):
        encode(Directory(checkpoint))
    (checkpoint / "back\\slash").unlink()
    (checkpoint / "trailing.").mkdir()
    with pytest.raises(InvalidNameError, match="dot at its end"):
        encode(Directory(checkpoint))


def test_empty_directory(tmp_path):
    """An empty folder comes back empty."""
    (tmp_path / "none").mkdir()
    again = round_trip(Directory(tmp_path / "none"))
    assert len(again) == 0
    assert list(again.extract(tmp_path / "out").iterdir()) == []


BAD_PATHS = ["../x", "/etc/passwd", "a/../../x", "C:x", "a\\..\\x", "", ".", "a//b", "a/%2e%2e/b", "nul\0", "a/."]


def _tree(name, meta, count):
    return msgpack.packb(msgpack.ExtType(3, msgpack.packb([name, meta, [*range(count)]])))


@pytest.mark.parametrize("path", BAD_PATHS)
def test_paths_that_leave_their_place(path, tmp_path):
    """A blob that names a path outside is damaged, whether for a file, a folder, or an empty folder."""
    source = MemorySource("x.bin", b"pwn")
    good = {"name": "c", "files": [["ok", 3, 0, False]], "folders": []}
    assert [*decode(_tree("mltraq_ds.directory/1", good, 1), [source])] == ["ok"]
    metas = [{**good, "files": [[path, 3, 0, False]]}, {**good, "folders": [path]}, {**good, "name": path}]
    for meta in metas:
        with pytest.raises(CorruptBlobError):
            decode(_tree("mltraq_ds.directory/1", meta, 1), [source])
    with pytest.raises(CorruptBlobError):
        decode(_tree("mltraq_ds.file/1", [path, 3, 0, False], 1), [source])


@pytest.mark.parametrize(
    "meta",
    [
        None,
        {},
        {"name": "c", "files": [["a", 3, 0, False], ["a", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 3, 0, False], ["a/b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 3, 0, False], ["b", 3, 0, False]], "folders": ["a"]},
        {"name": "c", "files": [["a", 3, 0, False], ["b", 3, 0, False]], "folders": ["a/c"]},
        {"name": "c", "files": [["a", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 4, 0, False], ["b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 3, 2**63, False], ["b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 3, 0, 1], ["b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [[5, 3, 0, False], ["b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [[], []], "folders": []},
        {"name": "c", "files": "ab", "folders": []},
        {"name": 5, "files": [["a", 3, 0, False], ["b", 3, 0, False]], "folders": []},
        {"name": "c", "files": [["a", 3, 0, False], ["b", 3, 0, False]], "folders": [5]},
    ],
    ids=str,
)
def test_hostile_folders(meta):
    """A description that does not fit the members, or itself, is damage."""
    sources = [MemorySource("x.bin", b"abc"), MemorySource("y.bin", b"abc")]
    with pytest.raises(CorruptBlobError):
        decode(_tree("mltraq_ds.directory/1", meta, 2), sources)


@pytest.mark.parametrize(
    "meta", [None, [], ["a", 4, 0, False], ["a", 3, 0], ["a/b", 3, 0, False], [b"a", 3, 0, False]], ids=str
)
def test_hostile_files(meta):
    """So is that of a file."""
    with pytest.raises(CorruptBlobError):
        decode(_tree("mltraq_ds.file/1", meta, 1), [MemorySource("x.bin", b"abc")])
    with pytest.raises(CorruptBlobError):
        decode(_tree("mltraq_ds.file/1", ["a", 3, 0, False], 0), [])


def test_files_beside_other_values(model):
    """Files go with everything else in one value."""
    value = {"file": File(model), "array": np.arange(500), "n": 1}
    again = round_trip(value)
    assert again["file"] == value["file"]
    assert again["n"] == 1


class TestFileCodec(CodecConformance):
    """The suite for codecs, with files."""

    codec = FileCodec

    @pytest.fixture(autouse=True)
    def _files(self, model, tmp_path):
        (tmp_path / "empty").touch()
        self.paths = [model, tmp_path / "empty"]

    def values(self):
        """Return an ordinary file and an empty one."""
        return [File(path) for path in self.paths]


class TestDirectoryCodec(CodecConformance):
    """The suite for codecs, with folders."""

    codec = DirectoryCodec

    @pytest.fixture(autouse=True)
    def _folders(self, checkpoint):
        self.path = checkpoint

    def values(self):
        """Return a folder and an empty one."""
        return [Directory(self.path), Directory(self.path / "empty" / "er")]
