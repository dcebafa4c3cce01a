"""What is installed is what is here."""

import shutil
import subprocess
import sys
import zipfile

SCRIPT = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def test_wheel_holds_every_module(root, tmp_path):
    """The wheel has every module of the package, `py.typed` and the licence, and nothing else."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copytree(root / "mltraq_ds", source / "mltraq_ds", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    child = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    there = {path.relative_to(source).as_posix() for path in (source / "mltraq_ds").rglob("*") if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == there
    assert [name for name in names if name.endswith("licenses/LICENSE")]
