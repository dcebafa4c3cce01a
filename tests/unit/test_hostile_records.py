"""Hostile JSON in a store, with right checksums: a typed error or no effect, no code, no hang, nothing outside."""

import dataclasses
import hashlib
import json
import uuid
import warnings

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.errors import CorruptRecordError, InvalidNameError, MltraqDSError, MltraqDSWarning
from mltraq_ds.store import descriptors, generations, intents

TYPED = (MltraqDSError, OSError)


@pytest.fixture
def session(tmp_path):
    options.set("tqdm.disable", True)
    session = create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.params.lr = 0.1
        run.fields.value = 1
        run.fields.ds = DataStore(a=np.arange(5000))
    experiment.persist()
    return session


def folder_of(session, tmp_path):
    return next(path for path in (tmp_path / "store").iterdir() if path.is_dir() and not path.name.startswith("_"))


def rewrite(path, change):
    """Change a descriptor and make its checksum right again."""
    body = json.loads(path.read_bytes())
    body.pop("checksum")
    change(body)
    body["checksum"] = descriptors._checksum(body)
    path.unlink()
    path.write_text(json.dumps(body))


def rewrite_record(folder, change):
    """Change the record of the run, and size and digest of the file in the generation."""
    (path,) = (folder / "runs").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    change(lines)
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    path.unlink()
    path.write_bytes(content)

    def update(body):
        body["records"][0][1:] = [len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"]

    rewrite(folder / "generations" / "1.json", update)


def use(tmp_path):
    """Do everything with the store that reads its files, in a session that has no database yet."""
    for action in (
        lambda s, i: [dict(run.fields.items()) for run in s.load_experiment(id_experiment=i).runs.values()],
        lambda s, i: s.rebuild_index(),
        lambda s, i: s.load_experiment("e"),
        lambda s, i: s.check(),
    ):
        session = create_session(url=f"sqlite:///{tmp_path}/other.db", store=tmp_path / "store")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MltraqDSWarning)
                action(session, folder_of(session, tmp_path).name)
        except TYPED:
            pass


HOSTILE = [
    {"$fraction": "1e999999999"},
    {"$numpy": ["<f4", [1, 2]]},
    {"$numpy": ["O", 1]},
    {"$numpy": []},
    {"$numpy": ["<f4", "NaN"], "bits": "00"},
    {"$float": []},
    {"$float": "NaN", "bits": "0000000000000000"},
    {"$timedelta": [10**30, 0, 0]},
    {"$path": [1]},
    {"$value": "AAAA"},
    {"$value": 1},
    {"$dict": [[{"a": 1}, 2]]},
    {"$tuple": 5},
    {"$unknown": 1},
    {"$ref": ["../../etc/passwd", 1, "sha256:" + "0" * 64]},
    {"$ref": ["/etc/passwd", 1, "sha256:" + "0" * 64]},
    {"$ref": ["_store.json", 1, "sha256:" + "0" * 64]},
    [{"$ref": ["x", 1, "sha256:" + "0" * 64]}],
]


@pytest.mark.parametrize("tagged", HOSTILE, ids=lambda tagged: json.dumps(tagged)[:40])
def test_a_hostile_tag_is_refused(session, tmp_path, tagged):
    """Whatever stands in a tag, its value is refused with a typed error, in no time, and so are its rows."""
    rewrite_record(folder_of(session, tmp_path), lambda lines: lines[1]["fields"].update(value=tagged))
    with pytest.raises(TYPED):
        dict(session.load_experiment("e").runs.first().fields.items())
    use(tmp_path)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (0, "format", "mltraq_ds/record/²"),
        (0, "format", "mltraq_ds/record/" + "9" * 5000),
        (0, "created", 5),
        (1, "exception", [1]),
        (1, "exception", {"type": 1}),
        (1, "started", 5),
        (1, "status", None),
        (1, "fields", []),
        (1, "fields", {"x": float("nan")}),
    ],
)
def test_a_hostile_record_is_refused(session, tmp_path, line, name, value):
    """A record with parts of another type is refused as a whole."""
    rewrite_record(folder_of(session, tmp_path), lambda lines: lines[line].update({name: value}))
    with pytest.raises(TYPED):
        session.load_experiment("e")
    use(tmp_path)


def test_two_runs_of_one_id_in_a_record_are_refused(session, tmp_path):
    """Keeping the last one would lose the other without a word."""
    rewrite_record(folder_of(session, tmp_path), lambda lines: lines.append(lines[1]))
    with pytest.raises(CorruptRecordError, match="two runs have one id"):
        session.load_experiment("e")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("generation", 1e400),
        ("generation", [1]),
        ("writer", 5),
        ("replaces", [["x", 1e400, "w"]]),
        ("retires", ["../x"]),
        ("retires", ["elsewhere/x"]),
        ("blobs", [["elsewhere/x", 1, "sha256:" + "0" * 64]]),
        ("name", "\ud800"),
        ("id_experiment", "other"),
    ],
)
def test_a_hostile_generation_is_refused(session, tmp_path, name, value):
    """A generation with parts of another type, or that names what is not its own, is refused or does no harm."""
    rewrite(folder_of(session, tmp_path) / "generations" / "1.json", lambda body: body.update({name: value}))
    if name != "name":
        with pytest.raises(TYPED):
            session.load_experiment("e")
    use(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("process", 5), ("number", "1/../../x"), ("number", -1), ("name", "\ud800"), ("name", None), ("writer", "../x")],
)
def test_a_hostile_intent_does_no_harm(session, tmp_path, name, value):
    """An intent with parts of another type, or in the name of another writer, removes nothing and names its file."""
    intent = intents.Intent(
        writer=str(uuid.uuid4()), action="persist", id_experiment="x", name="e", parent=1, number=2, process="done"
    )
    data = descriptors.to_bytes("intent", {**dataclasses.asdict(intent), name: value})
    session.storage.put(intent.key, [data], size=len(data), parents=True)
    if value != "\ud800":
        with pytest.raises(CorruptRecordError):
            intents.read_intent(session.storage, intent.key)
    use(tmp_path)
    assert session.load_experiment("e").runs.first().fields.ds.a[-1] == 4999


def test_an_intent_removes_only_itself(session):
    """The key of an intent follows from its content; one that names another writer would end that writer's."""
    victim = intents.Intent(writer="victim", action="persist", id_experiment="x", name="e", parent=1, number=2)
    data = descriptors.to_bytes("intent", dataclasses.asdict(victim))
    session.storage.put("_pending/thief.json", [data], size=len(data), parents=True)
    with pytest.raises(CorruptRecordError, match="another writer"):
        intents.read_intent(session.storage, "_pending/thief.json")


def test_nesting_beyond_the_stack_is_a_typed_error(session, tmp_path):
    """A descriptor nested a thousand deep is refused like any other damage."""
    path = folder_of(session, tmp_path) / "generations" / "1.json"
    text = path.read_text()
    path.unlink()
    # As text: how deep `json` itself can write depends on the stack that the test runs in.
    path.write_text(text.rstrip().removesuffix("}") + f', "deep": {"[" * 950}{"]" * 950}}}')
    with pytest.raises(CorruptRecordError):
        session.load_experiment("e")


def test_a_torn_generation_is_passed_over_by_name_too(session, tmp_path):
    """Where there are no hard links a killed commit leaves an empty file, which loading passes over."""
    folder = folder_of(session, tmp_path)
    (folder / "generations" / "2.json").write_bytes(b"")
    assert session.load_experiment("e").generation == 1
    assert session.load_experiment(id_experiment=folder.name).generation == 1
    assert generations.current(session.storage, folder.name, at_least=1).number == 1


def test_a_blob_does_not_reach_out_of_the_store(session, tmp_path):
    """A link from inside a store to outside is not followed, also where a record names it."""
    (tmp_path / "secret").write_bytes(b"secret")
    folder = folder_of(session, tmp_path)
    (folder / "link").symlink_to(tmp_path / "secret")
    reference = [f"{folder.name}/link", 6, "sha256:" + "0" * 64]
    rewrite_record(folder, lambda lines: lines[1]["fields"].update(value={"$ref": reference, "kind": "value"}))
    with pytest.raises(InvalidNameError, match="symbolic link"):
        _ = session.load_experiment("e").runs.first().fields.value


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"format": "mltraq_ds/intent", "version": 99}'])
def test_a_damaged_intent_does_not_keep_everybody_out(session, tmp_path, content):
    """Sessions say that they left the work of a writer as it is, and go on; the note stays for whoever looks at it."""
    path = tmp_path / "store" / "_pending" / "damaged.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    other = create_session(url=f"sqlite:///{tmp_path}/index.db", store=tmp_path / "store")
    with pytest.warns(MltraqDSWarning, match="left as it is"):
        assert other.load_experiment("e").runs.first().fields.ds.a[-1] == 4999
    assert path.read_bytes() == content
