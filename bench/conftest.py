"""Benchmarks: each asserts its result too, so that a fast wrong answer does not count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.report import write_report
from bench.rows import select
from bench.runner import Figures, Plan, measure


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "benchmarks of mltraq_ds")
    group.addoption("--full", action="store_true", help="all rows, full sizes, 7 repeats; otherwise a quick subset")
    group.addoption("--rows", default="", help="comma-separated names of rows; by default those of the chosen size")
    group.addoption("--contestants", default="", help="comma-separated; ours and the references always take part")
    group.addoption("--repeats", type=int, default=0, help="rounds; by default 7 with --full and 3 without")
    group.addoption(
        "--results", default="", help="folder for results as JSON, table and plot; '' prints the table only"
    )


def plan_of(config: pytest.Config) -> Plan:
    full = config.getoption("--full")
    return Plan(
        is_full=full,
        repeats=config.getoption("--repeats") or (7 if full else 3),
        contestants=frozenset(filter(None, config.getoption("--contestants").split(","))),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"row", "contestant", "label"} <= set(metafunc.fixturenames):
        plan = plan_of(metafunc.config)
        rows = select(metafunc.config.getoption("--rows"), is_full=plan.is_full)
        cases = [(row, name, label) for row in rows for name in plan.names_of(row) for label in row.labels_of(name)]
        ids = [f"{row.name}-{label}-{name}" for row, name, label in cases]
        metafunc.parametrize(("row", "contestant", "label"), cases, ids=ids, scope="session")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Figures]]:
    """Collect what is measured, by row; report it at the end."""
    found: dict[str, Figures] = {}
    yield found
    results = request.config.getoption("--results")
    text = write_report(list(found.values()), Path(results) if results else None)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line("\n" + text)


@pytest.fixture
def measured(request, row, figures, tmp_path_factory) -> Figures:  # type: ignore[no-untyped-def]
    """Measure all contestants of the row, interleaved, at the first of its tests."""
    if row.name not in figures:
        figures[row.name] = measure(row, plan_of(request.config), tmp_path_factory.mktemp("bench"))
    return figures[row.name]
