"""The read cache: what it hands out is right, however it is damaged, filled, or used at once."""

import errno
import hashlib
import multiprocessing
import os
import pickle
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session, options
from mltraq_ds.anywhere import open_anywhere
from mltraq_ds.blob.hashing import PIECE
from mltraq_ds.cached import CachedSource
from mltraq_ds.errors import CacheFailedWarning, CorruptBlobError
from mltraq_ds.objects import Objects
from mltraq_ds.storage import cache as cache_module
from mltraq_ds.storage import open_storage
from mltraq_ds.storage.cache import ReadCache
from mltraq_ds.storage.clients.anything import AnyClient

LIMIT = 10**9


def digest(data):
    return hashlib.sha256(data).digest()


def files(folder):
    """Return the files of a cache other than its lock."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")


@pytest.fixture
def cache(tmp_path):
    return ReadCache(str(tmp_path / "cache"), LIMIT)


@pytest.fixture
def remote(tmp_path):
    """Return a remote that another process reaches."""
    (tmp_path / "remote").mkdir()
    from mltraq_ds.storage.remote import RemoteStorage

    return RemoteStorage(f"file://{tmp_path}/remote")


@pytest.fixture
def requests(monkeypatch):
    """Return the ranges that are read from remotes, as they are read."""
    seen = []
    read = AnyClient.read_into

    def watched(self, key, offset, buffer, *rest):
        seen.append((offset, buffer.nbytes))
        return read(self, key, offset, buffer, *rest)

    monkeypatch.setattr(AnyClient, "read_into", watched)
    return seen


def test_keeps_bytes_for_a_new_object(cache):
    """What was put is found under its digest by another object, and pickled by a third; nothing else is."""
    cache.put(digest(b"abc"), [b"a", b"bc"])
    for reader in (ReadCache(cache.folder, LIMIT), pickle.loads(pickle.dumps(cache))):
        assert bytes(reader.get(digest(b"abc"), 3)) == b"abc"
        assert reader.get(digest(b"abd")) is None
    assert files(cache.folder)[0].name == digest(b"abc").hex()


@pytest.mark.parametrize("damage", [b"", b"ab", b"abd", b"abcd", b"\0\0\0"])
def test_damage_is_dropped(cache, damage):
    """What differs from its name is never handed out, and removed so that it is fetched anew."""
    cache.put(digest(b"abc"), [b"abc"])
    (path,) = files(cache.folder)
    path.write_bytes(damage)
    assert cache.get(digest(b"abc")) is None
    assert files(cache.folder) == []


def test_size_is_bounded_and_the_unused_goes_first(tmp_path):
    """The folder stays below its bound; what was just read outlives what was not."""
    cache = ReadCache(str(tmp_path), 100_000)
    blocks = [bytes([number]) * 10_000 for number in range(30)]
    cache.put(digest(blocks[0]), [blocks[0]])
    os.utime(files(tmp_path)[0], (1, 1))
    for number, block in enumerate(blocks[1:], start=1):
        assert cache.get(digest(blocks[0])) is not None
        cache.put(digest(block), [block])
        path = next(path for path in files(tmp_path) if path.name == digest(block).hex())
        os.utime(path, (number + 1, number + 1))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 100_000
    assert digest(blocks[0]) in cache
    assert digest(blocks[1]) not in cache
    cache.put(digest(b"x" * 100_001), [b"x" * 100_001])
    assert digest(b"x" * 100_001) not in cache


def test_what_killed_processes_left_is_removed(cache):
    """A temporary file of long ago goes; one that may be of a living process stays."""
    cache.put(digest(b"1"), [b"1"])
    root = Path(cache.folder) / "1"
    (root / ".tmp-old").write_bytes(b"x")
    os.utime(root / ".tmp-old", (1, 1))
    (root / ".tmp-new").write_bytes(b"x")
    ReadCache(cache.folder, LIMIT).put(digest(b"2"), [b"2"])
    assert {path.name for path in root.iterdir() if path.is_file()} == {".lock", ".tmp-new"}


def make(storage, **values):
    """Put values as one blob each; return their references."""
    objects = Objects(storage)
    return {name: objects.put(value, f"blobs/{name}", parents=True) for name, value in values.items()}


def test_second_reader_asks_for_nothing(remote, cache, requests):
    """A value that was read once is read again, by new objects, without one request."""
    value = np.arange(3 * PIECE // 8 + 5, dtype="f8")
    reference = make(remote, x=value)["x"]
    assert np.array_equal(Objects(remote, cache=cache).get(reference), value)
    assert requests
    requests.clear()
    again = Objects(remote, cache=ReadCache(cache.folder, LIMIT)).get(reference)
    assert np.array_equal(again, value)
    assert requests == []
    again[:] = 0  # it is the reader's own
    assert np.array_equal(Objects(remote, cache=cache).get(reference), value)


@pytest.mark.parametrize("position", range(5))
def test_damaged_cache_reaches_no_value(remote, cache, requests, position):
    """Whatever file of the cache is damaged, wherever, values are right, and the file is whole again."""
    value = np.arange(3 * PIECE // 8 + 5, dtype="f8")
    reference = make(remote, x=value)["x"]
    Objects(remote, cache=cache).get(reference)
    found = files(cache.folder)
    assert len(found) == 5  # an index and four pieces
    path = found[position]
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        requests.clear()
        assert np.array_equal(Objects(remote, cache=cache).get(reference), value)
        assert 0 < len(requests) <= 2
        assert path.read_bytes() == whole


def test_lying_remote_is_found_and_not_kept(remote, cache, tmp_path):
    """What the remote has damaged is an error, and is not in the cache: once restored, it is read."""
    value = np.arange(10_000, dtype="f8")
    reference = make(remote, x=value)["x"]
    path = tmp_path / "remote/blobs/x"
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    for verify in ("crc", "none"):
        with pytest.raises(CorruptBlobError, match="SHA-256"):
            Objects(remote, cache=cache, verify=verify).get(reference)
    path.write_bytes(whole)
    assert np.array_equal(Objects(remote, cache=cache).get(reference), value)


def test_ranges_of_a_member_are_verified(remote, cache, requests):
    """A stream over a member reads whole pieces, each once, and gives the bytes that a plain source gives."""
    reference = make(remote, x=np.arange(2 * PIECE // 8, dtype="f8"))["x"]
    blob = Objects(remote, cache=cache).open(reference)
    plain = open_anywhere(remote, reference.key, size=reference.size)
    member = blob.members[0]
    requests.clear()
    start = member._offset
    for offset in range(0, member.stored_size, 1_000_003):
        size = min(1_000_003, member.stored_size - offset)
        assert member.read_range(offset, size) == plain.read(start + offset, size)
    ours = [one for one in requests if one[1] != 1_000_003]
    assert sum(size for _, size in ours) < member.stored_size + 2_000_000
    assert blob.check() == []
    with pytest.raises(CorruptBlobError):
        CachedSource(plain, cache, []).read(plain.size, 1)


def test_failing_cache_fails_no_read(remote, tmp_path, monkeypatch):
    """A full disk, or a place that is no folder, is one warning; values are read, and nothing half is left."""
    value = np.arange(100_000, dtype="f8")
    reference = make(remote, x=value)["x"]

    def full(fd, view):
        os.write(fd, view[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "_write", full)
        cache = ReadCache(str(tmp_path / "full"), LIMIT)
        with pytest.warns(CacheFailedWarning, match="No space left") as found:
            assert np.array_equal(Objects(remote, cache=cache).get(reference), value)
        assert len(found) == 1
        assert files(tmp_path / "full") == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(CacheFailedWarning, match="cache_dir"):
        assert np.array_equal(Objects(remote, cache=ReadCache(str(tmp_path / "file"), LIMIT)).get(reference), value)


def read_many(folder, url, references, seed, answers):
    from mltraq_ds.storage.remote import RemoteStorage

    order = np.random.default_rng(seed).permutation(len(references))
    objects = Objects(RemoteStorage(url), cache=ReadCache(folder, 400_000))
    wrong = 0
    for number in [*order, *order]:
        wrong += not np.array_equal(objects.get(references[number]), np.full(5000, float(number)))
        for path in files(folder)[:1] if number == seed else ():  # and somebody damages it meanwhile
            path.write_bytes(b"damaged")
    answers.put(wrong)


def test_eight_processes_share_a_cache(remote, tmp_path):
    """Eight processes that read, write, damage and make room at once see right values only."""
    references = list(make(remote, **{str(number): np.full(5000, float(number)) for number in range(20)}).values())
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    folder = str(tmp_path / "cache")
    workers = [
        context.Process(target=read_many, args=(folder, remote.url, references, seed, answers)) for seed in range(8)
    ]
    for worker in workers:
        worker.start()
    assert [answers.get(timeout=120) for _ in workers] == [0] * 8
    for worker in workers:
        worker.join()
    assert sum(path.stat().st_size for path in files(folder)) <= 400_000 * (1 + 8 / 16)


def test_sessions_use_it_for_blobs_only(tmp_path, requests):
    """With the option, loading a second time reads no blob; heads, records and secrets are never in it."""
    folder = tmp_path / "cache"
    options.set("datastore.cache_dir", str(folder))
    url = "memory://cache-of-sessions"
    session = create_session(f"sqlite:///{tmp_path}/a.db", url)
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.note = "a canary in the record"
        run.fields.ds = DataStore(weights=np.arange(5000.0))
    experiment.persist()
    for expected in (2, 0):
        requests.clear()
        loaded = create_session(f"sqlite:///{tmp_path}/a.db", url).load_experiment("e")
        assert loaded.runs.first().fields.ds.weights[-1] == 4999
        assert len(requests) == expected
    assert len(files(folder)) == 2
    texts = [str(path).encode() + path.read_bytes() for path in files(folder)]
    assert not any(word in text for text in texts for word in (b"canary", b"memory", b"generations"))
    # What replaces a version is seen at once, though the former one is kept.
    loaded.runs.first().fields.ds.weights = np.zeros(3)
    loaded.persist(if_exists="update")
    assert (
        len(create_session(f"sqlite:///{tmp_path}/a.db", url).load_experiment("e").runs.first().fields.ds.weights) == 3
    )
    open_storage(url).delete_folder(urllib.parse.quote(str(loaded.id_experiment)))


def test_blobs_of_a_lake_are_kept(tmp_path):
    """A blob that lives on a remote of the lake is read from the cache when that remote is gone."""
    from mltraq_ds import lake

    options.set("datastore.cache_dir", str(tmp_path / "cache"))
    options.set("tqdm.disable", True)
    session = create_session(f"sqlite:///{tmp_path}/a.db", tmp_path / "store")
    experiment = session.create_experiment("e")
    with experiment.run() as run:
        run.fields.ds = DataStore(weights=np.arange(5000.0))
    experiment.persist()
    lake.upload(session, remotes=str(tmp_path / "lake"))
    lake.drop(session)
    for _ in range(2):
        again = create_session(f"sqlite:///{tmp_path}/a.db", tmp_path / "store").load_experiment("e")
        assert again.runs.first().fields.ds.weights[-1] == 4999
        if (tmp_path / "lake").exists():
            (tmp_path / "lake").rename(tmp_path / "gone")
