"""The scene of the maintenance tests, in a folder and on an object store."""

import uuid

import pytest

from tests.unit.store.upkeep_scene import Scene


@pytest.fixture(params=["folder", "memory"])
def store_url(request, tmp_path):
    """Return where a new store is."""
    return str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def scene(store_url, tmp_path):
    """Return a store with two experiments, on each kind of storage."""
    return Scene(f"sqlite:///{tmp_path}/index.db", store_url)


@pytest.fixture
def local(tmp_path):
    """Return a store with two experiments in a folder."""
    return Scene(f"sqlite:///{tmp_path}/index.db", tmp_path / "store")
