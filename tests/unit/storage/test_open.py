"""Where a storage is: the one door, the forms of a place, and secrets that stay outside."""

import copy
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from mltraq_ds.errors import MissingExtraError, StorageError, UsageError
from mltraq_ds.storage import LocalStorage, open_storage, transfers
from mltraq_ds.storage.places import path_from, public_url, secrets_of, url_from_path
from mltraq_ds.storage.remote import RemoteStorage

CANARY = "c4nary/+pw"


@pytest.mark.parametrize("form", ["path", "text", "url", "localhost"])
def test_forms_of_a_folder(tmp_path, form):
    """A path and both forms of its URL are the same place, spaces and marks included."""
    folder = tmp_path / "a b#c?d%20"
    place = {
        "path": folder,
        "text": str(folder),
        "url": folder.as_uri(),
        "localhost": folder.as_uri().replace("file:///", "file://localhost/"),
    }[form]
    storage = open_storage(place)
    storage.put("x", [b"1"], size=1, parents=True)
    assert (folder / "x").read_bytes() == b"1"
    assert storage.url == folder.as_uri()
    assert open_storage(storage.url).read("x") == b"1"


def test_relative_path_is_fixed_when_opened(tmp_path, monkeypatch):
    """A later change of the working directory does not move the store."""
    monkeypatch.chdir(tmp_path)
    storage = open_storage("data")
    monkeypatch.chdir("/")
    storage.put("x", [b"1"], size=1, parents=True)
    assert (tmp_path / "data" / "x").read_bytes() == b"1"


def test_home_is_expanded(tmp_path, monkeypatch):
    """`~` is the home of the user, not a folder of that name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_storage("~/data").url == (tmp_path / "data").as_uri()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file://data/x", "three slashes"),
        ("file://~/x", "three slashes"),
        ("file:data", "no path"),
        ("file:/data", "no path"),
        ("", "no path"),
        ("a\0b", "no path"),
        ("file:///a%00b", "three slashes"),
        ("file:///a?b=1", "%3F"),
        ("file:///a#b", "%23"),
        ("file:///a?", "%3F"),
        ("nosuch://x", "no scheme 'nosuch'"),
        ("memry://x", "Did you mean memory"),
        ("memory://a/../b", "contains '..'"),
        ("memory://a?b", "query"),
        ("simplecache::memory://a", "no path"),
        ("memory://a::file://b", "chains"),
        ("s3:/bucket/lab", "lacks a slash"),
        ("S3:/bucket/lab", "lacks a slash"),
        ("sftp:/host", "lacks a slash"),
        ("https:/host/x", "lacks a slash"),
        ("s3://", "names no bucket"),
        ("gs:///x", "names no bucket"),
        ("s3://host:9000/bucket", "endpoint_url"),
        ("s3://AK:SK@bucket/x", "name a profile"),
    ],
)
def test_refused_places(place, message):
    """A place that would be misread is refused with the way to write it."""
    with pytest.raises(UsageError, match=message.replace("?", r"\?").replace("..", r"\.\.")):
        open_storage(place)


def test_folders_that_only_look_like_a_url(tmp_path, monkeypatch):
    """A folder may have a colon in its name, and be written with the scheme of a URL if that is said."""
    monkeypatch.chdir(tmp_path)
    for place in ("nosuch:/x", "./s3:/x", "a:b/c"):
        assert open_storage(place).url.startswith("file:///")


def test_unknown_storage_options_are_named():
    """An option that the client does not take is said in our words, when it is made and when it is first used."""
    pytest.importorskip("s3fs")
    given = {"key": "AK", "secret": "SK", "endpoint_url": "http://127.0.0.1:9", "endpont": 1}
    with pytest.raises(StorageError, match="there is no storage option 'endpont'"):
        RemoteStorage("s3://bucket/x", storage_options=given).read("x")


def test_progress_is_told_while_bytes_are_sent(tmp_path, monkeypatch):
    """Whoever wants to know is told of each buffer when it has been sent, not of all at the end."""
    monkeypatch.setattr(transfers, "LONG", 2)
    told, seen = [], []

    class Transfer:
        set_size = close = staticmethod(lambda *size: None)

        def relative_update(self, inc):
            told.append(inc)

    def buffers():
        for _ in range(4):
            seen.append(len(told))
            yield bytes(3 * 2**20)

    storage = RemoteStorage(f"file://{tmp_path}", on_transfer=lambda verb, key, size: Transfer())
    storage.put("x", buffers(), size=12 * 2**20)
    assert seen == [0, 1, 2, 3]
    assert told == [3 * 2**20] * 4


def test_remote_needs_a_url():
    """A path given to the remote storage is refused."""
    with pytest.raises(UsageError, match="no URL"):
        RemoteStorage("/tmp/x")


def test_options_of_a_folder_are_refused(tmp_path):
    """Storage options that nothing would use are an error that shows their names only."""
    with pytest.raises(UsageError, match="secret") as caught:
        open_storage(tmp_path, storage_options={"secret": CANARY})
    assert CANARY not in str(caught.value)


def test_unknown_durability_is_refused(tmp_path):
    """A misspelt durability is no silent default."""
    with pytest.raises(UsageError, match="'full' or 'relaxed'"):
        open_storage(tmp_path, durability="half")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scheme", "extra"), [("s3", "s3"), ("gs", "gcs"), ("abfs", "azure"), ("sftp", "sftp")])
def test_missing_package_names_its_extra(monkeypatch, scheme, extra):
    """Without its package a scheme says what to install."""

    def missing(protocol):
        raise ImportError(f"Install the package for {protocol}")

    monkeypatch.setattr("fsspec.get_filesystem_class", missing)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # obstore would do in its place
    with pytest.raises(MissingExtraError, match=rf'pip install "mltraq-ds\[{extra}\]"'):
        open_storage(f"{scheme}://bucket/x")
    with pytest.raises(MissingExtraError, match="Install the package for dbfs"):
        open_storage("dbfs://bucket/x")


def test_a_folder_needs_no_fsspec():
    """Opening, writing and reading a folder does not import fsspec."""
    code = (
        "import sys, tempfile; from mltraq_ds.storage import open_storage; s = open_storage(tempfile.mkdtemp());"
        "s.put('x', [b'1'], size=1); assert s.read('x') == b'1'; assert not {'fsspec', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_testing_needs_no_pytest():
    """The package for testers imports pytest only with the suite."""
    code = (
        "import sys; import mltraq_ds.testing as t; t.FaultStorage; t.Fail; assert 'pytest' not in sys.modules;"
        "t.StorageConformance; assert 'pytest' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import mltraq_ds.testing

    with pytest.raises(AttributeError, match="nothing"):
        mltraq_ds.testing.nothing  # noqa: B018


def test_public_url():
    """What is shown of a URL has neither password nor query, and is otherwise as given."""
    assert public_url("sftp://alice:pw@host:22/data") == "sftp://alice@host:22/data"
    assert public_url("https://host/data?sig=1#x") == "https://host/data"
    assert public_url("s3://bucket/a@b:c") == "s3://bucket/a@b:c"
    assert public_url("/plain:path@x") == "/plain:path@x"


def test_urls_of_paths_return(tmp_path):
    """Every path survives its URL."""
    for name in ("plain", "a b", "é", "100%", "a#b?c", "%2e"):
        path = str(tmp_path / name)
        assert path_from(url_from_path(path)) == path


@pytest.mark.parametrize(
    "options",
    [
        {"secret": CANARY},
        {"key": CANARY},
        {"token": CANARY},
        {"password": CANARY},
        {"aws_secret_access_key": CANARY},
        {"connection_string": CANARY},
        {"sas_token": CANARY.encode()},
        {"client_kwargs": {"aws_session_token": CANARY}},
        {"client_kwargs": {"headers": {"Authorization": [CANARY]}}},
        {"proxies": ["http://alice:" + CANARY.replace("/", "%2F") + "@proxy"]},
    ],
)
def test_secrets_in_options_are_found(options):
    """An option whose name speaks of a secret is one, however deep; so is a password in a URL among the options."""
    assert CANARY in secrets_of("s3://bucket", options)


def test_options_without_secrets():
    """Options that name where a secret is, or that there is none, are no secrets."""
    options = {
        "profile": "work",
        "anon": True,
        "token": "anon",
        "key_filename": "/home/x/id",
        "use_token": True,
        "endpoint_url": "http://127.0.0.1:9000",
        "secret": None,
        "port": 22,
        "connect_timeout": 3,
    }
    assert secrets_of("sftp://alice@host/x", options) == []


class TestCanary:
    """A planted secret is shown nowhere and written nowhere."""

    def make(self, where):
        url = "memory://canary/x"
        options = {"secret": CANARY}
        if where == "url":
            url, options = "memory://alice:c4nary%2F+pw@canary/x", {}
        return RemoteStorage(url, storage_options=options)

    @pytest.mark.parametrize("where", ["url", "options"])
    def test_texts(self, where):
        """Neither repr nor URL of the storage or what it holds has the secret."""
        storage = self.make(where)
        shown = f"{storage!r} {storage.url} {storage._access!r} {vars(storage)}"
        assert CANARY not in shown
        assert "c4nary" not in shown

    @pytest.mark.parametrize("where", ["url", "options"])
    def test_pickle(self, where):
        """Pickling refuses and names the way out; copying too, and the parts cannot be pickled either."""
        storage = self.make(where)
        assert not storage.is_shareable
        for copying in (pickle.dumps, copy.deepcopy):
            with pytest.raises(UsageError, match="profile") as caught:
                copying(storage)
            assert "c4nary" not in str(caught.value)
        with pytest.raises(UsageError, match="Pickle the storage"):
            pickle.dumps(storage._access)

    @pytest.mark.parametrize("where", ["url", "options"])
    @pytest.mark.parametrize("text", ["403 for " + CANARY, "no answer"])
    def test_errors(self, monkeypatch, where, text):
        """An error of the storage that repeats the secret is told without it, cause and traceback included."""
        storage = self.make(where)

        class Filesystem:
            def cat_file(self, path):
                raise RuntimeError(text)

        monkeypatch.setattr(type(storage._access), "connect", lambda self: (Filesystem(), "/x"))
        with pytest.raises(StorageError, match="RuntimeError") as caught:
            storage.read("a/x")
        assert CANARY not in "".join(traceback.format_exception(caught.value))
        assert (caught.value.__cause__ is None) == (CANARY in text)


def test_storage_options_reach_fsspec(monkeypatch):
    """Options are passed on as they are, with caches of listings and instances off; nothing is made at opening."""
    seen = []

    def make(url, **options):
        seen.append((url, options))
        return object(), "/root/"

    monkeypatch.setattr("mltraq_ds.storage.filesystems.url_to_fs", make)
    storage = RemoteStorage("memory://x", storage_options={"profile": "work"})
    assert seen == []
    assert storage._access.connect()[1] == storage._access.connect()[1] == "/root"
    assert seen == [("memory://x", {"profile": "work", "skip_instance_cache": True, "use_listings_cache": False})]
    again = pickle.loads(pickle.dumps(storage))
    again._access.connect()
    assert seen[1] == seen[0]


def test_sftp_gets_no_option_that_paramiko_refuses(monkeypatch):
    """What fsspec hands on to another library is left as the user gave it."""
    seen = []
    monkeypatch.setattr("fsspec.get_filesystem_class", lambda scheme: object)
    monkeypatch.setattr("mltraq_ds.storage.filesystems.url_to_fs", lambda url, **options: (seen.append(options), "/"))
    RemoteStorage("sftp://host/x")._access.connect()
    assert seen == [{"skip_instance_cache": True}]


def test_two_storages_never_share_a_filesystem():
    """The first credentials would win otherwise."""
    one, two = RemoteStorage("memory://x"), RemoteStorage("memory://x")
    assert one._access.connect()[0] is one._access.connect()[0]
    assert one._access.connect()[0] is not two._access.connect()[0]


def test_fork_makes_a_filesystem_of_its_own(tmp_path):
    """A forked child does not use the connections of its parent, and reads what the parent wrote."""
    code = f"""
import os
from mltraq_ds.storage.remote import RemoteStorage
storage = RemoteStorage({tmp_path.as_uri()!r})
storage.put("x", [b"1"], size=1)
before = storage._access.connect()[0]
pid = os.fork()
if pid == 0:
    ok = storage.read("x") == b"1" and storage._access.connect()[0] is not before
    storage.put("y", [b"2"], size=1)
    os._exit(0 if ok else 1)
assert os.waitpid(pid, 0)[1] == 0
assert storage.read("y") == b"2"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_local_storage_pickles_its_settings(tmp_path):
    """A copy has the same place, durability and way of reading."""
    storage = LocalStorage(tmp_path, durability="relaxed", mmap=False)
    again = pickle.loads(pickle.dumps(storage))
    assert repr(again) == repr(storage)
    assert "relaxed" in repr(again)
    assert storage.is_shareable
    assert storage.is_local
    assert str(tmp_path) not in os.listdir(tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
