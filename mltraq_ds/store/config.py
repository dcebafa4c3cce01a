"""StoreConfig: where a store is, as a value.  It is made, changed, written down and sent before anything is opened."""

from __future__ import annotations

import difflib
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from importlib.metadata import entry_points
from typing import Any, ClassVar, Self

from mltraq_ds.errors import UsageError
from mltraq_ds.store.locator_parts import LocatorInfo, check_id
from mltraq_ds.store.secrets import hide, is_reference, names_of_secrets, refer, resolve

__all__ = ["ConfigRegistry", "StoreConfig"]

_GROUP = "mltraq_ds.stores"
_SCHEME = re.compile(r"[a-z][a-z0-9.-]*")

# Our own kinds are found as those of plug-ins are, by module and class, so that files need no SQL.
_OWN = {
    "file": "mltraq_ds.store.file_config:FileStoreConfig",
    "mariadb": "mltraq_ds.store.indexed_config:MysqlStoreConfig",
    "mysql": "mltraq_ds.store.indexed_config:MysqlStoreConfig",
    "postgres": "mltraq_ds.store.indexed_config:PostgresStoreConfig",
    "postgresql": "mltraq_ds.store.indexed_config:PostgresStoreConfig",
    "sqlite": "mltraq_ds.store.indexed_config:SqliteStoreConfig",
}

_registered: dict[str, type[StoreConfig]] = {}


class ConfigRegistry:
    """Which class of configuration each scheme of a locator means."""

    @staticmethod
    def register(config_class: type[StoreConfig]) -> None:
        """Add a class under its `scheme`; called when the body of a class is executed.

        Raises
        ------
        UsageError
            If the scheme is none, or another class has it.
        """
        scheme = config_class.scheme
        if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
            raise UsageError(
                f"{config_class.__qualname__}.scheme is {scheme!r}, which cannot begin a URL. Use lower-case letters, "
                "digits, '.' and '-'."
            )
        known = _registered.get(scheme)
        own = _OWN.get(scheme, _full_name(config_class))
        # The same class once more: its cell in a notebook was executed again.
        if own != _full_name(config_class) or (known and _full_name(known) != _full_name(config_class)):
            raise UsageError(
                f"{config_class.__qualname__} cannot have the scheme {scheme!r} because "
                f"{_full_name(known) if known else own} has it. Use another scheme."
            )
        _registered[scheme] = config_class

    @staticmethod
    def get(scheme: str) -> type[StoreConfig] | None:
        """Return the class for a scheme (what follows a ``+`` is a driver and does not count), or None.

        Raises
        ------
        UsageError
            If a plug-in has this scheme and cannot be loaded; the text names it.
        """
        name = scheme.partition("+")[0]
        if name in _registered:
            return _registered[name]
        if name in _OWN:
            module, _, attribute = _OWN[name].partition(":")
            found: type[StoreConfig] = getattr(importlib.import_module(module), attribute)
            return found
        for entry in entry_points(group=_GROUP, name=name):
            return _load(entry, name)
        return None

    @staticmethod
    def schemes() -> list[str]:
        """Return all schemes, those of plug-ins included, without loading any."""
        return sorted({*_registered, *_OWN, *(entry.name for entry in entry_points(group=_GROUP))})


def _load(entry: Any, scheme: str) -> type[StoreConfig]:
    plug_in = f"{entry.name} = {entry.value}"
    try:
        found = entry.load()
    except Exception as error:  # a plug-in's code may raise anything; it is told which one it was
        raise UsageError(
            f"The scheme {scheme!r} cannot be used because its plug-in '{plug_in}' (entry point {_GROUP}) cannot be "
            f"loaded: {type(error).__name__}: {error}. Repair or uninstall it."
        ) from error
    if not (isinstance(found, type) and issubclass(found, StoreConfig)):
        raise UsageError(
            f"The scheme {scheme!r} cannot be used because its plug-in '{plug_in}' (entry point {_GROUP}) is not a "
            "subclass of StoreConfig. Repair or uninstall it."
        )
    return found


def _full_name(config_class: type[StoreConfig]) -> str:
    return f"{config_class.__module__}:{config_class.__qualname__}"


@dataclass(frozen=True, kw_only=True)
class StoreConfig(ABC):
    """Where a store is; connecting gives the store.

    Subclasses are frozen, keyword-only dataclasses with a `scheme`, under which they register themselves.  They are
    compared by value, and pickle as long as they hold no secret.  ``env:NAME`` in place of a secret is a reference: it
    is looked up when the store is connected, and may be pickled and written down.

    Parameters
    ----------
    experiment_id : str, optional
        The experiment that the store is scoped to; without it, it is a *collection* of experiments.
    """

    scheme: ClassVar[str]
    experiment_id: str | None = None

    def __post_init__(self) -> None:
        if self.experiment_id is not None:
            check_id(self.experiment_id)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__repr__" not in cls.__dict__:
            # `dataclass` leaves what is there; without this it would write one that shows secrets.
            cls.__repr__ = StoreConfig.__repr__  # type: ignore[method-assign]
        if "scheme" in cls.__dict__:
            ConfigRegistry.register(cls)

    @abstractmethod
    def connect(self) -> Any:
        """Return the store.  Nothing is made before it is written to."""

    @classmethod
    @abstractmethod
    def from_locator(cls, info: LocatorInfo, **kwargs: Any) -> Self:
        """Return the configuration that a locator means; `kwargs` are further fields."""

    @property
    def is_scoped(self) -> bool:
        """Whether it is the store of one experiment."""
        return self.experiment_id is not None

    def scoped(self, experiment_id: str) -> Self:
        """Return the same store, scoped to one experiment.

        Raises
        ------
        UsageError
            If it is scoped to another one already.
        """
        check_id(experiment_id)
        if self.experiment_id not in (None, experiment_id):
            raise UsageError(
                f"The store cannot be scoped to {experiment_id!r} because it is scoped to {self.experiment_id!r}. "
                "Start from the collection."
            )
        return replace(self, experiment_id=experiment_id)

    def for_experiment(self, experiment_id: str) -> Self:
        """Return the store of one experiment of this collection."""
        self._require_collection("for_experiment()")
        return self.scoped(experiment_id)

    def list_experiments(self) -> list[str]:
        """Return the ids of the experiments in this collection, sorted.

        Raises
        ------
        UsageError
            If it is scoped to one, or this kind of store cannot list them.
        """
        self._require_collection("list_experiments()")
        listing = getattr(self.connect(), "list_experiments", None)
        if listing is None:
            raise UsageError(f"A store of the scheme {self.scheme!r} cannot list its experiments.")
        return sorted(listing())

    def _require_collection(self, what: str) -> None:
        if self.is_scoped:
            raise UsageError(
                f"{what} needs a collection, and this store is scoped to {self.experiment_id!r}. Leave out "
                "experiment_id."
            )

    def to_dict(self, secrets: str | Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what `from_dict` takes; fields that are None and need not be there are left out.

        Parameters
        ----------
        secrets : str or mapping, optional
            ``env:NAME`` to put in place of the one secret, or the place of each secret to such a reference.  Secrets
            without one are hidden (``***``), and then the configuration cannot be connected.
        """
        references = self._references(secrets)
        document = {
            one.name: refer(one.name, getattr(self, one.name), references)
            for one in self._fields()
            if one.name == "experiment_id" or one.default is not None or getattr(self, one.name) is not None
        }
        return {**document, "_type": self.scheme}

    def _references(self, secrets: str | Mapping[str, str] | None) -> Mapping[str, str]:
        found = self.secrets()
        if isinstance(secrets, str):
            if len(found) > 1:
                raise UsageError(
                    f"One reference cannot stand for the secrets {', '.join(found)}. Give a reference for each: "
                    f"secrets={{{found[0]!r}: {secrets!r}, …}}."
                )
            secrets = dict.fromkeys(found, secrets)
        for where, reference in (secrets or {}).items():
            if not is_reference(reference) or where not in found:
                raise UsageError(
                    f"secrets={{{where!r}: …}} is refused: it names the place of a secret (here {found or 'none'}) and "
                    "a reference such as 'env:NAME'."
                )
        return secrets or {}

    def _fields(self) -> list[Field[Any]]:
        """Return the fields, the scope last."""
        return sorted(fields(self), key=lambda one: one.name == "experiment_id")

    def secrets(self) -> list[str]:
        """Return where in the fields there are secrets; references are none."""
        return [where for one in fields(self) for where in names_of_secrets(one.name, getattr(self, one.name))]

    def resolved(self, name: str) -> Any:
        """Return the value of a field with what its references name; for `connect` only, since it may be a secret."""
        return resolve(name, getattr(self, name))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the configuration that `to_dict` was called on.

        Raises
        ------
        UsageError
            If `_type` is missing or unknown, or a field is unknown or missing.
        """
        if not isinstance(data, Mapping):
            raise UsageError(f"from_dict() takes what to_dict() gives, a dictionary, not a {type(data).__name__}.")
        kind = data.get("_type")
        found = ConfigRegistry.get(kind) if isinstance(kind, str) else None
        if found is None or not issubclass(found, cls):
            near = _nearest(str(kind), ConfigRegistry.schemes())
            raise UsageError(f"No {cls.__name__} has the _type {kind!r}.{near} Known are {ConfigRegistry.schemes()}.")
        return found.from_fields({name: value for name, value in data.items() if name != "_type"})

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return a configuration with these fields, naming what is unknown or missing."""
        known = {one.name: one for one in fields(cls)}
        for name in values:
            if name not in known:
                near = _nearest(str(name), list(known))
                raise UsageError(f"{cls.__name__} has no field {name!r}.{near} Known are {', '.join(known)}.")
        for one in known.values():
            if one.name not in values and _is_required(one):
                raise UsageError(f"{cls.__name__} needs {one.name!r}. Pass {one.name}=…")
        return cls(**values)

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.name}={hide(one.name, getattr(self, one.name))!r}" for one in self._fields())
        return f"{type(self).__qualname__}({shown})"

    def __getstate__(self) -> dict[str, Any]:
        found = self.secrets()
        if found:
            raise UsageError(
                f"The configuration cannot be pickled because it holds secrets ({', '.join(found)}), which would be "
                "written with it. Put a reference such as 'env:NAME' in their place, or leave them to the provider's "
                "own configuration."
            )
        return dict(self.__dict__)

    def __deepcopy__(self, memo: object) -> Self:
        return self  # a value


def _is_required(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
