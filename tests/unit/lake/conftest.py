"""Every test starts with a store of its own, and without connections to remotes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lake_scene import Files, build

from mltraq_ds.storage import remote_urls


@pytest.fixture(autouse=True)
def _no_remotes():
    remote_urls.forget_remotes()
    yield
    remote_urls.forget_remotes()


@pytest.fixture
def session(tmp_path):
    return build(tmp_path)


@pytest.fixture
def files(session, tmp_path):
    return Files(tmp_path / "store")


@pytest.fixture
def home(tmp_path):
    return Files(tmp_path / "lake")
