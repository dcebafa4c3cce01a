"""What several rows share: sessions of ours and of MLtraq in the folder of the contestant."""

from __future__ import annotations

from typing import Any

from bench.work import Work

__all__ = ["mltraq_session", "session", "warm_session"]


def session(work: Work, *, is_durable: bool = True, verify: str = "crc") -> Any:
    """Return a session of ours; nothing is made yet."""
    from mltraq_ds import create_session, options

    options.set("datastore.durability", "full" if is_durable else "relaxed")
    options.set("datastore.verify", verify)
    return create_session(url=f"sqlite:///{work.path('index.db')}", store=work.path("store"))


def warm_session(work: Work, *, is_durable: bool = True) -> Any:
    """Return a session whose store and database exist, and what it imports: what they cost is a row of its own."""
    from mltraq_ds import DataStore

    ours = session(work, is_durable=is_durable)
    first = ours.create_experiment("first")
    with first.run() as run:
        run.fields.value = 1.0
        run.fields.ds = DataStore(value=[1.0])
    first.persist()
    return ours


def mltraq_session(work: Work) -> Any:
    """Return a session of MLtraq with a database in a file; its data store is in the working directory."""
    from mltraq import create_session, options

    options().set("tqdm.disable", True)
    return create_session(f"sqlite:///{work.path('mltraq.db')}")
