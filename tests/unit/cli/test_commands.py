"""Every command: what it prints, and what it leaves."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import typer

from mltraq_ds import DataStore, Run, __version__, create_session
from mltraq_ds.cli import experiments, main
from mltraq_ds.cli.app import app
from mltraq_ds.errors import RemotesError
from mltraq_ds.option_table import OPTIONS

COMMANDS = typer.main.get_command(app).commands


def test_version(command):
    """`version` prints the version."""
    assert command("version").stdout == f"mltraq-ds {__version__}\n"


@pytest.mark.parametrize("args", [("--version",), ("ls", "--version")])
def test_version_option(command, args, tmp_path):
    """`--version` prints the same instead of running a command."""
    result = command(*args)
    assert (result.exit_code, result.stdout) == (0, f"mltraq-ds {__version__}\n")
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick(process):
    """`--help` loads nothing heavy, in a process of its own."""
    child = process("--help")
    assert child.returncode == 0
    assert child.stderr == ""
    script = "import sys; from mltraq_ds.cli import app; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not set(re.findall(r"'(\w+)'", loaded)) & {"numpy", "pandas", "sqlalchemy", "pyarrow", "rich", "sklearn"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help(command, name):
    """Each command has help that says what it does, and so has each of its options."""
    result = command(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: mltraq-ds {name}" in result.stdout
    assert all(parameter.help for parameter in COMMANDS[name].params if parameter.name != "help")
    listed = command("--help").stdout
    assert re.search(rf"^  {name} +[A-Z].*\.$", listed, re.MULTILINE), "help in the list is cut off"
    assert "..." not in listed.partition("Commands:")[2]


def test_every_command_is_documented(root):
    """The page on the command line has a section for each command that names each of its options, and no others."""
    page = (root / "docs/reference/cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    wanted = {f"mltraq-ds {name}": each.params for name, each in COMMANDS.items()}
    wanted["Options of all commands"] = typer.main.get_command(app).params
    assert set(sections) == set(wanted)
    groups = {f"mltraq-ds {name}" for name, each in COMMANDS.items() if hasattr(each, "commands")}
    for title, parameters in wanted.items():
        if title in groups:
            continue
        names = {max(parameter.opts, key=len) for parameter in parameters if parameter.opts[0].startswith("-")}
        documented = set(re.findall(r"^`(--[\w-]+)", sections[title], re.MULTILINE))
        assert documented == names - {"--help"}, title


def test_every_command_of_a_group_is_documented(root):
    """The section of a group has a paragraph for each of its commands, and names every option of theirs."""
    page = (root / "docs/reference/cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## mltraq-ds (.*?)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    missing = []
    for group, commands in ((name, each.commands) for name, each in COMMANDS.items() if hasattr(each, "commands")):
        for name, command in commands.items():
            names = {max(parameter.opts, key=len) for parameter in command.params if parameter.opts[0][0] == "-"}
            missing += [] if f"\n`{group} {name}" in sections[group] else [f"{group} {name}"]
            missing += [f"{group} {name} {one}" for one in names - {"--help"} if one not in sections[group]]
            assert all(parameter.help for parameter in command.params if parameter.param_type_name == "option"), name
    assert missing == []


def test_main(capsys, monkeypatch):
    """`main` is the command, under its own name."""
    monkeypatch.setattr(sys, "argv", ["whatever", "version"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_ls(command, experiment):
    """`ls` prints one line for each experiment."""
    lines = command("ls").stdout.splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert lines[1].split()[:2] == ["digits", "3"]
    assert lines[1].endswith(experiment.id_experiment)
    assert len(lines) == 2


def test_ls_without_a_store(command, tmp_path):
    """`ls` on a store that does not exist says so, succeeds, and makes nothing."""
    result = command("ls")
    assert result.exit_code == 0
    assert result.stdout == f"There is no store at {create_session().storage.url} yet.\n"
    assert json.loads(command("ls", "--json").stdout) == []
    assert list(tmp_path.iterdir()) == []


def test_ls_without_experiments(command, experiment, session):
    """`ls` on a store with nothing in it says so."""
    experiment.delete()
    assert command("ls").stdout == f"No experiments in {session.storage.url}.\n"


@pytest.mark.parametrize("args", [("digits",), ("--id", "1234")])
def test_show_without_a_store(command, args, tmp_path):
    """`show` on a store that does not exist says so, fails, and makes nothing."""
    result = command("show", *args)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: There is no store at {create_session().storage.url} yet.")
    assert list(tmp_path.iterdir()) == []


def test_ls_json(command, experiment, session):
    """`ls --json` has what `session.ls()` has, exactly."""
    (row,) = json.loads(command("ls", "--json").stdout)
    (expected,) = session.ls().to_dict("records")
    assert {**row, "created": None, "persisted": None} == {**expected, "created": None, "persisted": None}
    assert [row["created"], row["persisted"]] == [expected[n].isoformat() for n in ("created", "persisted")]


def test_show(command, experiment):
    """`show` prints fields, runs and what is in the DataStores."""
    text = command("show", "digits").stdout
    lines = [re.split(r"  +", line) for line in text.splitlines()]
    last = [run.id_run[-8:] for run in experiment.runs.values()]
    assert f"id {experiment.id_experiment}" in text
    assert ["note", "first"] in lines
    assert ["ds", "DataStore of 1"] in lines
    assert [last[0], "success", "0.1", "0.97"] in lines
    assert any(line[:2] == [last[2], "success"] and line[-1] == "nan" for line in lines)
    (weights,) = [line for line in lines if line[:2] == [last[1], "ds.weights"]]
    assert weights[2:4] == ["ndarray float64", "64 × 10"]
    assert weights[5] == "numpy.ndarray/1"
    assert any(line[1:2] == ["ds.mean"] for line in lines)
    assert any(line[1:4] == ["ds.words", "list", "2"] for line in lines)


def test_show_by_id_reads_no_index(command, experiment, tmp_path):
    """`show --id` works where the database is gone."""
    (tmp_path / "mltraq.db").unlink()
    result = command("show", "--id", experiment.id_experiment)
    assert result.exit_code == 0, result.output
    assert "ds.weights" in result.stdout
    assert "rebuild_index" in command("show", "digits").stderr


def test_show_some_runs(command, experiment):
    """`--runs` limits the runs, and what is left out is counted."""
    text = command("show", "digits", "--runs", "1").stdout
    assert "… and 2 more; `--runs 3` shows all." in text
    assert text.count("ds.weights") == 1
    assert "… and 3 more" in command("show", "digits", "--runs", "0").stdout


def test_show_without_runs(command, session):
    """An experiment with nothing in it is shown with nothing below its head."""
    session.create_experiment("empty").persist()
    assert len(command("show", "empty").stdout.splitlines()) == 2


def test_show_a_run_by_what_was_printed(command, experiment):
    """`--run` takes the end of an id that `show` prints, and prints the whole id, which it takes too."""
    lines = command("show", "digits").stdout.splitlines()
    end = next(line.split()[0] for line in lines if "success" in line and "0.01" in line)
    run = list(experiment.runs.values())[1]
    for given in (end, run.id_run):
        result = command("show", "digits", "--run", given)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"Run {run.id_run} of experiment 'digits'\n")
        assert re.search(r"^lr +0\.01$", result.stdout, re.MULTILINE)
        assert result.stdout.count("ds.weights") == 1


@pytest.mark.parametrize("given", ["", "nothing"])
def test_show_a_run_that_is_not_clear(command, experiment, given):
    """A run that is not there is refused."""
    result = command("show", "digits", "--run", given)
    assert result.exit_code == 2
    assert "of the 3 runs of 'digits' none ends so" in result.stderr


def test_show_runs_with_like_ends(command, session):
    """Ids that end alike are printed as long as needed, an id that is the end of another is found, others are told."""
    experiment = session.create_experiment("alike")
    for id_run in ("a-12345678", "b-12345678", "12345678"):
        experiment.runs[id_run] = Run(id_run, experiment.id_experiment, {"which": id_run})
    experiment.persist()
    lines = command("show", "alike").stdout.splitlines()
    ends = [line.split()[0] for line in lines if "created" in line and "which" not in line][1:]
    assert ends == ["a-12345678", "b-12345678", "12345678"]
    for end in ends:
        assert f"Run {end} of" in command("show", "alike", "--run", end).stdout
    result = command("show", "alike", "--run", "345678")
    assert result.exit_code == 2
    assert "a-12345678; b-12345678; 12345678 ends so" in result.stderr


def test_show_a_failed_run(command, session):
    """A failed run is shown with its failure."""
    experiment = session.create_experiment("failing").add_run()
    with pytest.warns(UserWarning, match="failed"):
        experiment.execute(_fail)
    (run,) = experiment.persist().runs
    text = command("show", "failing", "--run", run).stdout
    assert re.search(r"^failed, started [-\d]+ [:\d]+ UTC, finished ", text, re.MULTILINE)
    assert "ValueError: on purpose" in text


def _fail(run):
    raise ValueError("on purpose")


def test_times_are_readable(command, experiment):
    """Times are in UTC, to the second, without letters in between."""
    (created,) = re.findall(r"created (.*?), 3 runs", command("show", "digits").stdout)
    assert created == experiment.created[:19].replace("T", " ") + " UTC"
    assert re.search(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", command("ls").stdout)


def test_show_loads_nothing(command, experiment, monkeypatch):
    """`show` decodes no value."""
    monkeypatch.setattr("mltraq_ds.objects.Objects.decode", lambda *args: pytest.fail("a value was read"))
    assert command("show", "digits").exit_code == 0


def test_show_damage(command, experiment, tmp_path):
    """A lost blob is told in its line, and the others are shown."""
    first, second = [run.fields.ds.to_url().partition(":///")[2] for run in list(experiment.runs.values())[:2]]
    (tmp_path / "mltraq.datastore" / first).unlink()
    text = command("show", "digits").stdout
    (line,) = [line for line in text.splitlines() if "damaged" in line]
    assert first in line
    assert second not in line
    assert text.count("ds.weights") == 1


def test_delete(command, experiment, session):
    """`delete --yes` removes an experiment, by name or by id."""
    other = session.create_experiment("other").persist()
    assert command("delete", "digits", "--yes").stdout.startswith("Deleted experiment 'digits' from ")
    assert list(create_session().ls()["name"]) == ["other"]
    assert other.id_experiment in command("delete", "--id", other.id_experiment, "--yes").stdout
    assert len(create_session().ls()) == 0


def test_show_goes_on_past_what_remotes_do_not_deliver(command, experiment, monkeypatch):
    """A blob that no remote delivers is told in its line, and the others are shown."""
    describe, failures = DataStore.describe, [RemotesError("No remote\nanswers.")]

    def fail_once(datastore):
        if failures:
            raise failures.pop()
        return describe(datastore)

    monkeypatch.setattr(DataStore, "describe", fail_once)
    result = command("show", "digits")
    assert result.exit_code == 0
    assert result.stdout.count("cannot be read: No remote answers.") == 1
    assert "ds.weights" in result.stdout


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_delete_asks(command, experiment, monkeypatch, answer, left):
    """`delete` asks, and does nothing unless the answer is yes."""
    monkeypatch.setattr(experiments, "can_ask", lambda: True)
    result = command("delete", "digits", input=answer)
    assert "Delete experiment 'digits' (3 runs) from " in result.stdout
    assert result.exit_code == left
    assert len(create_session().ls()) == left


def test_delete_asks_about_damage(command, experiment, monkeypatch, tmp_path):
    """A damaged experiment can be deleted too, and the question says what it is."""
    monkeypatch.setattr(experiments, "can_ask", lambda: True)
    (records,) = (tmp_path / "mltraq.datastore" / experiment.id_experiment / "runs").iterdir()
    records.unlink()
    result = command("delete", "digits", input="n\n")
    assert "(damaged: " in result.stdout


def test_delete_asks_nobody(command, experiment):
    """Where nobody can be asked, `delete` refuses and names `--yes`."""
    result = command("delete", "digits")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert len(create_session().ls()) == 1


def test_options(command):
    """`options` lists every option, its value and where it comes from."""
    lines = command("options", "--option", "execution.n_jobs=3", "--database", "sqlite:///x.db").stdout.splitlines()
    rows = dict(line.split(maxsplit=1) for line in lines[1:])
    assert list(rows) == list(OPTIONS)
    assert rows["execution.n_jobs"].split() == ["3", "command", "line"]
    assert rows["database.url"].split() == ["'sqlite:///x.db'", "command", "line"]
    assert rows["tqdm.disable"].split() == ["False", "default"]


@pytest.mark.parametrize(
    ("assignment", "shown"),
    [
        ("tqdm.disable=true", "True"),
        ("tqdm.disable=False", "False"),
        ("execution.backend=none", "None"),
        ("execution.backend=loky", "'loky'"),
        ("execution.n_jobs=-1", "-1"),
        ("datastore.url=true", "'true'"),
        ('datastore.storage_options={"secret": "x"}', "{***}"),
    ],
)
def test_option_values(command, assignment, shown):
    """Values on the command line are read as the option means them."""
    (line,) = [
        line for line in command("--option", assignment, "options").stdout.splitlines() if "command line" in line
    ]
    assert line.split()[:2] == [assignment.partition("=")[0], shown]


def test_stores_elsewhere(command, tmp_path):
    """`--store` and `--database` say where, before or after the command."""
    place = ("--store", str(tmp_path / "lab"), "--database=sqlite:///lab.db")
    session = create_session("sqlite:///lab.db", tmp_path / "lab")
    experiment = session.create_experiment("in the lab")
    with experiment.run() as run:
        run.fields.x = np.arange(3)
    experiment.persist()
    for args in ((*place, "ls"), ("ls", *place)):
        assert "in the lab" in command(*args).stdout
    assert "in the lab" not in command("ls").stdout
