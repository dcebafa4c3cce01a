"""Fixtures of the tests that need a real server."""

from tests.fixtures_servers import (
    mariadb_server,
    mariadb_url,
    postgresql_server,
    postgresql_url,
    silent_server,
    unused_port,
)
from tests.fixtures_storages import moto, rclone_http, rclone_s3, seaweedfs

__all__ = [
    "mariadb_server",
    "mariadb_url",
    "moto",
    "postgresql_server",
    "postgresql_url",
    "rclone_http",
    "rclone_s3",
    "seaweedfs",
    "silent_server",
    "unused_port",
]
