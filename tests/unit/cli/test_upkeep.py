"""check, sweep and rebuild-index on stores that were damaged, littered, or lost their database."""

import json
import re
from operator import itemgetter

import numpy as np
import pytest
import typer

from mltraq_ds import create_session
from mltraq_ds.cli import app, experiments, upkeep
from mltraq_ds.store.sweeping import GRACE_S


@pytest.fixture
def store(tmp_path, experiment):
    """Return the folder of a store with one experiment."""
    return tmp_path / "mltraq.datastore"


@pytest.fixture
def stray(store, experiment):
    """Return a file in the store that nothing refers to."""
    path = store / experiment.id_experiment / "0123456789abcdef0123456789abcdef"
    path.write_bytes(b"x" * 2000)
    return path


@pytest.fixture
def blob(store, experiment):
    """Return the file of a blob."""
    return store / next(iter(experiment.runs.values())).fields.ds.to_url().partition(":///")[2]


def test_check_clean(command, store):
    """A whole store is clean, deep or not, and the exit code is 0."""
    for args, how in (((), "sizes and descriptors only"), (("--deep",), "every byte read")):
        result = command("check", *args)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("Clean: 1 experiment with ")
        assert how in result.stdout


def test_check_finds_a_lost_blob(command, blob):
    """A lost blob is a finding with its name and a remedy; the exit code is 1."""
    blob.unlink()
    result = command("check")
    assert result.exit_code == 1
    assert re.search(f"dangling reference: .*{blob.name}", result.stdout)
    assert "Restore the file from a copy" in result.stdout


def test_check_deep_finds_a_changed_byte(command, blob):
    """A changed byte inside a value is found by `--deep` only, and `--json` has the finding."""
    content = blob.read_bytes()
    at = content.index(np.full((64, 10), 0.1).tobytes()) + 100
    blob.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert command("check").exit_code == 0
    result = command("check", "--deep", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["is_deep"] is True
    assert [found["kind"] for found in report["findings"]] == ["corrupt blob"]
    assert report["findings"][0]["key"].endswith(blob.name)


def test_check_remedies_name_commands(command, store, stray, session):
    """What to do is said in commands, not in Python."""
    (store.parent / "mltraq.db").unlink()
    text = command("check").stdout
    assert "'mltraq-ds sweep --delete'" in text
    assert "'mltraq-ds rebuild-index'" in text
    assert "()" not in text


def test_check_hostile_names(command, store, experiment):
    """File names that would steer the terminal are printed as what they are."""
    (store / experiment.id_experiment / "\x1b[2J").write_bytes(b"")
    text = command("check").stdout
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_many_findings(command, store, experiment):
    """The text stops after a hundred findings and names `--json`, which has all."""
    for i in range(103):
        (store / experiment.id_experiment / f"{i:032x}").write_bytes(b"")
    assert command("check").stdout.splitlines()[-1].strip() == "… and 3 more; --json has all"
    assert json.loads(command("check", "--json").stdout)["count"] == 103


def test_sweep_is_dry(command, stray):
    """Without `--delete` nothing is removed, and it says what would be and how."""
    for args in ((), ("--dry-run",)):
        result = command("sweep", "--grace", "0", *args)
        assert result.exit_code == 0, result.output
        assert "1 file (2.0 kB) would be removed" in result.stdout
        assert "--delete removes them" in result.stdout
        assert stray.exists()


def test_sweep_names_the_grace(command, stray):
    """Files that stay only for their age are counted, and the option is named."""
    result = command("sweep")
    assert "0 files" in result.stdout
    assert f"1 file stays because it is younger than the grace of {GRACE_S:.0f} s. --grace SECONDS" in result.stdout
    stray.with_name("f" * 32).write_bytes(b"")
    result = command("sweep", "--delete", "--yes", "--json")
    assert json.loads(result.stdout)["young"] == 2
    assert "2 files stay because they are younger" in result.stderr
    assert stray.exists()


def test_the_grace_is_that_of_the_library():
    """The default of the command is the library's."""
    assert upkeep._GRACE_S == GRACE_S


def test_sweep_deletes(command, stray, experiment):
    """`--delete --yes` removes what nothing refers to, and the experiment is still read."""
    result = command("sweep", "--delete", "--yes", "--grace", "0")
    assert result.exit_code == 0, result.output
    assert "1 file (2.0 kB) was removed" in result.stdout
    assert "Nothing was removed" not in result.stdout
    assert not stray.exists()
    assert command("check", "--deep").exit_code == 0
    run = next(iter(create_session().load_experiment("digits").runs.values()))
    np.testing.assert_array_equal(run.fields.ds.weights, np.full((64, 10), 0.1))


@pytest.mark.parametrize(("answer", "exit_code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_sweep_asks(command, stray, monkeypatch, answer, exit_code, as_json):
    """`--delete` shows what would go and asks; it removes nothing unless the answer is yes."""
    monkeypatch.setattr(experiments, "can_ask", lambda: True)
    result = command("sweep", "--delete", "--grace", "0", *(["--json"] if as_json else []), input=answer)
    asked = result.stderr if as_json else result.stdout
    assert asked.index("would be removed") < asked.index("Remove them?")
    assert result.exit_code == exit_code
    assert stray.exists() == bool(exit_code)
    if as_json and not exit_code:
        # The runner of tests shows the answer too.
        assert json.loads(result.stdout[result.stdout.index("{") :])["dry_run"] is False


def test_sweep_asks_only_about_something(command, store, monkeypatch):
    """Where there is nothing to remove, `--delete` does not ask."""
    monkeypatch.setattr(experiments, "can_ask", lambda: True)
    result = command("sweep", "--delete", "--grace", "0")
    assert result.exit_code == 0
    assert "Remove them?" not in result.output


def test_sweep_asks_nobody(command, stray):
    """Where nobody can be asked, `--delete` refuses and names `--yes`."""
    result = command("sweep", "--delete", "--grace", "0")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert stray.exists()


@pytest.mark.parametrize("grace", ["-1", "nan", "inf", "1e3", "99999999999"])
def test_sweep_refuses_a_grace(command, stray, grace):
    """A grace that is no number of seconds is refused."""
    assert command("sweep", "--grace", grace).exit_code == 2


def test_sweep_stops_at_damage(command, stray, store, experiment):
    """What may refer to files and cannot be read stops the sweep: one sentence, exit code 1, nothing removed."""
    (records,) = (store / experiment.id_experiment / "runs").iterdir()
    records.write_bytes(b"{")
    result = command("sweep", "--delete", "--yes", "--grace", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert stray.exists()


def test_rebuild_index(command, store, session, experiment):
    """After the database was dropped, `rebuild-index` makes it anew from the files."""
    other = session.create_experiment("other").persist()
    database = store.parent / "mltraq.db"
    before = command("ls", "--json").stdout
    for path in store.parent.glob("mltraq.db*"):
        path.unlink()
    assert command("show", "digits").exit_code == 1
    result = command("rebuild-index", "--id", other.id_experiment)
    assert result.exit_code == 0, result.output
    assert "does not know the store" in command("ls").stderr, "one experiment is not the store"
    result = command("rebuild-index")
    assert result.exit_code == 0
    assert result.stdout.startswith("2 experiments, 3 runs and ")
    assert database.exists()
    after = json.loads(command("ls", "--json").stdout)
    assert sorted(after, key=itemgetter("name")) == sorted(json.loads(before), key=itemgetter("name"))


def test_rebuild_index_with_damage(command, store, experiment):
    """What could not be read is listed, and the exit code is 1."""
    (records,) = (store / experiment.id_experiment / "runs").iterdir()
    records.write_bytes(b"{")
    result = command("rebuild-index")
    assert result.exit_code == 1
    assert "unreadable record" in result.stdout


def test_rebuild_index_of_an_unknown_id(command, store):
    """An id that is nowhere is an error."""
    result = command("rebuild-index", "--id", "nowhere")
    assert result.exit_code == 1
    assert "No experiment has the id 'nowhere'" in result.stderr


@pytest.mark.parametrize("name", ["check", "sweep", "rebuild-index"])
def test_no_store(command, tmp_path, name):
    """Where there is no store nothing looks healthy: exit code 2, and nothing is made."""
    result = command(name)
    assert result.exit_code == 2
    assert re.match(r"Error: There is no store at .*mltraq\.datastore yet\.", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_commands_in_messages_exist(root):
    """Every command that a message or a page names is there."""
    files = [*(root / "mltraq_ds").rglob("*.py"), *(root / "docs").rglob("*.md"), root / "README.md"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"['`\"]mltraq-ds ([a-z][a-z-]*)", text))
    assert {"check", "sweep", "rebuild-index"} <= named
    assert named <= set(typer.main.get_command(app.app).commands)
