"""Fixtures of the acceptance tests: real servers, started when a test first asks."""

import pytest

from tests.fixtures_servers import mariadb_server, mariadb_url, postgresql_server, postgresql_url, unused_port
from tests.fixtures_storages import seaweedfs

__all__ = ["mariadb_server", "mariadb_url", "postgresql_server", "postgresql_url", "seaweedfs", "unused_port"]


@pytest.fixture(params=["postgresql", "mariadb"])
def database_url(request):
    """Return the URL of an empty database, on every server that there is."""
    return request.getfixturevalue(f"{request.param}_url")
