"""`crywolf` itself: quick help, suggestions for what was mistyped, exit codes, and one JSON document."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from crywolf.cli import COMMANDS
from crywolf.config import load_config
from crywolf.console import Console, cell

HEAVY = ("torch", "polars", "faiss", "transformers", "sentence_transformers", "onnxruntime", "sklearn", "sqlalchemy")
CRYWOLF = [sys.executable, "-m", "crywolf.cli"]


def test_help_lists_every_command_and_exit_code(crywolf: Callable) -> None:
    ran = crywolf("--help")
    assert ran.code == 0
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", ran.out, re.MULTILINE), name
    assert "Exit codes: 0 done, 1 a gate failed, 2 bad input." in ran.out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "sys.argv = ['crywolf', '--help']\n"
        "from crywolf.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as left:\n    assert not left.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, crywolf: Callable) -> None:
    ran = crywolf(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: crywolf {name} ")


@pytest.mark.parametrize("name", ["ingest", "review", "round"])
def test_every_command_of_feedback_explains_itself(name: str, crywolf: Callable) -> None:
    ran = crywolf("feedback", name, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: crywolf feedback {name} ")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("init", "feedback")])
def test_every_command_that_finds_something_has_json(name: str, crywolf: Callable) -> None:
    assert "--json" in crywolf(name, "--help").out


def test_the_version_is_the_packages(crywolf: Callable) -> None:
    import importlib.metadata

    ran = crywolf("--version")
    assert (ran.code, ran.out) == (0, f"crywolf {importlib.metadata.version('crywolf')}\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["agument"], "No such command 'agument'. Did you mean 'augment'?"),
        (["mine-hard-negative"], "Did you mean 'mine-hard-negatives'?"),
        (["xyzzy"], "See `crywolf --help`"),
        (["augment", "--from-fp", "x"], "--from-fps"),
        (["dedup", "x", "--agianst", "y"], "--against"),
        (["feedback", "ingets"], "ingest"),
        (["train"], "--config"),
        (["dedup", "x", "-o", "y", "--threshold", "2"], "0.1<=x<=1.0"),
        (["augment", "--from-fps", "x", "-o", "y", "--per-fp", "0"], "1<=x<=200"),
        (["augment", "--from-fps", "x", "-o", "y", "--seed", "-1"], "0<=x<=4294967295"),
        (["train", "--config", "x", "--seed", "-1"], "0<=x<=4294967295"),
    ],
)
def test_what_is_mistyped_is_named_with_what_would_do(arguments: list[str], hint: str, crywolf: Callable) -> None:
    ran = crywolf(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert hint in ran.err


def test_a_real_process_ends_with_2_and_one_line_for_bad_input(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "hello", "label": "maybe"}\n')
    ran = subprocess.run(
        [*CRYWOLF, "dedup", "a.jsonl", "-o", "out.jsonl"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("crywolf: a.jsonl: 1 of 1 rows cannot be used")
    assert "line 1, column label" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_reader_that_has_seen_enough_makes_no_fuss(tmp_path: Path, tiny_package: Path) -> None:
    rows = "".join(json.dumps({"text": f"please show list {i} " + "a " * 40}) + "\n" for i in range(2_000))
    (tmp_path / "many.jsonl").write_text(rows)
    command = [*CRYWOLF, "predict", str(tiny_package), "--file", "many.jsonl", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["l1_results"] is None
        process.stdout.close()
        assert process.stderr.read() == b""


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_writes_a_configuration_that_loads_as_it_is(tmp_path: Path, crywolf: Callable) -> None:
    path = tmp_path / "new" / "crywolf.yaml"
    ran = crywolf("init", path)
    assert ran.code == 0
    assert str(path) in ran.out
    assert load_config(path).data.benign == (path.parent / "benign.jsonl.gz",)


def test_every_key_that_inits_file_shows_commented_out_is_a_key(tmp_path: Path, crywolf: Callable) -> None:
    path = tmp_path / "crywolf.yaml"
    crywolf("init", path)
    shown = re.sub(r"^(\s*)# (\w+: )", r"\1\2", path.read_text(), flags=re.MULTILINE)
    assert len(yaml.safe_load(shown)["train"]) > len(yaml.safe_load(path.read_text())["train"])
    path.write_text(shown)
    assert load_config(path).train.benign_weight == 1.5


def test_init_replaces_a_file_with_force_only(tmp_path: Path, crywolf: Callable) -> None:
    path = tmp_path / "crywolf.yaml"
    path.write_text("mine")
    assert crywolf("init", path).code == 2
    assert path.read_text() == "mine"
    assert crywolf("init", path, "--force").code == 0
    assert "benign:" in path.read_text()


# --- console ---------------------------------------------------------------------------------------------------------


def test_json_is_one_document_with_everything_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.say("for people")
    console.table("rows", "Rows", ["name", "n"], [["naïve 忽略", 1], ["b", None]])
    console.result("path", Path("a/b"), "a line for people")
    with console.progress("work") as progress:
        progress(1, 2)
    console.finish()
    out, err = capsys.readouterr()
    assert json.loads(out) == {"rows": [{"name": "naïve 忽略", "n": 1}, {"name": "b", "n": None}], "path": "a/b"}
    assert err == ""


def test_people_get_results_on_stdout_and_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("working [bold]hard[/bold]")
    console.table("rows", "Rows", ["name", "n"], [["[red]a[/red]", 1234567]])
    console.result("path", "x", "x: written")
    console.finish()
    out, err = capsys.readouterr()
    assert "1,234,567" in out
    # What comes from users' data is no markup.
    assert "[red]a[/red]" in out
    assert out.endswith("x: written\n")
    assert err == "working [bold]hard[/bold]\n"


def test_a_warning_is_said_with_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    Console(as_json=True).warn("a.jsonl: 1 row left out")
    assert capsys.readouterr() == ("", "crywolf: a.jsonl: 1 row left out\n")


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (True, "yes"), (False, "no"), (12345, "12,345"), (0.12345, "0.123"), ("a", "a")]
)
def test_cells_read_well(value: object, text: str) -> None:
    assert cell(value) == text
