"""Fixtures of the tests that need a real server."""

from tests.fixtures_servers import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]
