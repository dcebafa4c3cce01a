"""A whole session on real servers: persist, find, replace, update, race, delete."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mltraq_ds import DataStore, create_session
from mltraq_ds.errors import ConflictError, ExperimentExistsError, UsageError

pytestmark = pytest.mark.server


#: What is asked of the JSON columns, in the words of each database.
WORDS = {
    "postgresql": {
        "diverged": "(fields->>'score')::float > :low and fields->>'loss' = 'NaN'",
        "largest": "max((params->>'x')::int)",
    },
    "mariadb": {
        "diverged": "json_value(fields, '$.score') > :low and json_value(fields, '$.loss') = 'NaN'",
        "largest": "max(cast(json_value(params, '$.x') as int))",
    },
}


def words(url):
    return WORDS[url.partition(":")[0].partition("+")[0]]


@pytest.fixture
def session(database_url, tmp_path):
    return create_session(url=database_url, store=tmp_path / "store")


def make(session, name="e", value=1):
    experiment = session.create_experiment(name)
    with experiment.run() as run:
        run.params.lr = 0.1
        run.fields.loss = np.float32("nan")
        run.fields.score = value
        run.fields.ds = DataStore(a=np.full(100, value))
    return experiment


def test_the_whole_way(session, database_url, tmp_path):
    """What is persisted is found by SQL and loaded by name in a new session, replaced, updated and deleted."""
    first = make(session).persist()
    fresh = create_session(url=database_url, store=tmp_path / "store")
    loaded = fresh.load_experiment("e")
    assert loaded.runs.first().fields.ds.a.sum() == 100
    assert np.isnan(loaded.runs.first().fields.loss)
    found = fresh.query(f"select id_run from mltraq_runs where {words(database_url)['diverged']}", {"low": 0.5})
    assert found.id_run.tolist() == [loaded.runs.first().id_run]
    loaded.runs.first().fields.ds.a[0] = 50
    loaded.persist("update")
    with pytest.raises(ExperimentExistsError):
        make(session, value=2).persist()
    second = make(session, value=2).persist("replace")
    assert fresh.load_experiment("e").runs.first().fields.ds.a.sum() == 200
    assert fresh.ls().id_experiment.tolist() == [second.id_experiment]
    assert not (tmp_path / "store" / first.id_experiment).exists()
    second.delete()
    assert len(fresh.ls()) == 0


def test_texts_that_a_database_cannot_hold(session):
    """A NUL in a value is kept for us and readable in SQL; in a name it is refused before anything is written."""
    with pytest.raises(UsageError, match=r"NUL.*Use another name"):
        session.create_experiment("e\0").persist()
    assert len(session.ls()) == 0
    experiment = session.create_experiment("e", text="a\0b", keys={"\ud800": "\udfff"}).persist()
    assert experiment.reload().fields == {"text": "a\0b", "keys": {"\ud800": "\udfff"}}
    found = session.query("select fields from mltraq_experiments").fields[0]
    assert (found if isinstance(found, dict) else json.loads(found))["text"] == r"a\x00b"


def test_a_race_for_one_name_has_one_winner(session, database_url, tmp_path):
    """Of eight writers of one name exactly one wins; the others get typed errors and leave nothing."""

    def persist(number):
        own = create_session(url=database_url, store=tmp_path / "store")
        try:
            return make(own, "raced", number).persist().id_experiment
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as threads:
        won = [identity for identity in threads.map(persist, range(8)) if identity]
    assert len(won) == 1
    assert session.load_experiment("raced").id_experiment == won[0]
    folders = [path.name for path in (tmp_path / "store").iterdir() if path.is_dir() and path.name != "_pending"]
    assert folders == won
    assert list((tmp_path / "store/_pending").iterdir()) == []


def test_many_runs(session, database_url):
    """A thousand runs are inserted and counted."""
    experiment = session.create_experiment("many").add_runs(x=range(1000))
    experiment.persist()
    counted = session.query(f"select count(*) as n, {words(database_url)['largest']} as top from mltraq_runs")
    assert (counted.n[0], counted["top"][0]) == (1000, 999)
    assert len(experiment.reload().runs) == 1000


def test_the_index_can_be_rebuilt(session, database_url, tmp_path):
    """With all rows gone the files give them back."""
    make(session).persist()
    with session.database.write() as connection:
        connection.exec_driver_sql("delete from mltraq_stores")
    fresh = create_session(url=database_url, store=tmp_path / "store")
    fresh.rebuild_index()
    assert fresh.load_experiment("e").runs.first().fields.score == 1
