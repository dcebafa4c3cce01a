"""Servers for the queries on the pages."""

from tests.fixtures_servers import mariadb_server, mariadb_url, postgresql_server, postgresql_url

__all__ = ["mariadb_server", "mariadb_url", "postgresql_server", "postgresql_url"]
