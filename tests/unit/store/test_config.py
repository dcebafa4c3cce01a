"""Configurations and locators: what they mean, what they refuse, and where their secrets are not."""

import copy
import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest

from mltraq_ds.errors import FormatError, UsageError
from mltraq_ds.store import (
    ConfigRegistry,
    FileStoreConfig,
    MysqlStoreConfig,
    PostgresStoreConfig,
    RunRecord,
    SqliteStoreConfig,
    StoreConfig,
    config,
    create_store,
    descriptors,
    parse_locator,
    parse_to_config,
)

SECRET = "hunter2-s3cr3t"
CONFIGS = [
    FileStoreConfig(root="/data/x", experiment_id="a:b"),
    FileStoreConfig(root="s3://Bucket/lab", storage_options={"anon": True, "client_kwargs": {"region_name": "eu"}}),
    PostgresStoreConfig(connection_string="postgresql://ada@db/lab?sslmode=require", file_root="/data", schema="s"),
    SqliteStoreConfig(connection_string="sqlite:////data/i.db", file_root="memory://m"),
    MysqlStoreConfig(connection_string="mysql://ada@db/lab", file_root="/data", experiment_id=""),
]


@pytest.mark.parametrize("one", CONFIGS, ids=lambda one: one.scheme)
def test_travels(one):
    """A configuration comes back equal from a dictionary, from JSON, from a pickle, and from another process."""
    assert StoreConfig.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert hash(pickle.loads(pickle.dumps(one))) == hash(one)
    code = "import pickle,sys; c=pickle.loads(sys.stdin.buffer.read()); sys.stdout.buffer.write(pickle.dumps(c))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(one), capture_output=True, check=True, env=environment
    )
    assert pickle.loads(child.stdout) == one


@pytest.mark.parametrize(
    ("locator", "expected"),
    [
        ("file:///data/a%20b", FileStoreConfig(root="/data/a b")),
        ("~/x", FileStoreConfig(root=os.path.expanduser("~/x"))),
        ("rel/x", FileStoreConfig(root=os.path.abspath("rel/x"))),
        ("memory://Name/a%20b", FileStoreConfig(root="memory://Name/a%20b")),
        (
            "s3://Bucket/p?anon=false&key=1",
            FileStoreConfig(root="s3://Bucket/p", storage_options={"anon": False, "key": "1"}),
        ),
        (
            "postgresql://ada@db:5432/lab?file_root=/d%20x&sslmode=require&host=a&host=b&schema=s;DROP",
            PostgresStoreConfig(
                connection_string="postgresql://ada@db:5432/lab?sslmode=require&host=a&host=b",
                file_root="/d x",
                schema="s;DROP",
            ),
        ),
        ("postgres://db/lab?file_root=/d", PostgresStoreConfig(connection_string="postgres://db/lab", file_root="/d")),
        ("sqlite:////d/i.db?file_root=/d", SqliteStoreConfig(connection_string="sqlite:////d/i.db", file_root="/d")),
        (
            "mysql+pymysql://db/l?file_root=/d",
            MysqlStoreConfig(connection_string="mysql+pymysql://db/l", file_root="/d"),
        ),
    ],
)
def test_locators(locator, expected):
    """A locator means what it says: paths are absolute, encoding is undone, no parameter is lost."""
    assert parse_to_config(locator) == expected


def test_parts_of_a_locator():
    """Every part of a URL is told apart: buckets keep capitals, passwords may hold a slash, addresses brackets."""
    info = parse_locator("PG://Ada:p%40/w@[::1]:5432/lab?a=1&a=2&b=%20")
    assert (info.scheme, info.host, info.port, info.path) == ("pg", "[::1]", 5432, "/lab")
    assert (info.user, info.password) == ("Ada", "p@/w")
    assert info.params == {"a": ("1", "2"), "b": " "}
    assert parse_locator("s3://MyBucket:80/x@y").port == 80


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: parse_to_config("postgressql://db/x"),
            "No store has the scheme 'postgressql'. Did you mean 'postgresql'?",
        ),
        (lambda: create_store("postgresql://db/x"), "needs file_root"),
        (lambda: PostgresStoreConfig(connection_string="postgresql://db/x"), "needs file_root"),
        (lambda: SqliteStoreConfig(file_root="/x"), "needs a connection_string"),
        (lambda: parse_to_config("./x", rot="y"), "has no field 'rot'. Did you mean 'root'?"),
        (lambda: StoreConfig.from_dict({"_type": "file", "root": "/x", "colour": 1}), "has no field 'colour'"),
        (lambda: StoreConfig.from_dict({"_type": "file"}), "needs 'root'"),
        (lambda: StoreConfig.from_dict({"_type": "fil", "root": "/x"}), "Did you mean 'file'?"),
        (lambda: StoreConfig.from_dict({"root": "/x"}), "has the _type None"),
        (
            lambda: PostgresStoreConfig.from_dict({"root": "/x", "_type": "file"}),
            "No PostgresStoreConfig has the _type",
        ),
        (lambda: FileStoreConfig(root="/x", experiment_id="a").scoped("b"), "scoped to 'a'"),
        (lambda: FileStoreConfig(root="/x", experiment_id="a").for_experiment("a"), "needs a collection"),
        (lambda: FileStoreConfig(root="/x", experiment_id="a").list_experiments(), "needs a collection"),
        (lambda: FileStoreConfig(root="/x").scoped(3), "is a string, not int"),
        (lambda: parse_to_config("file:///a/../b"), "contains '..'"),
        (lambda: parse_to_config("s3://bucket/%2e%2E/b"), "contains '..'"),
        (lambda: FileStoreConfig(root="s3://bucket/a/.."), "contains '..'"),
        (lambda: FileStoreConfig(root="s3://bucket/a?x=1"), "has a query"),
        (lambda: FileStoreConfig(root=" "), "needs a root"),
        (lambda: parse_to_config(""), "is empty"),
        (lambda: parse_to_config("s3://bucket/x#y"), "cannot be read"),
        (lambda: PostgresStoreConfig(connection_string="postgresql://d", file_root="/x", schema="x" * 64), "63 bytes"),
        (lambda: PostgresStoreConfig(connection_string="postgresql://d", file_root="/x", schema="pg_x"), "pg_"),
        (lambda: PostgresStoreConfig(connection_string="nothing", file_root="/x"), "URL cannot be read"),
        (lambda: FileStoreConfig(root="/x").connect().put_derived("r", {}), "is a collection"),
    ],
)
def test_bad_input(call, sentence):
    """Each mistake is one sentence that names it."""
    with pytest.raises(UsageError) as caught:
        call()
    assert sentence in str(caught.value)


def test_two_ids_never_share_a_folder(tmp_path):
    """Ids that look alike, leave the folder, or differ only by case have folders of their own, and come back."""
    ids = ["a:b_c", "a_b:c", "../x:1", "org/x:1", "A", "a", "", "x" * 400]
    store = FileStoreConfig(root=tmp_path / "s").connect()
    for id_experiment in ids:
        store.put_run_record(RunRecord.success("1", id_experiment))
    assert FileStoreConfig(root=tmp_path / "s").list_experiments() == sorted(ids)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


SECRETS = [
    f"postgresql://ada:{SECRET}@db/lab?file_root=/d",
    f"postgresql://db/lab?file_root=/d&password={SECRET}",
    f"s3://key:{SECRET}@bucket/x",
    f"s3://bucket/x?secret={SECRET}",
    f"mysql://ada:{SECRET}@db/lab?file_root=s3://k:{SECRET}@bucket/x",
]


@pytest.mark.parametrize("locator", SECRETS)
def test_secrets_are_hidden(locator):
    """A secret works, and is in no repr, dictionary, pickle or message."""
    one = parse_to_config(locator, experiment_id="x")
    texts = [repr(one), str(one.to_dict()), repr(parse_locator(locator))]
    for call in (lambda: pickle.dumps(one), lambda: one.scoped("y"), lambda: one.to_dict(secrets={"nothing": "env:X"})):
        with pytest.raises(UsageError) as caught:
            call()
        texts.append(str(caught.value))
    assert not [text for text in texts if SECRET in text]
    assert copy.deepcopy(one) == one
    with pytest.raises(UsageError, match="was hidden"):
        StoreConfig.from_dict(one.to_dict()).connect()


@pytest.mark.parametrize("locator", SECRETS[:4])
def test_references_survive(locator, monkeypatch):
    """A reference travels in the place of a secret, and is looked up when the store is connected."""
    one = parse_to_config(locator)
    named = StoreConfig.from_dict(json.loads(json.dumps(one.to_dict(secrets="env:LAB_SECRET"))))
    assert pickle.loads(pickle.dumps(named)) == named
    assert StoreConfig.from_dict(named.to_dict()) == named
    assert "env:LAB_SECRET" in repr(named)
    names = [name for name in ("connection_string", "root", "storage_options") if hasattr(named, name)]
    with pytest.raises(UsageError, match="LAB_SECRET, which is not set"):
        [named.resolved(name) for name in names]
    monkeypatch.setenv("LAB_SECRET", SECRET)
    assert [named.resolved(name) for name in names] == [getattr(one, name) for name in names]


def test_a_whole_url_may_be_a_reference(monkeypatch, tmp_path):
    """``env:NAME`` in place of the connection string is the URL in that variable; it may need encoding."""
    one = SqliteStoreConfig(connection_string="env:LAB_DB", file_root=tmp_path)
    assert one.to_dict()["connection_string"] == "env:LAB_DB"
    monkeypatch.setenv("LAB_DB", f"sqlite:///{tmp_path}/i.db")
    assert one.connect().link.database.url.endswith("i.db")
    monkeypatch.setenv("LAB_PW", "a@b/c")
    server = PostgresStoreConfig(connection_string="postgresql://u:env:LAB_PW@h/d", file_root=tmp_path)
    assert server.database()._url.password == "a@b/c"


def test_one_reference_for_several_secrets():
    """One reference cannot stand for two secrets; a mapping names both."""
    one = parse_to_config(SECRETS[4])
    with pytest.raises(UsageError, match="cannot stand for"):
        one.to_dict(secrets="env:X")
    named = one.to_dict(secrets={"connection_string.password": "env:A", "file_root.password": "env:B"})
    assert "env:A" in named["connection_string"]
    assert "env:B" in named["file_root"]


def test_a_scheme_belongs_to_one_class():
    """A second class for a scheme is refused, also for one of ours; a bad scheme too."""
    for scheme in ("file", "No:good"):
        with pytest.raises(UsageError, match="scheme"):

            @dataclass(frozen=True, kw_only=True)
            class Mine(StoreConfig):
                scheme: ClassVar[str] = "placeholder"

                __init_subclass__ = None

            Mine.scheme = scheme
            ConfigRegistry.register(Mine)
    config._registered.pop("placeholder", None)


def test_plug_ins(monkeypatch):
    """A plug-in is loaded when its scheme is met; one that cannot be loaded is named, and stops no other."""
    entries = [
        EntryPoint("broken", "no_such_module:Config", "mltraq_ds.stores"),
        EntryPoint("wrong", "os:path", "mltraq_ds.stores"),
        EntryPoint("fine", "mltraq_ds.store.file_config:FileStoreConfig", "mltraq_ds.stores"),
    ]

    def found(group, name=None):
        return [entry for entry in entries if name in (None, entry.name)]

    monkeypatch.setattr(config, "entry_points", found)
    with pytest.raises(UsageError, match=r"'broken = no_such_module:Config'.*ModuleNotFoundError"):
        parse_to_config("broken://x")
    with pytest.raises(UsageError, match=r"'wrong = os:path'.*not a subclass"):
        parse_to_config("wrong://x")
    assert ConfigRegistry.get("fine") is FileStoreConfig
    assert {"broken", "fine", "file", "postgresql"} <= set(ConfigRegistry.schemes())


def test_files_need_no_sql(tmp_path):
    """A store of files is configured, written and read without importing SQLAlchemy."""
    code = (
        "import sys\nfrom mltraq_ds.store import create_store, RunRecord\n"
        f"s = create_store({str(tmp_path / 's')!r})\ns.put_run_record(RunRecord.success('1', 'x'))\n"
        "assert len(s.list_run_records()) == 1\nassert 'sqlalchemy' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_other_layouts_and_folders(tmp_path):
    """A store of a newer version is refused with the remedy; a folder that is no store has no experiments."""
    body = {"store_id": "x", "created": "now"}
    newer = descriptors.to_bytes("store", body).replace(b'"version": 1', b'"version": 99')
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "_store.json").write_bytes(newer)
    for config_ in (
        FileStoreConfig(root=tmp_path / "newer"),
        SqliteStoreConfig(connection_string=f"sqlite:///{tmp_path}/i.db", file_root=tmp_path / "newer"),
    ):
        with pytest.raises(FormatError, match=r"version 99.*Upgrade"):
            config_.connect().put_run_record(RunRecord.success("1", "x"))
    assert sorted(path.name for path in (tmp_path / "newer").iterdir()) == ["_store.json"]
    (tmp_path / "plain" / "folder").mkdir(parents=True)
    (tmp_path / "plain" / "folder" / "file.txt").write_text("mine")
    assert FileStoreConfig(root=tmp_path / "plain").list_experiments() == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PostgresStoreConfig(connection_string="sqlite:///x.db", file_root="/x"), "'postgresql://"),
        (lambda: SqliteStoreConfig(connection_string="postgresql://h/d", file_root="/x"), "'sqlite://"),
        (lambda: MysqlStoreConfig(connection_string="sqlite:///x.db", file_root="/x"), "'mysql://"),
        (lambda: parse_to_config("sqlite:///x.db?file_root=a&file_root=b"), "file_root is in it 2 times"),
        (lambda: parse_to_config("postgresql://h/d?file_root=a&schema=a&schema=b"), "schema is in it 2 times"),
        (lambda: parse_to_config("postgresql://h/d?file_root=/x/../y"), r"'\.\.'"),
        (lambda: parse_to_config("postgresql://h/d?file_root=/x/%2e%2e/y"), r"'\.\.'"),
        (lambda: create_store(None), "NoneType"),
        (lambda: create_store(""), "empty"),
        (lambda: StoreConfig.from_dict({"_type": "file", "root": 3}), "int"),
        (lambda: StoreConfig.from_dict(None), "NoneType"),
        (lambda: FileStoreConfig(root="x", experiment_id=3), "is a string, not int"),
        (lambda: create_store("x", experiment_id=3), "is a string, not int"),
        (lambda: create_store("s3:/bucket/x"), "'s3://"),
        (lambda: create_store("s3:bucket/x"), "'s3://"),
        (lambda: FileStoreConfig(root="postgres//x"), "'postgres://"),
        (lambda: create_store("postgresql:/host/db", file_root="/x"), "'postgresql://"),
        (lambda: create_store("oracle://h/d"), "scheme 'oracle'. Known"),
    ],
)
def test_one_sentence(make, words):
    """Whatever is wrong with a configuration is one sentence that names it."""
    with pytest.raises(UsageError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_paths_that_look_like_urls():
    """A folder may have the name of a scheme, and two slashes are no harm."""
    for path in ("./s3:/bucket", "data//x", "C:/x", "a//b", "s3", "notes:x/y"):
        assert create_store(path).storage.is_local
