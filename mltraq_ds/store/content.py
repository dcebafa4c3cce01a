"""Content: what is written of an experiment and its runs, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.store.texts import is_json_text

__all__ = ["ExperimentContent", "RunContent", "check_content"]

_OPTIONAL = ("started", "finished")


@dataclass(slots=True)
class RunContent:
    """What a record says of a run.

    Parameters
    ----------
    id_run : str
        Id of the run.
    params, config, fields : mapping
        Names and values; before writing with their values, after reading lazy.
    status : str
        ``created``, ``running``, ``success`` or ``failed``.
    exception : dict or None
        Of the step that raised, as text: ``type``, ``message`` (begins with the type) and ``traceback``.
    started, finished : str or None
        ISO 8601.
    about : dict
        What people and tools note of the run beside its values, JSON: ``tags``, ``notes``, ``warnings`` …
    """

    id_run: str
    params: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    status: str = "created"
    exception: dict[str, str] | None = None
    started: str | None = None
    finished: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ExperimentContent:
    """What the records of an experiment say: those of one generation, and the single ones that it has not folded.

    Parameters
    ----------
    id_experiment, name : str
        Of the experiment.
    fields : mapping
        Of the experiment as a whole.
    runs : list of RunContent
        In order.
    created : str or None
        ISO 8601.
    folds : tuple of str
        Put ids of the single records that it contains.
    """

    id_experiment: str
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    runs: list[RunContent] = field(default_factory=list)
    created: str | None = None
    folds: tuple[str, ...] = ()


def check_content(content: ExperimentContent) -> None:
    """Refuse what a record could not hold, so that nothing is written that no reader would accept.

    Raises
    ------
    UsageError
        If a text is none, or has no exact form in JSON, or two runs have one id.
    """
    label = f"experiment {content.name!a:.200}"
    _require_text(content.id_experiment, f"id of the {label}")
    _require_text(content.name, f"name of the {label}")
    seen = set()
    for run in content.runs:
        # A thousand runs are a common case, and their texts are seldom wrong.
        for what in ("id_run", "status", "started", "finished"):
            text = getattr(run, what)
            if not (type(text) is str and text.isascii()) and not (text is None and what in _OPTIONAL):
                _require_text(text, f"{what} of run {run.id_run!a:.80} of the {label}")
        if type(run.about) is not dict or run.about:
            _require_json(run.about, f"run {run.id_run!a:.80} of the {label}")
        if run.id_run in seen:
            raise UsageError(
                f"The {label} cannot be persisted because two of its runs have the id {run.id_run!r}, and one of them "
                "would be lost. Give each an id of its own."
            )
        seen.add(run.id_run)


def _require_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise UsageError(f"The {what} is of type {type(text).__name__}, not str. Use str(...).")
    if not is_json_text(text):
        raise UsageError(
            f"The {what} cannot be persisted because its surrogates form a pair, which JSON reads as one character. "
            "Use that character."
        )


def _require_json(about: object, what: str) -> None:
    try:
        is_json = type(about) is dict and json.loads(json.dumps(about, allow_nan=False)) == about
    except (TypeError, ValueError, RecursionError):
        is_json = False
    if not is_json:
        raise UsageError(f"What 'about' says of {what} is no JSON object. Keep anything else among its fields.")
