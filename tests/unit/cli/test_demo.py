"""The demo from end to end, and what it says when it cannot go on."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from mltraq_ds import create_session
from mltraq_ds.cli import demo, demo_reader, demo_steps
from mltraq_ds.errors import DamageError, RunError, StorageError

try:
    import sklearn  # noqa: F401 - asked for only
except ImportError:
    pytest.skip('the demo needs scikit-learn: pip install "mltraq_ds[demo]"', allow_module_level=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory, root):
    """Run the demo twice in processes of their own, where warnings are errors; return folder and both outputs."""
    folder = tmp_path_factory.mktemp("demo")
    # An old scikit-learn with a new scipy warns of itself, which is none of ours.
    theirs = "ignore:scipy.optimize:DeprecationWarning"
    python = [sys.executable, "-W", "error", "-W", theirs]
    command = [*python, "-m", "mltraq_ds.cli", "demo", "--folder", "here", "--n-jobs"]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": f"error,{theirs}"}
    outputs = []
    for n_jobs in ("2", "1"):
        child = subprocess.run(
            [*command, n_jobs], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert child.returncode == 0, child.stderr
        outputs.append(child)
    return folder / "here", *outputs


def test_demo_tells_its_story(told):
    """Every step says what it does, the predictions of both processes agree, and nothing warns."""
    folder, first, _ = told
    assert re.findall(r"^(\d)\. ", first.stdout, re.MULTILINE) == list("123456")
    assert "597 of 597 predictions agree" in first.stdout
    assert len(set(re.search(r"process (\d+) \(this is (\d+)\)", first.stdout).groups())) == 2
    assert "18/18" in first.stderr
    assert "Warning" not in first.stderr + first.stdout
    assert "\x1b" not in first.stdout
    assert re.search(r"Done in [\d.]+ s", first.stdout)
    assert max(len(line) for line in first.stdout.splitlines() if str(folder) not in line) <= demo.MAX_WIDTH


def test_demo_leaves_its_files(told):
    """What it persisted is loaded and predicted from again here, and it lists every file."""
    folder, first, _ = told
    session = create_session(f"sqlite:///{folder / 'mltraq.db'}", folder / "mltraq.datastore")
    experiment = session.load_experiment("digits")
    assert len(experiment.runs) == 18
    for run in experiment.runs.values():
        ds = run.fields.ds
        rows = demo_steps.features(demo_steps.digits()[0][demo_steps.split(**run.config)[1]], run.params.features)
        np.testing.assert_array_equal(demo_steps.predict(rows, ds.weights, ds.bias), ds.predictions)
        assert ds.confusion.to_numpy().sum() == 597
        assert np.diag(ds.confusion).sum() == 597 - run.fields.wrong
        assert ds.misclassified.shape == (run.fields.wrong, 8, 8)
        assert run.fields.accuracy == pytest.approx(1 - run.fields.wrong / 597)
    inside = folder / "mltraq.datastore" / experiment.id_experiment
    names = [path.relative_to(inside).as_posix() for path in inside.rglob("*") if path.is_file()]
    assert all(re.search(rf"^{name} +\d", first.stdout, re.MULTILINE) for name in names)
    assert f"{len(names)} files" in first.stdout


def test_demo_blobs_are_read_by_numpy(told):
    """`np.load` reads the weights out of every blob, in a process that does not know the library."""
    folder, _, _ = told
    blobs = [path for path in (folder / "mltraq.datastore").glob("*/*") if len(path.name) == 32]
    assert len(blobs) == 36
    script = (
        "import sys, numpy as np\n"
        "for path in sys.argv[1:]: print(np.load(path)['weights'].shape)\n"
        "assert 'mltraq_ds' not in sys.modules"
    )
    child = subprocess.run([sys.executable, "-I", "-c", script, *blobs], capture_output=True, text=True, check=True)
    assert sorted(set(child.stdout.split("\n")) - {""}) == ["(274, 10)", "(64, 10)"]


def test_second_demo_keeps_the_first(told):
    """A second demo in the same folder says that there is one, and makes an experiment of its own."""
    folder, _, second = told
    assert "An earlier demo is in this folder and stays as it is: this one is named 'digits-2'." in " ".join(
        second.stdout.split()
    )
    session = create_session(f"sqlite:///{folder / 'mltraq.db'}", folder / "mltraq.datastore")
    assert list(session.ls()["name"]) == ["digits", "digits-2"]


def test_reader(told, capsys):
    """The reader prints what the run predicted."""
    folder, _, _ = told
    urls = f"sqlite:///{folder / 'mltraq.db'}", str(folder / "mltraq.datastore")
    run = create_session(*urls).load_experiment("digits").runs.first()
    demo_reader.main(*urls, "digits", run.id_run)
    assert str(run.fields.ds.predictions.tolist()) in capsys.readouterr().out


def test_demo_in_this_process(command, monkeypatch, tmp_path):
    """The demo works in a folder with spaces; compression that was asked for does not keep numpy out."""
    monkeypatch.setattr(demo_steps, "GRID", {"classifier": ["ridge"], "features": ["pixels"], "strength": [1.0]})
    result = command("demo", "--folder", "a b/c", "--n-jobs", "1", "--option", "serialization.compression.codec=zstd")
    assert result.exit_code == 0, result.output
    assert "predictions agree" in result.stdout
    assert (tmp_path / "a b/c/mltraq.db").is_file()


def test_demo_without_scikit_learn(command, monkeypatch, tmp_path):
    """Without scikit-learn there is one sentence with the pip command, and nothing is made."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    demo_steps.digits.cache_clear()
    result = command("demo")
    assert result.exit_code == 1
    assert 'pip install "mltraq_ds[demo]"' in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_demo_where_no_folder_can_be(command, tmp_path):
    """A folder that cannot be made is one sentence that names it."""
    (tmp_path / "file").write_text("in the way")
    result = command("demo", "--folder", "file")
    assert result.exit_code == 1
    assert "--folder" in result.stderr


def test_demo_finds_differences(session, experiment, monkeypatch):
    """If what is read predicts otherwise, the demo says that it has failed."""
    run = experiment.runs.first()
    run.fields.ds.predictions = np.array([1, 2])
    monkeypatch.setattr(demo, "_output_of", lambda *args: '{"process": 1, "predictions": [1, 3]}')
    with pytest.raises(DamageError, match="predictions differ"):
        demo._predict_again(("", ""), experiment, run)


def test_demo_process_that_fails():
    """A second process that fails is told with the last line of what it said."""
    with pytest.raises(StorageError, match="has failed: ValueError: why"):
        demo._output_of("-c", "raise ValueError('why')")
    with pytest.raises(StorageError, match="it said nothing"):
        demo._output_of("-c", "raise SystemExit(3)")


@pytest.mark.filterwarnings("ignore::mltraq_ds.errors.RunFailedWarning")
def test_demo_run_that_fails(session, monkeypatch):
    """A run that fails ends the demo with its error."""
    monkeypatch.setattr(demo_steps, "GRID", {"classifier": ["ridge"], "features": ["pixels"], "strength": [-1.0]})
    with pytest.raises(RunError):
        demo._execute(session, 1)
