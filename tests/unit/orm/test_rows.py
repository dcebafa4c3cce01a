"""Rows that some database could not hold are refused on all, by name."""

import json

import pytest

from mltraq_ds.errors import UsageError
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import RunRow, name_key
from tests.unit.orm.index_suite import an_experiment, some_runs

validate = Index.validate_rows


@pytest.mark.parametrize(
    "fields",
    [
        {"a": "x\0y"},
        {"a": [1, {"deep": ["x", "\0"]}]},
        {"a\0": 1},
        {"a": "\ud800"},
        {"a": "é\udc00"},
        {"\ud83d": 1},
    ],
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_refused_text(fields, ensure_ascii):
    """NUL and lone surrogates are refused in values and keys, however the JSON text spells them."""
    run = RunRow(id_run="r7", status="finished", fields=json.dumps(fields, ensure_ascii=ensure_ascii))
    with pytest.raises(UsageError, match=r"run 'r7' of experiment 'digits'.*fields\['a|fields\['\\ud83d'\]") as caught:
        validate(an_experiment(), [*some_runs(), run])
    is_key = "the key itself" in str(caught.value)
    assert str(caught.value).endswith("Use another name." if is_key else "where any text is allowed.")


def test_the_path_is_named():
    """The message says where inside the field the text is."""
    run = RunRow(id_run="r", status="s", params=json.dumps({"a": [1, {"deep": ["x", "\0"]}]}))
    with pytest.raises(UsageError, match=r"params\['a'\]\[1\]\['deep'\]\[1\] has a NUL"):
        validate(an_experiment(), [run])
    with pytest.raises(UsageError, match="the key itself"):
        validate(an_experiment(fields=json.dumps({"a": {"\0": 1}})), [])


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": "\\u0000"}),
        json.dumps({"a": "\\\\u0000", "b": "NaN, Infinity", "Infinity": 1}),
        json.dumps({"a": "😀é\n\x01"}),
        json.dumps({"a": "😀é\n\x01"}, ensure_ascii=False),
        "{}",
    ],
)
def test_accepted_text(text):
    """Text that only looks like trouble is accepted."""
    validate(an_experiment(fields=text), [RunRow(id_run="r", status="s", params=text, config=text, fields=text)])


@pytest.mark.parametrize("constant", [float("nan"), float("inf"), float("-inf")])
def test_no_nan(constant):
    """NaN and infinities are no JSON: PostgreSQL would refuse them."""
    with pytest.raises(UsageError, match=r"fields\['a'\]\['b'\] has (NaN|-?Infinity), which is not JSON"):
        validate(an_experiment(fields=json.dumps({"a": {"b": constant}})), [])


@pytest.mark.parametrize("column", ["id_experiment", "name", "folder"])
def test_columns_of_experiments(column):
    """Ids, names and folders are text that every database holds."""
    for text in ("a\0b", "\ud800"):
        remedy = "Use another id" if column == "id_experiment" else "Use another name"
        with pytest.raises(UsageError, match=f"{column} has.*{remedy}"):
            validate(an_experiment(**{column: text}), [])


@pytest.mark.parametrize("column", ["id_run", "status", "exception"])
def test_columns_of_runs(column):
    """Ids, states and tracebacks of runs are text that every database holds."""
    for text in ("a\0b", "\ud800"):
        with pytest.raises(UsageError, match=f"of experiment 'digits'.*{column}"):
            validate(an_experiment(), [RunRow(**{"id_run": "r", "status": "s", column: text})])


def test_long_ids_are_refused():
    """An id too long for an SQL index is refused; a name is not."""
    validate(an_experiment("x" * 500, "y" * 100_000), [])
    with pytest.raises(UsageError, match="501 characters.*500"):
        validate(an_experiment("x" * 501), [])


def test_name_keys_are_injective():
    """Long names have keys of their own, which no short name can imitate."""
    names = ["a", "é" * 100, "é" * 101, "x" * 200, "x" * 201, "x" * 202, name_key("x" * 201), "sha256:"]
    keys = [name_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(len(key) <= 200 for key in keys)
