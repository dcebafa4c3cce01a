"""Fixtures of the tests that need a real server."""

from tests.fixtures_servers import postgresql_server, postgresql_url, silent_server, unused_port

__all__ = ["postgresql_server", "postgresql_url", "silent_server", "unused_port"]
