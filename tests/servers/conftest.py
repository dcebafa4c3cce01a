"""Fixtures of the tests that need a real server."""

import pytest

from tests.fixtures_servers import (
    mariadb_server,
    mariadb_url,
    postgresql_server,
    postgresql_url,
    silent_server,
    unused_port,
)
from tests.fixtures_storages import azurite, gcs, moto, rclone_http, rclone_s3, seaweedfs, sftp

__all__ = [
    "azurite",
    "gcs",
    "mariadb_server",
    "mariadb_url",
    "moto",
    "postgresql_server",
    "postgresql_url",
    "rclone_http",
    "rclone_s3",
    "seaweedfs",
    "sftp",
    "silent_server",
    "unused_port",
]


@pytest.fixture(params=["postgresql", "mariadb"])
def database_url(request):
    """Return the URL of an empty database, on every server that there is."""
    return request.getfixturevalue(f"{request.param}_url")
