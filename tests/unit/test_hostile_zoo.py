"""Random values of every type, through everything that a user's value goes through, are the same when read back."""

import itertools
import random

import pytest

from mltraq_ds import DataStore, create_session, options
from tests.unit import zoo

VALUES = 120


@pytest.mark.parametrize("compression", ["uncompressed", "zstd"])
@pytest.mark.parametrize("seed", range(3))
def test_what_comes_back_is_the_same(tmp_path, seed, compression):
    """As fields, in a DataStore and nested in one, loaded by another session; not one bit or type is another."""
    rng = random.Random(seed)
    values = {f"v{number}": zoo.value(rng) for number in range(VALUES)}
    with options.ctx({"serialization.compression.codec": compression}):
        session = create_session(f"sqlite:///{tmp_path}/a.db", tmp_path / "store")
        experiment = session.create_experiment("e", **{k: v for k, v in values.items() if _has_text(v)})
        with experiment.run() as run:
            run.fields.ds = DataStore(values)
            run.fields.nested = [DataStore(inner={"deep": list(values.values())[:40]})]
        experiment.persist()
    loaded = create_session(f"sqlite:///{tmp_path}/b.db", tmp_path / "store").load_experiment(
        id_experiment=experiment.id_experiment
    )
    fields = loaded.runs.first().fields
    for name, value in values.items():
        assert zoo.differs(value, fields.ds[name], name) is None
        if name in loaded.fields:
            assert zoo.differs(value, loaded.fields[name], name) is None
    assert zoo.differs(list(values.values())[:40], fields.nested[0].inner["deep"]) is None
    # Whatever was touched and not changed keeps its blob: encoding again gives the same bytes.
    blobs = sorted(stat.key for stat in session.storage.list(experiment.id_experiment) if stat.key.count("/") == 1)
    with options.ctx({"serialization.compression.codec": compression}):
        loaded.persist(if_exists="update")
    kept = sorted(stat.key for stat in session.storage.list(experiment.id_experiment) if stat.key.count("/") == 1)
    assert len(set(kept) & set(blobs)) > 0


def _has_text(value):
    """Tell whether SQL can hold what it is told of a value: a text with NUL or a lone surrogate is refused."""
    if isinstance(value, dict):
        return all(map(_has_text, [*value, *value.values()]))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_has_text, value))
    return not isinstance(value, str) or ("\0" not in value and value.isprintable())


def test_the_comparison_sees_differences():
    """A comparison that always said yes would prove nothing."""
    rng = random.Random(1)
    values = [zoo.value(rng) for _ in range(200)]
    pairs = itertools.pairwise(values)
    assert sum(zoo.differs(one, two) is None for one, two in pairs) < 20
    assert zoo.differs(0.0, -0.0)
    assert zoo.differs(1, True)
    assert zoo.differs([1], (1,))
