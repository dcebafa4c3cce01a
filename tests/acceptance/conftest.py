"""Fixtures of the acceptance tests: real servers, started when a test first asks."""

from tests.fixtures_servers import postgresql_server, postgresql_url

__all__ = ["postgresql_server", "postgresql_url"]
