"""Structured values of any size as tagged JSON: what derived metrics, results and manifests hold."""

from __future__ import annotations

from typing import Any

from mltraq_ds.errors import TooDeepError, UnsupportedTypeError
from mltraq_ds.reference import Reference
from mltraq_ds.store.tagged import NotInline, restore, tag
from mltraq_ds.store.texts import is_json_text

__all__ = ["MAX_DEPTH", "SCALAR_TAGS", "is_scalar", "read_values", "tag_values"]

MAX_DEPTH = 100
#: Tags of values that are one thing: what a metric may be beside JSON's own scalars.
SCALAR_TAGS = frozenset(
    ("$float", "$numpy", "$complex", "$datetime", "$date", "$time", "$timedelta", "$uuid", "$decimal", "$fraction")
)


def is_scalar(tagged: Any) -> bool:
    """Tell whether tagged JSON is a scalar, which a run record shows as a metric.

    Examples
    --------
    >>> is_scalar(0.5), is_scalar({"$float": "NaN"}), is_scalar([0.5]), is_scalar({"$ref": []})
    (True, True, False, False)
    """
    if isinstance(tagged, dict):
        return next(iter(tagged), "") in SCALAR_TAGS
    return not isinstance(tagged, list)


def tag_values(value: Any, where: str, depth: int = 0) -> Any:
    """Return the tagged JSON of a structured value, however long its lists are.

    Raises
    ------
    UnsupportedTypeError, TooDeepError
        If something in it is no small value, or it is nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise TooDeepError(f"{where} is nested deeper than {MAX_DEPTH}, or contains itself. Keep it as an artifact.")
    kind = type(value)
    if kind is list:
        return [tag_values(item, where, depth + 1) for item in value]
    if kind is tuple:
        return {"$tuple": [tag_values(item, where, depth + 1) for item in value]}
    if isinstance(value, dict):
        if all(type(key) is str and not key.startswith("$") and is_json_text(key) for key in value):
            return {key: tag_values(item, where, depth + 1) for key, item in value.items()}
        pairs = [(key, item) for key, item in value.items()]
        return {"$dict": [[tag_values(one, where, depth + 1) for one in pair] for pair in pairs]}
    if kind is str and is_json_text(value):
        return value
    try:
        return tag(value)
    except NotInline as error:
        raise UnsupportedTypeError(
            f"{where} cannot be kept because a value of type {kind.__name__} has no form in JSON. Use put_artifact() "
            "with its bytes, or a DataStore on a run."
        ) from error


def read_values(tagged: Any) -> Any:
    """Return the value of tagged JSON that holds no reference; it comes from a file and is not trusted.

    Raises
    ------
    CorruptRecordError
        If a tag is unknown, a reference, or not of its form.
    """
    return restore(tagged, _refuse)


def _refuse(reference: Reference, beside: dict[str, Any]) -> Any:
    raise ValueError(f"{reference.key} is a reference")
