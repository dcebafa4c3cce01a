"""Claims: whether another writer's claim of a name still holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mltraq_ds.errors import KeyMissingError
from mltraq_ds.objects import Objects
from mltraq_ds.orm.index import Index
from mltraq_ds.orm.rows import NameClaim
from mltraq_ds.store import intents, recovery

__all__ = ["is_alive"]

_FOREIGN = timedelta(days=1)


def is_alive(objects: Objects, index: Index, claim: NameClaim) -> bool:
    """Tell whether a claim holds; the work of a dead claimant is finished first, so that its name is not lost.

    The intent of a claim from another store cannot be asked for; such a claim holds for a day.
    """
    if claim.store_id != index.store_id:
        return claim.claimed_at is not None and datetime.now(UTC) - claim.claimed_at < _FOREIGN
    if claim.claim_intent is None:
        return False
    try:
        intent = intents.read_intent(objects.storage, claim.claim_intent)
    except KeyMissingError:
        return False
    if intents.is_alive(objects.storage, intent):
        return True
    recovery.finish(objects, index, intent)
    return False
