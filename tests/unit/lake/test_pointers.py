"""Pointers and the URLs in them: deterministic text, no secret, and nothing in them is believed."""

import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lake_scene import expected, open_session, values_of

from mltraq_ds import DataStore, lake
from mltraq_ds.errors import (
    CorruptRecordError,
    DanglingReferenceError,
    FormatError,
    MltraqDSError,
    RemoteFailedWarning,
    RemotesError,
    UsageError,
)
from mltraq_ds.storage import remote_urls
from mltraq_ds.storage.pointer import Pointer
from mltraq_ds.storage.remote_urls import open_remote, parse_remote

SHA = "sha256:" + "0f" * 32


def test_text_is_the_same_for_the_same_pointer():
    """Equal pointers have equal bytes, a line for each remote, and read back as they were."""
    pointer = Pointer(SHA, 7, SHA, ("s3://a", "s3://b/c"))
    text = pointer.to_bytes().decode()
    assert text == Pointer(SHA, 7, SHA, ("s3://a", "s3://b/c")).to_bytes().decode()
    assert '\n  "s3://a",\n  "s3://b/c"\n' in text
    assert Pointer.from_bytes(text.encode(), "k") == pointer


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "md5:00"},
        {"digest": "sha256:" + "G" * 64},
        {"size": -1},
        {"size": "7"},
        {"size": 2**63},
        {"index": None},
        {"remotes": []},
        {"remotes": "s3://a"},
        {"remotes": [7]},
        {"remotes": ["s3://user:pw@host:1/b"]},
        {"remotes": ["relative/path"]},
        {"remotes": ["ftp::s3://x"]},
        {"format": "other"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"media_type": "text/plain"},
        {"note": "of a later version, which would say so"},
    ],
)
def test_pointers_that_cannot_be_read(change):
    """Whatever is not as it is written is one typed error."""
    document = json.loads(Pointer(SHA, 7, SHA, ("s3://a",)).to_bytes())
    with pytest.raises(CorruptRecordError, match="pointer k"):
        Pointer.from_bytes(json.dumps({**document, **change}).encode(), "k")


@pytest.mark.parametrize("name", ["format", "version", "digest", "size", "index", "media_type", "remotes"])
def test_pointers_without_a_key(name):
    """A key that was lost, or has another name because one of its bytes was flipped, is not made up."""
    data = Pointer(SHA, 7, SHA, ("s3://a",)).to_bytes()
    for damaged in (json.dumps({k: v for k, v in json.loads(data).items() if k != name}).encode(),
                    data.replace(name.encode(), name[:-1].encode() + b"_", 1)):  # fmt: skip
        with pytest.raises(CorruptRecordError, match="pointer k"):
            Pointer.from_bytes(damaged, "k")


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_as_pointer(data):
    """No bytes make reading a pointer raise anything but a typed error."""
    with pytest.raises(CorruptRecordError):
        Pointer.from_bytes(data, "k")


def test_newer_pointer():
    """A newer layout version asks for an upgrade."""
    data = Pointer(SHA, 7, SHA, ("s3://a",)).to_bytes().replace(b'"version": 1', b'"version": 2')
    with pytest.raises(FormatError, match="Upgrade"):
        Pointer.from_bytes(data, "k")


@pytest.mark.parametrize(
    ("url", "public", "opened", "endpoint"),
    [
        ("s3://bucket", "s3://bucket", "s3://bucket", ""),
        ("s3://my.bucket/a/", "s3://my.bucket/a", "s3://my.bucket/a", ""),
        ("s3://u:p%2Fw@host:9000/b", "s3://host:9000/b", "s3://b", "https://host:9000"),
        ("s3://u:p@host/b?secure=false", "s3://host:80/b?secure=false", "s3://b", "http://host:80"),
        ("s3://host:9000/b/c?secure=true", "s3://host:9000/b/c", "s3://b/c", "https://host:9000"),
        ("memory://x/", "memory://x", "memory://x", ""),
        ("file:///a%20b", "file:///a%20b", "file:///a%20b", ""),
    ],
)
def test_urls_of_remotes(url, public, opened, endpoint):
    """What is written has no secret, keeps what is needed to open it, and means the same when it is read."""
    remote = parse_remote(url)
    assert (remote.public_url, remote.storage_url, remote.endpoint) == (public, opened, endpoint)
    again = parse_remote(public)
    assert (again.public_url, again.storage_url, again.endpoint) == (public, opened, endpoint)
    assert "p%2Fw" not in repr(remote)
    assert "p/w" not in repr(remote)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://host:9000",
        "s3://u:p@host",
        "s3://b?secure=false",
        "s3://h:1/b?x=1",
        "sftp://u:p@h/x",
        "s3://h:x/b",
    ],
)
def test_urls_that_cannot_be_a_remote(url):
    """A URL that would lose something is refused in a sentence without its password."""
    with pytest.raises(UsageError) as caught:
        parse_remote(url)
    assert ":p@" not in str(caught.value)


ENVIRONMENTS = [
    ({"AWS_ACCESS_KEY": "k1", "AWS_SECRET_KEY": "s1"}, ("k1", "s1")),
    ({"AWS_ACCESS_KEY": "k1", "AWS_SECRET_ACCESS_KEY": "s1"}, ("k1", "s1")),
    ({"MINIO_ACCESS_KEY": "k2", "MINIO_SECRET_KEY": "s2"}, ("k2", "s2")),
    ({"AWS_ACCESS_KEY_ID": "k0", "AWS_SECRET_ACCESS_KEY": "s0", "MINIO_ACCESS_KEY": "k2"}, (None, None)),
    ({"AWS_ACCESS_KEY_ID": "k0", "AWS_SECRET_KEY": "s1"}, ("k0", "s1")),
    ({"AWS_ACCESS_KEY_ID": "k0", "MINIO_SECRET_KEY": "s2"}, ("k0", "s2")),
    ({"AWS_ACCESS_KEY": "k1", "MINIO_SECRET_KEY": "s2"}, ("k1", "s2")),
    ({"MINIO_ACCESS_KEY": "k2", "AWS_SECRET_ACCESS_KEY": "s0"}, ("k2", "s0")),
    ({"AWS_ACCESS_KEY_ID": "k0"}, ("k3", "s3")),
    ({}, ("k3", "s3")),
]


@pytest.mark.parametrize(("environment", "found"), ENVIRONMENTS)
@pytest.mark.parametrize("folder", [".mc", "mc"])
def test_where_credentials_come_from(monkeypatch, tmp_path, environment, found, folder):
    """The names of the page are read; what the provider's own chain finds is left to it; MinIO's client comes last."""
    asked = _asked(monkeypatch, tmp_path, environment)
    (tmp_path / folder).mkdir()
    servers = {"lab": {"url": "http://host:9000", "accessKey": "k3", "secretKey": "s3"}}
    (tmp_path / folder / "config.json").write_text(json.dumps({"version": "10", "aliases": servers}))
    open_remote("s3://host:9000/b?secure=false")
    assert (asked[-1].get("key"), asked[-1].get("secret")) == found
    assert asked[-1]["endpoint_url"] == "http://host:9000"


def test_credentials_in_the_url_win(monkeypatch, tmp_path):
    """Who names a user in the URL means that one; another URL of the same server does not get them."""
    asked = _asked(monkeypatch, tmp_path, {})
    open_remote("s3://user:pass@host:9000/b")
    open_remote("s3://host:9000/b")
    assert [one.get("key") for one in asked] == ["user", None]


def test_profile_comes_before_the_client_of_minio(monkeypatch, tmp_path):
    """``~/.aws/credentials`` belongs to the provider's chain."""
    asked = _asked(monkeypatch, tmp_path, {})
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    (tmp_path / ".mc").mkdir()
    (tmp_path / ".mc" / "config.json").write_text('{"aliases": {"x": {"url": "https://host:9000", "accessKey": "k3"}}}')
    open_remote("s3://host:9000/b")
    assert "key" not in asked[-1]


def _asked(monkeypatch, home, environment):
    for name in (*remote_urls._ACCESS, *remote_urls._SECRET, "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr("mltraq_ds.storage.remote_urls._open", lambda remote, options: asked.append(options))
    return asked


def test_reading_is_transparent(session, files, tmp_path):
    """A blob that lives on a remote only is read as any other: values, sizes, repr, in another session too."""
    lake.add(session, remotes=tmp_path / "lake", in_place=True)
    assert files.blobs() == {}
    assert values_of(open_session(tmp_path / "store")) == expected()
    fields = session.load_experiment("digits").runs.first().fields
    assert "w" in repr(fields.weights)
    assert fields.weights.describe()["w"]["shape"] == [3000]


def test_lazy_values_pickle_by_their_pointer(session, tmp_path):
    """What is sent to another process opens the pointer there."""
    lake.add(session, remotes=tmp_path / "lake", in_place=True)
    weights = session.load_experiment("digits").runs.first().fields.weights
    assert np.array_equal(pickle.loads(pickle.dumps(weights)).w, np.arange(3000.0))


def damage_each(home, change):
    for path in home.root.iterdir():
        if not path.name.startswith("_"):
            path.chmod(0o644)
            change(path)


LIES = {
    "flipped byte": lambda path: path.write_bytes(
        bytes([*path.read_bytes()[:600]]) + b"\x55" + path.read_bytes()[601:]
    ),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "other object": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_remote_that_lies_is_passed_over(session, home, tmp_path, lie):
    """The next remote delivers, and the one that lied is named in a warning; alone it is an error that says so."""
    lake.add(session, remotes=[home.root, tmp_path / "second"], in_place=True)
    damage_each(home, LIES[lie])
    with pytest.warns(RemoteFailedWarning, match="lake"):
        assert values_of(session) == expected()
    lake.remove(session, remotes=tmp_path / "second")
    with warnings.catch_warnings(), pytest.raises(RemotesError, match=r"No remote delivers .*lake"):
        warnings.simplefilter("ignore", RemoteFailedWarning)
        values_of(session)


def test_every_byte_of_a_remote_object(session, home):
    """Whichever byte of an object is flipped, a value is right or an error is raised."""
    run = session.load_experiment("digits").runs.first()
    url, pixels = run.fields.images.to_url(), run.fields.images.pixels
    lake.add(session, remotes=home.root, in_place=True, start=0, stop=1, keys="images")
    (path,) = (path for path in home.root.iterdir() if not path.name.startswith("_"))
    good = path.read_bytes()
    path.chmod(0o644)
    refused = 0
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0x10]) + good[position + 1 :])
        try:
            assert np.array_equal(DataStore.from_url(url, store=session).pixels, pixels)
        except MltraqDSError:
            refused += 1
    assert refused > pixels.nbytes
    path.write_bytes(good)
    assert np.array_equal(DataStore.from_url(url, store=session).pixels, pixels)


def test_pointer_of_another_blob(session, tmp_path):
    """Pointers that were swapped are found when they are read, and by check."""
    lake.add(session, remotes=tmp_path / "lake", in_place=True, keys=["weights"])
    first, second = sorted((tmp_path / "store").glob("*/*.remote"))[:2]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    with pytest.raises(MltraqDSError):
        values_of(session)
    assert session.check().kinds() == {"unreadable pointer": 2}


def test_no_pointer_and_no_blob(session, files):
    """Without either it is a dangling reference, as ever."""
    for path in files.root.glob("*/*"):
        if len(path.name) == 32:
            path.unlink()
    with pytest.raises(DanglingReferenceError):
        values_of(session)
