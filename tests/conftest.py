"""What all tests share: options and ids start afresh, and Hypothesis is quick here and thorough in the soak."""

import os

import pytest
from hypothesis import HealthCheck, settings

from mltraq_ds import ids, options

settings.register_profile("quick", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("MLTRAQ_DS_TEST_PROFILE", "quick"))

# Options of whoever runs the tests.
for _name in [name for name in os.environ if name.startswith("MLTRAQ_DS_") and "_TEST_" not in name]:
    del os.environ[_name]


#: They run the same code ten thousand times over, which takes three times as long while coverage is measured.
_NOT_MEASURED = ("concurrency", "crash", "model")


def pytest_collection_modifyitems(config, items):
    """Leave the repetitive tests out of the coverage, themselves and the processes that they start."""
    measuring = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
    # With --no-cov there is nothing to pause, and pytest-cov does not look.
    for item in items if measuring is not None else ():
        if item.path.parent.name in _NOT_MEASURED:
            item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def _children_as_measured(request, monkeypatch):
    """Have processes that a test starts measured only if it is."""
    if request.node.get_closest_marker("no_cover"):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(autouse=True)
def _fresh_globals():
    """Reset the only process-wide state there is: options that were set, and the sequence of ids."""
    options.reset()
    ids.next_uuid(seed=ids.FIRST_SEQUENTIAL_UUID.int - 2)
    yield
    options.reset()
