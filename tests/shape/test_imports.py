"""Nothing happens at import: no file, thread, connection or environment variable, and nothing heavy is loaded."""

import json
import os
import subprocess
import sys

import pytest

# Runs in a process of its own; prints what importing the named modules did.
SCRIPT = """
import json, os, pkgutil, sys, threading
before, seen, active = dict(os.environ), [], [True]
WATCHED = ("os.mkdir", "os.rename", "os.remove", "os.putenv", "os.unsetenv", "socket.connect", "socket.bind",
           "sqlite3.connect", "subprocess.Popen", "os.fork", "os.posix_spawn", "shutil.rmtree", "os.chmod", "os.link")
def watch(event, args):
    if active[0]:
        if event in WATCHED:
            seen.append(f"{event} {args!r}")
        elif event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            seen.append(f"{event} {args!r}")
import importlib
loaded = set(sys.modules)
if sys.argv[1] == "package":
    sys.addaudithook(watch)
    import mltraq_ds
else:
    import mltraq_ds
    for info in pkgutil.walk_packages(mltraq_ds.__path__, "mltraq_ds."):
        if not info.name.endswith("__main__"):
            importlib.import_module(info.name)
active[0] = False
print(json.dumps({
    "seen": seen,
    "loaded": sorted({name.partition(".")[0] for name in set(sys.modules) - loaded}),
    "threads": [thread.name for thread in threading.enumerate()],
    "environment": sorted(k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)),
}))
"""


@pytest.fixture
def imported(tmp_path, root):
    """Import the package, or all modules, in an empty home and working folder."""

    def run(what):
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", SCRIPT, what]
        child = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert child.returncode == 0, child.stderr
        return json.loads(child.stdout)

    return run


def test_importing_the_package_does_nothing(imported, tmp_path):
    """`import mltraq_ds` loads itself and nothing of third parties, and touches nothing."""
    result = imported("package")
    assert result["seen"] == []
    assert [name for name in result["loaded"] if name not in sys.stdlib_module_names] == ["mltraq_ds"]
    assert result["threads"] == ["MainThread"]
    assert result["environment"] == []
    assert list(tmp_path.iterdir()) == []


def test_importing_everything_leaves_nothing(imported, tmp_path):
    """All modules together start no thread, set no variable, leave no file, and load nothing that is optional."""
    result = imported("modules")
    assert result["threads"] == ["MainThread"]
    assert result["environment"] == []
    assert list(tmp_path.iterdir()) == []
    assert not {"torch", "polars", "sklearn", "mlflow", "dask", "ray"} & set(result["loaded"])
