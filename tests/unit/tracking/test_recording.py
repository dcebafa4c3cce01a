"""The with block of a run: whatever ends it, the run says so, and its store is active no longer."""

import asyncio
import contextlib
import contextvars

import pytest

from mltraq_ds import create_session
from mltraq_ds import place as places
from mltraq_ds.errors import UsageError


@pytest.fixture
def experiment(tmp_path):
    return create_session(url=f"sqlite:///{tmp_path}/x.db", store=tmp_path / "store").create_experiment("e")


@pytest.fixture(autouse=True)
def _nothing_stays_active():
    yield
    assert not places._active
    assert not places.is_executing()


def outcome(experiment):
    return [(run.status, run.finished is not None) for run in experiment.runs.values()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_end_that_is_no_error(experiment, error):
    """It passes on, and the run has failed without an exception of its own."""
    with pytest.raises(error), experiment.run():
        raise error
    assert outcome(experiment) == [("failed", True)]
    assert experiment.runs.first().exception is None


@pytest.mark.parametrize("error", [ValueError, StopIteration, StopAsyncIteration])
def test_an_error(experiment, error):
    """It is kept and passes on, also where a generator would have taken it for its own."""
    with pytest.raises(error), experiment.run():
        raise error("x")
    assert outcome(experiment) == [("failed", True)]
    assert experiment.runs.first().exception.type_name == error.__name__


def test_an_error_that_cannot_be_told(experiment):
    """A class that breaks while its text is made loses nothing of the run."""

    class Broken(Exception):
        @property
        def __notes__(self):
            raise KeyboardInterrupt

    with pytest.raises(BaseException) as caught, experiment.run() as run:
        run.fields.x = 1
        raise Broken
    assert caught.type in (KeyboardInterrupt, Broken)
    assert outcome(experiment) == [("failed", True)]
    assert experiment.persist().reload().runs.first().fields.x == 1


def test_a_type_without_an_error(experiment):
    """Old callers of `__exit__` give the type only."""
    block = experiment.run()
    block.__enter__()
    block.__exit__(ValueError, None, None)
    assert outcome(experiment) == [("failed", True)]


def test_one_block_makes_one_run(experiment):
    """Entered again, within itself or later, it is refused; a block that is under way goes on."""
    block = experiment.run()
    with block as run:
        with pytest.raises(UsageError, match="entered before"), block:
            pass
        assert places.is_executing()
        run.fields.x = 1
    with pytest.raises(UsageError, match="entered before"), block:
        pass
    assert outcome(experiment) == [("success", True)]


def test_nested_blocks_of_two_runs(experiment):
    """Each has its own end."""
    with experiment.run(), contextlib.suppress(ValueError), experiment.run():
        raise ValueError
    assert outcome(experiment) == [("success", True), ("failed", True)]


def test_a_decorator(experiment):
    """As every block of contextlib it decorates functions, and makes a run for each call."""

    @experiment.run()
    def work(number):
        assert places.is_executing()
        return number + 1

    assert [work(1), work(2)] == [2, 3]
    assert outcome(experiment) == [("success", True)] * 2


def test_an_abandoned_block(experiment):
    """Nobody will leave it, so it ends when it is dropped."""
    block = experiment.run()
    run = block.__enter__()
    assert run.status == "running"
    del block
    assert outcome(experiment) == [("failed", True)]


def test_an_abandoned_generator(experiment):
    """A generator that is closed ends the block inside it."""

    def numbers():
        with experiment.run():
            yield from range(3)

    generator = numbers()
    next(generator)
    generator.close()
    assert outcome(experiment) == [("failed", True)]


def test_a_block_that_ends_in_another_context(experiment):
    """An event loop closes an asynchronous generator in a context that is not the one in which it was begun."""

    async def numbers():
        with experiment.run():
            for number in range(3):
                yield number

    async def take_one(generator):
        async for _ in generator:
            break

    async def main():
        generator = numbers()
        await asyncio.create_task(take_one(generator))
        with contextlib.suppress(ValueError):
            await generator.aclose()

    asyncio.run(main())
    assert outcome(experiment) == [("failed", True)]


def test_an_interrupt_while_it_begins(experiment, monkeypatch):
    """Nobody leaves a block that was not entered, so it ends itself."""

    def interrupt(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(places.Active, "__enter__", interrupt)
        with pytest.raises(KeyboardInterrupt), experiment.run():
            pytest.fail("entered")
    assert outcome(experiment) == [("failed", True)]


def test_the_context_is_left_as_it_was(experiment):
    """What the block changes in the context is undone in it."""

    def work():
        with experiment.run():
            assert places.is_executing()
        assert not places.is_executing()

    contextvars.copy_context().run(work)
    assert outcome(experiment) == [("success", True)]
