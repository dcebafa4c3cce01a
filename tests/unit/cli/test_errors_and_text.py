"""What is printed when things go wrong, and text from outside that must not steer the terminal."""

import io
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from mltraq_ds import create_session
from mltraq_ds.cli import group, text
from mltraq_ds.errors import ExperimentNotFoundError, IndexBehindWarning


def test_error_is_one_sentence(process, experiment):
    """An error of ours is one line on stderr without traceback, exit code 1."""
    child = process("show", "digit")
    assert child.returncode == 1
    assert child.stdout == ""
    assert child.stderr.startswith("Error: No experiment is named 'digit'")
    assert "'digits'" in child.stderr
    assert child.stderr.count("\n") == 1


def test_debug_shows_the_traceback(process, command):
    """With `--debug`, before or after the command, the error comes with its traceback."""
    child = process("show", "nothing", "--debug")
    assert child.returncode == 1
    assert "Traceback" in child.stderr
    assert "ExperimentNotFoundError" in child.stderr
    assert isinstance(command("--debug", "show", "nothing").exception, ExperimentNotFoundError)


@pytest.mark.parametrize(
    "args",
    [
        ("show",),
        ("show", "a", "--id", "b"),
        ("delete", "--yes"),
        ("nothing",),
        ("ls", "--nothing"),
        ("--option", "execution.n_jobs=many", "ls"),
        ("--option", "no.such.option=1", "ls"),
        ("--option", "nothing", "ls"),
        ("ls", "--option"),
        ("--database", "nonsense", "ls"),
        ("show", "x", "--runs", "-1"),
        ("demo", "--store", "x"),
        ("demo", "--folder", "a?b"),
    ],
)
def test_usage(command, args, tmp_path):
    """What cannot work as written exits with 2, says why, and makes nothing."""
    result = command(*args)
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_no_arguments(command):
    """Without a command there is help."""
    assert "Commands:" in command().output


def test_secrets_are_not_printed(command, process, experiment):
    """A planted secret in URLs and options appears in no output, whatever happens."""
    url = "postgresql://ada:planted@127.0.0.1:1/lab?sslpassword=planted"
    for args in (
        ("--database", url, "ls"),
        ("--database", url, "--debug", "ls"),
        ("--database", url, "options"),
        ("--database", "postgresql://ada:plan/ted@127.0.0.1:1/lab", "ls"),
        ("--option", "planted", "ls"),
        ("--option", 'datastore.storage_options={"key": "planted"}', "options"),
        ("--option", 'datastore.storage_options=["planted"]', "options"),
        ("--option", "execution.n_jobs=planted", "options"),
    ):
        result = command(*args)
        assert "planted" not in result.output + repr(result.exception), args
        assert "ted@" not in result.output
    child = process("--database", url, "--debug", "ls")
    assert child.returncode == 1
    assert "planted" not in child.stdout + child.stderr


def test_hostile_names(command, session):
    """Names that would steer the terminal or look like markup are printed as what they are."""
    for name in ("\x1b[2J\x1b]0;title\x07", "[red]x[/red]", "a\nb", "", "über"):
        session.create_experiment(name).persist()
    text = command("ls").stdout
    assert "\x1b" not in text
    assert "\\x1b[2J" in text
    assert "[red]x[/red]" in text
    assert "a\\nb" in text
    assert len(text.splitlines()) == 6
    assert "\x1b" not in command("show", "\x1b[2J\x1b]0;title\x07").stdout


def test_narrow_encoding(process):
    """A terminal that cannot show a character gets its escape."""
    create_session().create_experiment("雪").persist()
    child = process("ls", PYTHONIOENCODING="latin-1")
    assert child.returncode == 0
    assert "\\u96ea" in child.stdout


def test_warnings(capsys):
    """Warnings of ours are one sentence on stderr; others go Python's way."""
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with group._plain_warnings():
            warnings.warn("It is behind.\nCall rebuild_index().", IndexBehindWarning, stacklevel=1)
            warnings.warn("other", ResourceWarning, stacklevel=1)
    assert capsys.readouterr().err == "Warning: It is behind. Call rebuild_index().\n"
    assert [str(other.message) for other in others] == ["other"]


@pytest.mark.parametrize(
    ("args", "hoisted"),
    [
        (["ls"], ["ls"]),
        (["show", "--", "--store", "x"], ["show", "--", "--store", "x"]),
        (["ls", "--store=x", "--debug", "--json"], ["--store=x", "--debug", "ls", "--json"]),
        (["ls", "--option", "a=b", "--option"], ["--option", "a=b", "--option", "ls"]),
    ],
)
def test_hoisted(args, hoisted):
    """Options of all commands come first; what follows `--` stays."""
    assert group.hoisted(args) == hoisted


def test_cells():
    """Cells are short and on one line."""
    assert text.cell(0.123456789) == "0.1235"
    assert text.cell(np.float32(0.97)) == "0.97"
    assert text.cell(np.True_) == "True"
    assert text.cell(np.zeros(2)) == "array([0., 0.])"
    assert text.cell(None) == ""
    assert text.cell("a\nb") == "a\\nb"
    assert text.cell([1, 2]) == "[1, 2]"
    assert len(text.cell("x" * 1000)) == text.MAX_CELL
    assert text.cell("x" * 1000).endswith("…")


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (2e9, "2.0 GB"), (5e15, "5,000.0 TB")],
)
def test_size_text(size, shown):
    """Sizes are short, with a unit."""
    assert text.size_text(int(size)) == shown


def test_tables_fit_a_terminal(monkeypatch):
    """A table is as wide as the terminal, and as wide as it needs elsewhere."""
    monkeypatch.setenv("COLUMNS", "40")
    for is_terminal in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda is_terminal=is_terminal: is_terminal
        monkeypatch.setattr(sys, "stdout", stream)
        text.print_table(("a", "b"), [("x" * 50, "y")])
        monkeypatch.undo()
        monkeypatch.setenv("COLUMNS", "40")
        lines = stream.getvalue().splitlines()
        assert (len(lines) > 2) == is_terminal
        assert is_terminal or "x" * 50 in stream.getvalue()


def test_no_store_and_no_database(command, monkeypatch):
    """Without a store an unusable database is an error too, with the variable that names it; nothing is made."""
    monkeypatch.setenv("MLTRAQ_DS_DATABASE_URL", "foo://x")
    for words in (["ls"], ["config", "check"]):
        result = command(*words)
        assert result.exit_code in (1, 2)
        assert "knows no 'foo'" in result.output + result.stderr
        assert "Option 'database.url' is from: environment MLTRAQ_DS_DATABASE_URL." in result.output + result.stderr
    assert list(Path.cwd().iterdir()) == []
