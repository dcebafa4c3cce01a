"""Artifacts where teams keep them: in S3 (where the service decides between writers, and where it does not), and found
by PostgreSQL and MariaDB.
"""

import threading
import uuid

import numpy as np
import pytest

from mltraq_ds import DataStore, artifact_store, delete, get, options, save
from mltraq_ds.errors import ArtifactNotFoundError, ConcurrentPersistError
from mltraq_ds.tracking.default import default_session

pytestmark = [
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore::mltraq_ds.errors.SecretInOptionsWarning"),
]


@pytest.fixture
def home(tmp_path):
    """Set the options to a store of this test; its database is closed afterwards."""
    options.set("database.url", f"sqlite:///{tmp_path}/index.db")
    options.set("datastore.url", str(tmp_path / "store"))
    options.set("tqdm.disable", True)
    yield tmp_path
    default_session().close()


def whole_life():
    """Save, read, delete, look after and rebuild; whatever is where it should be."""
    for number in (1, 2):
        save(DataStore(weights=np.full(3000, number), inner=DataStore(number=number)), "weights/ü")
    assert save({"accuracy": 0.5}, "metrics").version == 1
    assert [get("weights/ü", number).get_value().weights.sum() for number in (1, 2)] == [3000, 6000]
    assert artifact_store().df()[["name", "version"]].to_numpy().tolist() == [
        ["metrics", 1],
        ["weights/ü", 1],
        ["weights/ü", 2],
    ]
    delete("weights/ü", "latest")
    with pytest.raises(ArtifactNotFoundError, match="was deleted"):
        get("weights/ü", 2)
    assert save(3, "weights/ü").version == 3
    session = default_session()
    assert len(session.check(deep=True)) == 0
    assert len(session.sweep(dry_run=False, grace_s=0)) == 0
    with session.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM mltraq_artifacts")
    session.rebuild_index()
    assert [(one.name, one.version) for one in artifact_store()] == [
        ("metrics", 1),
        ("weights/ü", 1),
        ("weights/ü", 3),
    ]
    assert len(session.check(deep=True)) == 0


@pytest.mark.parametrize("service", ["seaweedfs", "moto", "rclone_s3"])
def test_in_s3(home, request, service):
    """The whole life of artifacts in S3."""
    pytest.importorskip("s3fs")
    options.set("datastore.url", f"s3://mltraq/{uuid.uuid4().hex}")
    options.set("datastore.storage_options", request.getfixturevalue(service).options)
    whole_life()


def test_by_a_server(home, database_url):
    """The whole life of artifacts with an index on a server, which finds them by SQL."""
    options.set("database.url", database_url)
    whole_life()
    found = default_session().query("SELECT name, version FROM mltraq_artifacts WHERE state = 'current' ORDER BY 1, 2")
    assert found.to_numpy().tolist() == [["metrics", 1], ["weights/ü", 1], ["weights/ü", 3]]


@pytest.mark.parametrize("service", ["seaweedfs", "rclone_s3"])
def test_writers_of_one_name_in_s3(home, request, service):
    """No number is given twice: where the service decides all get one, elsewhere whoever sees another gives up."""
    pytest.importorskip("s3fs")
    options.set("datastore.url", f"s3://mltraq/{uuid.uuid4().hex}")
    options.set("datastore.storage_options", request.getfixturevalue(service).options)
    save(0, "x")
    saved, refused = {}, []

    def work(number):
        try:
            saved[number] = save(number, "x").version
        except ConcurrentPersistError as error:
            refused.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(saved) + len(refused) == 4
    assert not refused or service == "rclone_s3"
    assert sorted(saved.values()) == list(range(2, 2 + len(saved)))
    assert {number: get("x", version).get_value() for number, version in saved.items()} == {n: n for n in saved}
    assert len(default_session().check(deep=True)) == 0
