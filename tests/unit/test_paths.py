"""Paths: what leads out of a store, or into what `persist` manages, is refused at every public entrance."""

import json
import os
import uuid
from functools import partial

import numpy as np
import pytest
from typer.testing import CliRunner

from mltraq_ds import DataStore, DataStoreIO, artifact_store, create_session, delete, get, options, save
from mltraq_ds.cli.app import app
from mltraq_ds.codecs import Directory, File
from mltraq_ds.errors import (
    CorruptBlobError,
    CorruptRecordError,
    ExperimentNotFoundError,
    InvalidNameError,
    MltraqDSError,
    UsageError,
)
from mltraq_ds.ids import escape_name, url_from_key, validate_key
from mltraq_ds.reference import Reference
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.pointer import Pointer, pointer_key
from mltraq_ds.store.files import FileStore
from mltraq_ds.testing.store_hooks import artifact, full_record
from mltraq_ds.tracking import default_session

DIGEST = "sha256:" + "0" * 64

# What the systems before us let through, and its spellings.
TRAVERSALS = [
    "..",
    ".",
    "../x",
    "x/..",
    "x/../../y",
    "../../../../pwn",
    "./x",
    "x/./y",
    "/x",
    "/etc/passwd",
    "//x",
    "x//y",
    "x/",
    "\\x",
    "..\\x",
    "x\\..\\..\\y",
    "\\\\host\\share",
    "C:/x",
    "c:x",
    "x/C:/y",
    "x/c:y",
    "x\0y",
    "x\ny",
    "%2e%2e/x",
    "%2E%2e/x",
    "..%2fx",
    "x%2F..%2Fy",
    "%252e%252e/x",
    "%25252e%25252e/x",
    "x%5cy",
    "x%00y",
    " x",
    "x /y",
    "x./y",
    "x/..  ",
    "\ud800",
    "x" * 300,
    "x/" * 600 + "x",
    "",
]

MANAGED = [
    "_pending",
    "_pending/x",
    "_store.json",
    "_x",
    "artifacts",
    "artifacts/x",
    "ARTIFACTS/x",
    "Artifacts",
    "\uff41rtifacts",
    "\uff3fpending",
    str(uuid.UUID(int=7)),
    str(uuid.UUID(int=2**128 - 1)).upper() + "/x",
    uuid.UUID(int=7).hex,
]


def name_of(place):
    return ascii(place)[:40]


@pytest.fixture
def session(tmp_path):
    session = create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "outer" / "store")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "x").write_bytes(b"outside")
    (tmp_path / "x").write_bytes(b"outside")
    return session


def tree(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("place", TRAVERSALS, ids=name_of)
def test_every_entrance_refuses_what_leaves_the_store(session, tmp_path, place):
    """Prefixes, URLs, keys and references that could leave the store are refused, and nothing is read or changed."""
    before = tree(tmp_path)
    storage = session.storage
    entrances = [
        lambda: DataStoreIO.write(b"pwn", place, store=session),
        lambda: DataStoreIO.serialize_write(1, place, store=session),
        lambda: DataStoreIO.delete(place, store=session),
        lambda: DataStoreIO.list(place, store=session),
        lambda: session.io.write(b"pwn", place),
        lambda: session.io.serialize_write(1, place),
        lambda: session.io.delete(place),
        lambda: session.io.list(place),
        lambda: validate_key(place),
        lambda: storage.put(place, [b"pwn"], size=3, parents=True),
        lambda: storage.open(place),
        lambda: storage.read(place),
        lambda: storage.stat(place),
        lambda: storage.exists(place),
        lambda: storage.delete(place),
        lambda: storage.delete_many([place]),
        lambda: storage.delete_folder(place),
        lambda: storage.make_folder(place),
        lambda: storage.prune(place),
        lambda: storage.move_folder(place, "y"),
        lambda: storage.move_folder("y", place),
        lambda: storage.flush([place]),
        lambda: Reference.from_list([place, 1, DIGEST]),
    ]
    if place:  # the empty prefix is the whole store here, which may be listed
        entrances += [lambda: list(storage.list(place)), lambda: storage.folders(place)]
    for entrance in entrances:
        with pytest.raises(InvalidNameError):
            entrance()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("place", [place for place in TRAVERSALS if "\ud800" not in place], ids=name_of)
@pytest.mark.parametrize("is_quoted", [True, False])
def test_every_url_refuses_what_leaves_the_store(session, tmp_path, place, is_quoted):
    """A URL is decoded once; what would leave the store before or after that is refused by all that take one."""
    before = tree(tmp_path)
    url = url_from_key(place) if is_quoted else f"file:///{place}"
    for entrance in (
        lambda: DataStoreIO(url, store=session).read(),
        lambda: session.io(url).read(),
        lambda: session.io(url).exists(),
        lambda: session.io(url).stat(),
        lambda: session.io(url).open(),
        lambda: session.io(url).read_deserialize(),
        lambda: DataStore.from_url(url, store=session),
    ):
        with pytest.raises(InvalidNameError):
            entrance()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("url", [None, 5, b"file:///x", "", "x", "file:x", "file://host/x", "FILE:///x", "file:///x?y"])
def test_what_is_no_url_of_a_store_is_refused(session, url):
    """A URL of a store has an empty authority and no query; nothing else is guessed at."""
    with pytest.raises(InvalidNameError):
        session.io(url)
    with pytest.raises(InvalidNameError):
        DataStore.from_url(url, store=session)


@pytest.mark.parametrize("prefix", [*MANAGED, None, 5, b"x", ["x"]], ids=name_of)
def test_folders_of_persist_are_no_prefix(session, tmp_path, prefix):
    """What is reserved, or could be an experiment's folder, is refused as a prefix, also in other letters."""
    session.create_experiment("e").persist()
    before = tree(tmp_path)
    for entrance in (
        lambda: session.io.write(b"pwn", prefix),
        lambda: session.io.serialize_write(1, prefix),
        lambda: session.io.delete(prefix),
        lambda: session.io.list(prefix),
    ):
        with pytest.raises(InvalidNameError):
            entrance()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [*TRAVERSALS, *MANAGED, "a:b", "a_b", "A", "a", "org/x:1", "*"], ids=name_of)
def test_names_and_ids_are_data(session, tmp_path, name):
    """As an id or a name every string works or is refused, and none leads anywhere but to a folder of its own."""
    outside = {key: value for key, value in tree(tmp_path).items() if not key.startswith("outer/store")}
    with pytest.raises(ExperimentNotFoundError):
        session.load_experiment(id_experiment=name)
    with pytest.raises(ExperimentNotFoundError):
        session.delete_experiment(id_experiment=name)
    experiment = session.create_experiment(name)
    experiment.id_experiment = name
    with experiment.run() as run:
        run.fields.ds = DataStore({name: 1})
    try:
        experiment.persist()
    except UsageError:
        assert "\ud800" in name or "\0" in name or len(name) > 500  # what SQL cannot hold
    else:
        loaded = session.load_experiment(id_experiment=name)
        assert loaded.name == name
        assert dict(loaded.runs.first().fields.ds) == {name: 1}
        assert (tmp_path / "outer" / "store" / escape_name(name) / "_meta.json").is_file()
    after = {key: value for key, value in tree(tmp_path).items() if not key.startswith(("outer/store", "index.db"))}
    assert after == {key: value for key, value in outside.items() if not key.startswith("index.db")}


def test_names_do_not_collide_where_capitals_do_not_count():
    """No two names share a folder on a file system that ignores case or drops dots and spaces at the end."""
    names = [*TRAVERSALS, *MANAGED, "a:b", "a_b", "A", "a", "a.", "a ", "CON", "con", "nul.txt", "ä", "a\u0308", "=61"]
    folders = [escape_name(name) for name in set(names)]
    assert len({folder.casefold().rstrip(". ") for folder in folders}) == len(folders)
    assert all(validate_key(folder) and "/" not in folder for folder in folders)


@pytest.mark.parametrize(
    "store", ["memory://x/../y", "file://host/x", "file:///x?y", "my_fs://user:canary@host/x", "a\0b"]
)
def test_stores_that_could_be_elsewhere_are_refused(store):
    """The URL of a store that says something else than it seems to is refused, without its password."""
    with pytest.raises(UsageError) as refused:
        open_storage(store)
    assert "canary" not in str(refused.value)


def test_links_out_of_the_store_are_not_followed(session, tmp_path):
    """A folder or file in a store that is a link to outside is neither read, written, listed nor removed through."""
    session.io.write(b"mine", "own")
    store = tmp_path / "outer" / "store"
    (store / "own" / "folder").symlink_to(tmp_path / "outer")
    (store / "own" / "file").symlink_to(tmp_path / "x")
    before = (tmp_path / "x").read_bytes(), (tmp_path / "outer" / "x").read_bytes()
    for entrance in (
        lambda: session.io("file:///own/folder/x").read(),
        lambda: session.io("file:///own/file").read(),
        lambda: session.io("file:///own/file").open(),
        lambda: session.io.write(b"pwn", "own/folder"),
        lambda: session.io.delete("own/folder/y"),
        lambda: session.io.list("own/folder"),
    ):
        with pytest.raises(InvalidNameError, match="symbolic link"):
            entrance()
    session.io.delete("own")
    assert not (store / "own").exists()
    assert ((tmp_path / "x").read_bytes(), (tmp_path / "outer" / "x").read_bytes()) == before


def test_a_stored_directory_extracts_into_its_folder_only(session, tmp_path):
    """Links in a folder are refused on the way in, and in the way of what is extracted."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_bytes(b"1")
    url = session.io.serialize_write(Directory(source), "own").url
    loaded = session.io(url).read_deserialize()
    target = tmp_path / "target"
    target.mkdir()
    (target / "sub").symlink_to(tmp_path / "outer")
    with pytest.raises(InvalidNameError):
        loaded.extract(target, overwrite=True)
    assert not (tmp_path / "outer" / "f").exists()
    (source / "out").symlink_to(tmp_path / "x")
    with pytest.raises(UsageError, match="link"):
        session.io.serialize_write(Directory(source), "own")


@pytest.mark.parametrize("place", [*TRAVERSALS, "a/b"], ids=name_of)
def test_a_hostile_name_of_a_stored_file_is_refused(place):
    """The name of a File, and the paths of a Directory, come from a blob and are places."""

    class Source:
        name, size = "x", 0

    with pytest.raises(ValueError):
        File._from_source([place, 0, 0, False], Source())
    if place != "a/b":
        for meta in (
            {"name": "x", "files": [[place, 0, 0, False]], "folders": []},
            {"name": "x", "files": [], "folders": [place]},
            {"name": place, "files": [], "folders": []},
        ):
            with pytest.raises(ValueError):
                Directory._from_sources(meta, [Source()] if meta["files"] else [])


def test_a_reference_is_a_list_of_a_place_a_size_and_a_digest():
    """Anything else in its place is damage."""
    for parts in (None, "x", [], ["x"], ["x", -1, DIGEST], ["x", True, DIGEST], ["x", 1, ""], ["x", 1, DIGEST, 5], {}):
        with pytest.raises(CorruptRecordError):
            Reference.from_list(parts)


def test_a_device_or_pipe_in_a_store_does_not_hang(session, tmp_path):
    """What is no file is refused at once; opening a pipe would wait for ever."""
    session.io.write(b"mine", "own")
    os.mkfifo(tmp_path / "outer" / "store" / "own" / "pipe")
    with pytest.raises(OSError, match="device, pipe or socket"):
        session.io("file:///own/pipe").read()
    with pytest.raises((OSError, CorruptBlobError)):
        session.io("file:///own/pipe").read_deserialize()


def ways_to_put(storage, name):
    """Return what writes and reads, with one string from outside as an id or a name, in every place of a FileStore."""
    store, other = FileStore(storage, experiment_id="e"), FileStore(storage, experiment_id=name)
    record = partial(full_record, warnings=[])
    return {
        "id of a run": (
            lambda: store.put_run_record(record(name, "e")),
            lambda: store.get_run_record(name) == record(name, "e"),
        ),
        "id of an experiment": (
            lambda: other.put_run_record(record("r", name)),
            lambda: other.get_run_record("r").experiment_id == name,
        ),
        "name of a log": (lambda: store.put_log("r", name, "x"), lambda: store.get_log("r", name) == "x"),
        "run of a log": (lambda: store.put_log(name, "out", "x"), lambda: store.get_log(name, "out") == "x"),
        "run of metrics": (lambda: store.put_derived(name, {"x": 1.0}), lambda: store.get_derived(name) == {"x": 1.0}),
        "name of a result": (
            lambda: store.put_result("r", name, [1]),
            lambda: store.get_result("r", name)["data"] == [1],
        ),
        "run of a result": (lambda: store.put_result(name, "x", [1]), lambda: store.list_results(name) == ["x"]),
        "name of an artifact": (
            lambda: store.put_artifact(b"12", artifact(name, "r")),
            lambda: [store.get_artifact(one.uri) for one in store.list_artifacts("r")] == [b"12"],
        ),
        "run of an artifact": (
            lambda: store.put_artifact(b"12", artifact("a", name)),
            lambda: [store.get_artifact(one.uri) for one in store.list_artifacts(name)] == [b"12"],
        ),
        "manifest": (
            lambda: FileStore(storage).put_experiment_manifest(name, {"a": 1}),
            lambda: FileStore(storage).get_experiment_manifest(name) == {"a": 1},
        ),
    }


@pytest.mark.parametrize("name", [*TRAVERSALS, *MANAGED], ids=name_of)
def test_ids_and_names_of_run_records_are_data(session, tmp_path, name):
    """Every string that a FileStore takes comes back or is refused; every file is in the folder of its experiment."""
    before = tree(tmp_path)
    folders = {escape_name("e"), escape_name(name)}
    for what, (put, is_back) in ways_to_put(session.storage, name).items():
        try:
            put()
        except (MltraqDSError, ValueError):
            continue
        assert is_back(), what
    new = {key: value for key, value in tree(tmp_path).items() if key not in before}
    # A collection has a name of its own in _store.json, which is the only file beside the folders of experiments.
    assert {key.removeprefix("outer/store/").split("/")[0] for key in new} - {"_store.json"} <= folders
    assert {key: tree(tmp_path)[key] for key in before} == before
    store = FileStore(session.storage, experiment_id="e")
    for entrance in (lambda: store.get_artifact(name), lambda: store.open_artifact(name)):
        with pytest.raises(MltraqDSError):
            entrance()


@pytest.mark.parametrize("name", [*TRAVERSALS, *MANAGED], ids=name_of)
def test_names_of_artifacts_are_data(tmp_path, name):
    """Every name of an artifact works, and every file of it is below the folder of artifacts."""
    (tmp_path / "x").write_bytes(b"outside")
    with options.ctx({"datastore.url": str(tmp_path / "store"), "database.url": f"sqlite:///{tmp_path}/index.db"}):
        save(np.arange(3000), name)
        assert get(name).get_value()[-1] == 2999
        assert [one.name for one in artifact_store()] == [name]
        written = {key for key in tree(tmp_path) if not key.startswith(("index.db", "store/artifacts/"))}
        assert written <= {"x", "store/_store.json"}
        delete(name, 1)
        default_session().close()
    assert (tmp_path / "x").read_bytes() == b"outside"


@pytest.mark.parametrize("place", TRAVERSALS, ids=name_of)
def test_a_pointer_leads_to_the_digest_of_its_bytes_only(place):
    """What a pointer names on a remote is a digest: nothing else becomes part of a path there."""
    written = Pointer(DIGEST, 1, DIGEST, ("memory://x",)).to_bytes()
    for part in ("digest", "index"):
        for value in (place, f"sha256:{place}", f"{DIGEST}/{place}", f"{DIGEST[: -len(place) or None]}{place}\n"):
            document = {**json.loads(written), part: value}
            with pytest.raises(CorruptRecordError):
                Pointer.from_bytes(json.dumps(document).encode(), "k")
    with pytest.raises(InvalidNameError):
        validate_key(pointer_key(f"../{place}"))


@pytest.mark.parametrize("place", [place for place in (*TRAVERSALS, *MANAGED) if "\ud800" not in place], ids=name_of)
def test_arguments_of_commands_are_data(session, tmp_path, monkeypatch, place):
    """A name, an id, a run or a key on the command line selects what is there; it leads to no other file."""
    session.create_experiment("e").persist()
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    store = str(tmp_path / "outer" / "store")
    for words in (
        ["show", "--", place],
        ["show", "--id", place],
        ["show", "e", "--run", place],
        ["delete", "--yes", "--", place],
        ["delete", "--yes", "--id", place],
        ["store", "export", "--from", store, "--to", str(tmp_path / "copy"), "--experiment", place],
        ["remote", "upload", "-i", store, "-r", str(tmp_path / "remote"), "-k", place],
    ):
        common = ["--database", f"sqlite:///{tmp_path}/index.db", "--store", store]
        ended = CliRunner().invoke(app, [*common, *words], prog_name="mltraq-ds")
        assert ended.exception is None or isinstance(ended.exception, (SystemExit, MltraqDSError)), words
        assert words[0] in ("store", "remote") or ended.exit_code != 0, words
    new = {key for key, value in tree(tmp_path).items() if before.get(key) != value}
    assert all(key.startswith(("index.db", "copy/", "remote/")) for key in new), new
