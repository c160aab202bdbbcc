"""What a report may say of where things are, and the commands that it says would make it again."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from crywolf import loop, reporting
from crywolf.data import file_hash
from crywolf.export.package import read_settings
from crywolf.loop import Retrained
from crywolf.origin import without_secrets
from crywolf.session import Session


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("https://user:s3cret@guard.example:8443/score?key=abc#x", "https://guard.example:8443/score"),
        ("HTTP://guard.example/score", "http://guard.example/score"),
        ("postgresql+psycopg2://me:s3@cret@db.example/mlflow?password=x", "postgresql+psycopg2://db.example/mlflow"),
        ("sqlite:///mlruns.db", "sqlite:///mlruns.db"),
        ("guard:score", "guard:score"),
        ("runs/a@b/package", "runs/a@b/package"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(place: str, shown: str) -> None:
    assert without_secrets(place) == shown


class Stopped(BaseException):
    """The command stops where its run would begin; `args[0]` is the session."""


@pytest.fixture
def told(tmp_path: Path, crywolf: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """`told("retrain", *options)`: the session that a command begins its run with; paths as a user would write them."""
    home = tmp_path / "whose home"
    (home / "models" / "guard").mkdir(parents=True)
    config = {
        "out": "run",
        "data": {"benign": ["benign.jsonl", "../shared/more.jsonl"], "malicious": ["/data/attacks.jsonl"]},
        "train": {"recipe": "full", "encoder": "models/guard"},
        "evaluate": {"benign_test": "test.jsonl"},
    }
    (home / "crywolf.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(home)

    def stop(session: Session) -> Any:
        raise Stopped(session)

    monkeypatch.setattr(loop, "run_train", stop)
    monkeypatch.setattr(loop, "run_retrain", stop)

    def run(*words: str) -> Session:
        with pytest.raises(Stopped) as stopped:
            crywolf(*words)
        return stopped.value.args[0]

    return run


def test_the_configuration_is_shown_as_seen_from_its_file(told: Callable[..., Session], tmp_path: Path) -> None:
    shown = reporting._configuration(told("retrain", "--config", str(tmp_path / "whose home" / "crywolf.yaml")))
    assert str(tmp_path) not in shown
    raw = yaml.safe_load(shown)
    assert raw["out"] == "run"
    assert raw["data"]["benign"] == ["benign.jsonl", "../shared/more.jsonl"]
    assert raw["data"]["malicious"] == ["/data/attacks.jsonl"]
    assert raw["train"]["encoder"] == "models/guard"
    assert raw["feedback"]["store"] == "feedback.sqlite"


def test_the_command_is_shown_as_it_was_given_without_secrets(told: Callable[..., Session]) -> None:
    session = told(
        *("retrain", "--config", "crywolf.yaml", "--incremental", "--epochs", "3", "--report", "new report.html"),
        *("--track=http://me:s3cret@mlflow.example:5000/?token=abc", "--seed", "0"),
    )
    comment, first, second = reporting._commands(session)
    assert second == (
        "crywolf retrain --config crywolf.yaml --incremental --epochs 3 --report 'new report.html' "
        "--track=http://mlflow.example:5000/ --seed 0"
    )
    assert first == "crywolf train --config crywolf.yaml"
    assert "train.recipe (there: full)" in comment
    assert "train.epochs (there: not set)" in comment
    assert "seed" not in comment
    assert "s3cret" not in comment + reporting._configuration(session)


def test_every_model_of_an_ensemble_before_is_named_by_its_hash(tiny_package: Path, tmp_path: Path) -> None:
    ensemble = tmp_path / "vote.yaml"
    ensemble.write_text(yaml.safe_dump({"members": [str(tiny_package), "guard:score"]}))
    result = SimpleNamespace(before_package=str(ensemble), package=tiny_package)  # all that this table looks at
    rows = {row[0]: row[2] for row in reporting._made_table(cast(Retrained, result)).rows}
    version = read_settings(tiny_package).version
    assert rows[f"detector before: model of member 1: {version}"] == file_hash(tiny_package / "model.int8.onnx")
    assert rows["detector after: its manifest"] == file_hash(tiny_package / "manifest.json")
