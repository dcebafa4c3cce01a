"""`store move`."""

from pathlib import Path

from mltraq_ds import create_session


def test_move(command, experiment):
    """The default store moves, which is said with what to do next; commands find it where it is now, and only there."""
    result = command("store", "move", "--to", "new place")
    assert result.exit_code == 0, result.output
    assert "has moved from file://" in result.stdout
    assert "Set 'datastore.url'" in result.stdout
    assert "digits" in command("ls", "--store", "new place").stdout
    result = command("ls")
    assert result.exit_code == 1
    assert "has moved to" in result.stderr
    loaded = create_session(store="new place").load_experiment("digits")
    assert loaded.runs.first().fields.ds.weights.shape == (64, 10)


def test_refused(command, experiment, tmp_path):
    """A place that is taken is refused, exit code 2, and nothing is changed."""
    Path("taken").mkdir()
    Path("taken/file").write_text("theirs")
    result = command("store", "move", "--to", "taken")
    assert result.exit_code == 2
    assert "other files" in result.stderr
    assert "digits" in command("ls").stdout
