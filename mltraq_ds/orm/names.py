"""Names: unique per index.  A row says who has a name and who is at work on it.

A writer claims its name before it writes anything (`claim`), and the transaction that writes its rows turns the claim
into ownership (`settle`).  A replacing writer leaves the owner in place until then.  Claims of dead writers are void;
whether a writer is alive is a question for the store's files, so it is asked outside of any transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from mltraq_ds.errors import ConcurrentPersistError, ExperimentExistsError
from mltraq_ds.orm.column_types import read_time
from mltraq_ds.orm.prepared import Prepared, insert
from mltraq_ds.orm.rows import NameClaim, name_key
from mltraq_ds.orm.tables import names

__all__ = ["claim", "find", "free", "give", "release", "try_claim", "void_claims"]

_KEY = names.c.name_key == sa.bindparam("key")
_OWNED = (names.c.store_id == sa.bindparam("of_store")) & (names.c.id_experiment == sa.bindparam("owner"))
_CLAIMED = (names.c.store_id == sa.bindparam("of_store")) & (names.c.claimed_by == sa.bindparam("claimer"))
_UNCLAIMED: dict[str, None] = {"claimed_by": None, "claim_intent": None, "claimed_at": None}

_SELECT = sa.select(
    names.c.name,
    names.c.store_id,
    names.c.id_experiment,
    names.c.claimed_by,
    names.c.claim_intent,
    names.c.claimed_at,
).where(_KEY)
_FIND = Prepared(
    _SELECT,
    "SELECT mltraq_names.name, mltraq_names.store_id, mltraq_names.id_experiment, mltraq_names.claimed_by, "
    "mltraq_names.claim_intent, mltraq_names.claimed_at FROM mltraq_names WHERE mltraq_names.name_key = :key",
)
_FIND_LOCKED = Prepared(_SELECT.with_for_update(), _FIND.text)  # whoever writes to SQLite has locked all of it
_INSERT = insert(names)
_UPDATE = names.update().where(_KEY)
_SETTLE = Prepared(
    names.update().where(_KEY),
    "UPDATE mltraq_names SET store_id=:store_id, id_experiment=:id_experiment, claimed_by=:claimed_by, "
    "claim_intent=:claim_intent, claimed_at=:claimed_at WHERE mltraq_names.name_key = :key",
    ["store_id", "id_experiment", "claimed_by", "claim_intent", "claimed_at"],
)
_DELETE = names.delete().where(_KEY)
_DELETE_OWNED = names.delete().where(_OWNED, names.c.claim_intent.is_(None))
_DISOWN = names.update().where(_OWNED).values(id_experiment=None)
_DELETE_CLAIMED = names.delete().where(_CLAIMED, names.c.id_experiment.is_(None))
_VOID = names.update().where(_CLAIMED).values(_UNCLAIMED)


def find(connection: Connection, name: str, *, lock: bool = False) -> NameClaim | None:
    """Return the row of a name; with `lock` nobody else changes it until the transaction ends."""
    row = (_FIND_LOCKED if lock else _FIND).run(connection, {"key": name_key(name)}).one_or_none()
    if row is None:
        return None
    columns = row._asdict()
    return NameClaim(**{**columns, "claimed_at": read_time(columns["claimed_at"])})


def try_claim(
    connection: Connection, wanted: NameClaim, replacing: str | None, dead: NameClaim | None
) -> NameClaim | None:
    """Write the claim `wanted`, or return the claim that is in the way (unless it equals `dead`).

    Raises
    ------
    ExperimentExistsError
        If another experiment than `replacing` has the name.
    """
    met = find(connection, wanted.name, lock=True)
    values = {
        "store_id": wanted.store_id,
        "claimed_by": wanted.claimed_by,
        "claim_intent": wanted.claim_intent,
        "claimed_at": datetime.now(UTC),
    }
    if met is None:
        row = {**values, "id_experiment": None, "name_key": name_key(wanted.name), "name": wanted.name}
        _INSERT.run(connection, row)
        return None
    if met.id_experiment is not None:
        _refuse_other_owner(met, wanted, replacing)
    if met.claim_intent not in (None, wanted.claim_intent) and met != dead:
        return met
    connection.execute(_UPDATE, {**values, "key": name_key(wanted.name)})
    return None


def _refuse_other_owner(met: NameClaim, wanted: NameClaim, replacing: str | None) -> None:
    if met.store_id != wanted.store_id:
        raise ExperimentExistsError(
            f"The name {met.name!r} is taken by experiment {met.id_experiment!r} of another store ({met.store_id}) in "
            "the same database, where names are unique. Choose another name, or use one database for each store."
        )
    if met.id_experiment not in (wanted.claimed_by, replacing):
        raise ExperimentExistsError(
            f"The name {met.name!r} is taken by experiment {met.id_experiment!r}. Choose another name, or pass "
            "if_exists='replace' to take its place, or load that experiment and persist it with if_exists='update'."
        )


def claim(attempt: Callable[[NameClaim | None], NameClaim | None], is_alive: Callable[[NameClaim], bool]) -> None:
    """Repeat `attempt`, a transaction around `try_claim`, until the name is ours or a living writer's.

    Raises
    ------
    ConcurrentPersistError
        If `is_alive` says so of the claim in the way.
    """
    dead: NameClaim | None = None
    living: NameClaim | None = None
    # Each turn wins or meets a claim that was not there before, so it ends when no new writer comes.
    while (met := attempt(dead)) is not None:
        if met == living:
            raise ConcurrentPersistError(
                f"The name {met.name!r} is being persisted by another writer (experiment {met.claimed_by!r}, intent "
                f"{met.claim_intent!r}, since {met.claimed_at:%Y-%m-%d %H:%M:%S} UTC). Wait until it has finished, "
                "then load its work or choose another name; nothing was changed."
            )
        # Once more after "alive": finding out may have finished the work of a dead writer and freed the name.
        dead, living = (None, met) if is_alive(met) else (met, None)


def release(connection: Connection, name: str, intent: str) -> None:
    """Give up a claim; the owner, if any, keeps the name."""
    met = find(connection, name, lock=True)
    if met is None or met.claim_intent != intent:
        return
    if met.id_experiment is None:
        connection.execute(_DELETE, {"key": name_key(name)})
    else:
        connection.execute(_UPDATE, {**_UNCLAIMED, "key": name_key(name)})


def give(connection: Connection, met: NameClaim | None, name: str, store_id: str, owner: str, *, holds: bool) -> None:
    """Make `owner` the owner of a name whose row is `met`; with `holds` the claim in it is its own and ends.

    A name that another experiment has stays there: two experiments of one name exist then, and loading by it is
    ambiguous.
    """
    values: dict[str, object] = {"store_id": store_id, "id_experiment": owner}
    if met is None:
        _INSERT.run(connection, {**values, **_UNCLAIMED, "name_key": name_key(name), "name": name})
    elif holds:
        _SETTLE.run(connection, {**values, **_UNCLAIMED, "key": name_key(name)})
    elif met.id_experiment is None and met.store_id == store_id:
        connection.execute(_UPDATE, {**values, "key": name_key(name)})


def free(connection: Connection, store_id: str, owner: str) -> None:
    """Take all names from an experiment; claims of others on them stay."""
    connection.execute(_DELETE_OWNED, {"of_store": store_id, "owner": owner})
    connection.execute(_DISOWN, {"of_store": store_id, "owner": owner})


def void_claims(connection: Connection, store_id: str, claimer: str) -> None:
    """Void all claims by writers of an experiment."""
    connection.execute(_DELETE_CLAIMED, {"of_store": store_id, "claimer": claimer})
    connection.execute(_VOID, {"of_store": store_id, "claimer": claimer})
