"""Servers for the queries on the pages."""

from tests.fixtures_servers import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]
