"""Real storages from pip packages, each started when a test first asks and stopped at the end."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest

KEY, SECRET = "AK123", "SK12345678"


@dataclass(frozen=True)
class Server:
    """Where a service is, and how fsspec is told."""

    port: int
    options: dict = field(default_factory=dict)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"


def s3_options(port, **more):
    """Return the options for a service that speaks S3 on a port."""
    options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}"}
    return {**options, "client_kwargs": {"region_name": "us-east-1"}, **more}


def free_ports(count, *, further=0):
    """Return ports on which nobody listens, nor on those `further` above them."""
    found = []
    while len(found) < count:
        with contextlib.ExitStack() as stack:
            sockets = []
            with contextlib.suppress(OSError, OverflowError):
                first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                sockets.append(first.getsockname()[1])
                if further:
                    stack.enter_context(socket.create_server(("127.0.0.1", sockets[0] + further)))
                if sockets[0] + further < 2**16 and sockets[0] not in found:
                    found.append(sockets[0])
    return found


def program(name):
    """Return the path of a program that pip has installed, or skip."""
    path = Path(sysconfig.get_path("scripts")) / name
    found = str(path) if path.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: pip install 'mltraq-ds[servers]'")
    return found


@contextlib.contextmanager
def running(command, folder, answers, **environment):
    """Run a server until the context ends; `answers` tells when it is ready."""
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    try:
        ends = time.monotonic() + 60
        while not answers():
            if process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"{command[0]} did not start:\n{(folder / 'log.txt').read_text()[-3000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def http_answers(url):
    """Tell whether anything answers HTTP at a URL, an error too."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


def _listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _takes_objects(options):
    """Tell whether an S3 service stores something: it may listen long before."""
    import s3fs

    filesystem = s3fs.S3FileSystem(**options, skip_instance_cache=True, config_kwargs={"retries": {"max_attempts": 0}})
    filesystem.retries = 1
    try:
        filesystem.pipe_file("mltraq/ready", b"1")
        return filesystem.cat_file("mltraq/ready") == b"1"
    except Exception:  # noqa: BLE001 - whatever it is, it is not ready
        return False


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    """Start SeaweedFS, a true S3 service: it looks at credentials, checksums and conditions."""
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("seaweedfs")
    s3, master, volume, filer, admin = free_ports(5, further=10_000)
    options = s3_options(s3)
    command = [program("weed"), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-bucket=mltraq"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-admin.port={admin}"]
    command += ["-master.telemetry=false"]

    def answers():
        return _listens(s3) and _takes_objects(options)

    with running(command, folder, answers, AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=SECRET):
        yield Server(s3, options)


@pytest.fixture(scope="session")
def moto(tmp_path_factory):
    """Start moto, which speaks S3 and looks at neither signatures nor checksums."""
    s3fs = pytest.importorskip("s3fs")
    (port,) = free_ports(1)
    command = [sys.executable, "-W", "ignore", program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    server = Server(port, s3_options(port))
    with running(command, tmp_path_factory.mktemp("moto"), lambda: http_answers(server.url)):
        s3fs.S3FileSystem(**server.options, skip_instance_cache=True).call_s3("create_bucket", Bucket="mltraq")
        yield server


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory):
    """Start rclone's S3, which answers "done" to a conditional write and overwrites."""
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("rclone-s3")
    (folder / "data" / "mltraq").mkdir(parents=True)
    (port,) = free_ports(1)
    server = Server(port, s3_options(port))
    command = [program("rclone"), "serve", "s3", "data", f"--addr=127.0.0.1:{port}", f"--auth-key={KEY},{SECRET}"]
    with running([*command, "--config", os.devnull], folder, lambda: http_answers(server.url)):
        yield server


@pytest.fixture(scope="session")
def rclone_http(tmp_path_factory):
    """Start rclone's HTTP server, read-only and with ranges; return it and the folder that it serves."""
    pytest.importorskip("aiohttp")
    folder = tmp_path_factory.mktemp("rclone-http")
    (folder / "data").mkdir()
    (port,) = free_ports(1)
    server = Server(port)
    command = [program("rclone"), "serve", "http", "data", f"--addr=127.0.0.1:{port}", "--config", os.devnull]
    with running([*command, "--dir-cache-time=0s"], folder, lambda: http_answers(server.url)):
        yield server, folder / "data"


@pytest.fixture(scope="session")
def sftp(tmp_path_factory):
    """Start an SFTP server; return it and the folder that it serves."""
    pytest.importorskip("asyncssh")
    pytest.importorskip("paramiko")
    folder = tmp_path_factory.mktemp("sftp")
    (folder / "data").mkdir()
    (port,) = free_ports(1)
    script = Path(__file__).with_name("servers") / "sftp_server.py"
    command = [sys.executable, str(script), str(port), str(folder / "data"), "ada", SECRET]
    options = {"username": "ada", "password": SECRET, "port": port, "look_for_keys": False, "allow_agent": False}
    with running(command, folder, lambda: _listens(port)):
        yield Server(port, options), folder / "data"


@pytest.fixture(scope="session")
def azurite(tmp_path_factory):
    """Start Azurite, which npm installs: on the path, or where MLTRAQ_DS_TEST_AZURITE says."""
    adlfs = pytest.importorskip("adlfs")
    command = os.environ.get("MLTRAQ_DS_TEST_AZURITE") or shutil.which("azurite-blob")
    if command is None:
        pytest.skip("Azurite is not installed: npm install -g azurite, or name it in MLTRAQ_DS_TEST_AZURITE")
    folder = tmp_path_factory.mktemp("azurite")
    (port,) = free_ports(1)
    # The account and key that every Azurite has; they are in its documentation.
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    server = Server(port)
    place = f"BlobEndpoint={server.url}/devstoreaccount1;"
    text = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};{place}"
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder), "--silent"]
    arguments += ["--skipApiVersionCheck", "--disableTelemetry"]
    with running([command, *arguments], folder, lambda: http_answers(server.url)):
        options = {"connection_string": text}
        adlfs.AzureBlobFileSystem(**options, skip_instance_cache=True).mkdir("mltraq")
        yield Server(port, options)


@pytest.fixture(scope="session")
def gcs(tmp_path_factory):
    """Start the emulator of Google Cloud Storage, which overwrites whatever the condition."""
    (port,) = free_ports(1)
    server = Server(port, {"endpoint_url": f"http://127.0.0.1:{port}", "token": "anon", "project": "test"})
    command = [program("gcp-storage-emulator"), "start", "--host", "127.0.0.1", "--port", str(port), "--in-memory"]
    with pytest.MonkeyPatch.context() as patch:
        # Read when it is imported: it would ask Google of what kind the bucket is.
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        gcsfs = pytest.importorskip("gcsfs")
        with running(command, tmp_path_factory.mktemp("gcs"), lambda: http_answers(server.url)):
            gcsfs.GCSFileSystem(**server.options, skip_instance_cache=True).mkdir("mltraq")
            yield server
