"""Resolved options: the value that is passed down, and sent to workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mltraq_ds.errors import UsageError
from mltraq_ds.option_layer import Layer
from mltraq_ds.option_table import OPTIONS, canonical, copied, has_secret, shown, unknown, validated

__all__ = ["OUTSIDE", "Settings", "select"]

#: Layers that each process reads for itself.
OUTSIDE = ("environment", "file")


def select(values: Mapping[str, object], path: str) -> Any:
    """Return the value of an option, or a nested dictionary for a group."""
    if path in values:
        return copied(values[path])
    group: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith(f"{path}."):
            *parents, last = name[len(path) + 1 :].split(".")
            level = group
            for parent in parents:
                level = level.setdefault(parent, {})
            level[last] = copied(value)
    if not group:
        raise unknown(path)
    return group


class Settings(Mapping[str, Any]):
    """All options, resolved: an immutable mapping of dotted name to value, which may be sent to workers.

    Values that may hold a secret stay behind when it is pickled.  On the other side `Options.given` takes them from
    environment and file, if they were from there; otherwise asking for them is an error.

    Examples
    --------
    >>> Settings({"execution.n_jobs": 2})["execution.n_jobs"]
    2
    """

    __slots__ = ("_origins", "_values", "missing")
    _values: dict[str, object]
    _origins: dict[str, tuple[str, object]]
    #: Names of options that were left behind.
    missing: frozenset[str]

    def __init__(
        self,
        values: Mapping[str, object],
        origins: Mapping[str, tuple[str, object]] | None = None,
        missing: frozenset[str] = frozenset(),
    ) -> None:
        resolved = {name: option.default for name, option in OPTIONS.items() if name not in missing}
        resolved.update({canonical(name): validated(name, value) for name, value in values.items()})
        object.__setattr__(self, "_values", resolved)
        object.__setattr__(self, "_origins", dict(origins or {}))
        object.__setattr__(self, "missing", missing)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            "Settings cannot be changed. Use options.set(...) or options.ctx({...}), or resolve again."
        )

    def __getitem__(self, path: str) -> Any:
        name = canonical(path)
        if name in self.missing:
            raise UsageError(
                f"Option {name!r} is not known in this process because its value may hold a secret, and those are not "
                "sent to workers. Set it in the environment or a configuration file, or use n_jobs=1."
            )
        return select(self._values, name)

    def __contains__(self, path: object) -> bool:
        return canonical(path) in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def origin(self, path: str) -> str:
        """Return where the value of an option is from: a layer, and the variable, or the file and line."""
        layer, place = self._origins.get(canonical(path), ("default", ""))
        return f"{layer} {place}" if place else layer

    def over(self, layers: Sequence[Layer]) -> Settings:
        """Return settings in which `layers`, the strongest first, have the say, and these where they say nothing."""
        values, origins, missing = dict(self._values), dict(self._origins), self.missing
        for layer in reversed(layers):
            values.update(layer.values)
            origins.update({name: (layer.name, layer.places.get(name, "")) for name in layer.values})
            missing = missing - layer.values.keys()
        return Settings(values, origins, missing)

    def arrived(self, outside: Mapping[str, object]) -> Settings:
        """Return these settings with what was left behind, where it was from `outside`: environment and file."""
        again = {name: outside[name] for name in self.missing & outside.keys() if self._origins[name][0] in OUTSIDE}
        return Settings({**self._values, **again}, self._origins, self.missing - again.keys()) if again else self

    def __reduce__(self) -> tuple[type[Settings], tuple[object, ...]]:
        secret = {name for name, value in self._values.items() if has_secret(name, value)}
        kept = {name: value for name, value in self._values.items() if name not in secret}
        # A place may hold the text of a file, secrets and all.
        origins = {name: (layer, str(place)) for name, (layer, place) in self._origins.items()}
        return type(self), (kept, origins, self.missing | secret)

    def __repr__(self) -> str:
        texts = [f"{name}={shown(OPTIONS[name], value)}" for name, value in self._values.items()]
        return f"Settings({', '.join(texts)})"
