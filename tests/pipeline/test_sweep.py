"""`train --track`, its price and `sweep` by commands alone, on a tiny encoder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crywolf.config import load_config

MINIMAL = {"out": "run", "data": {"benign": ["b.jsonl"], "malicious": ["m.jsonl"]}}


def config(folder: Path, **sections: Any) -> Path:
    path = folder / "crywolf.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **sections}))
    return path


def test_nothing_is_tracked_unless_it_is_asked_for(tmp_path: Path) -> None:
    tracking = load_config(config(tmp_path)).tracking
    assert tracking.where().uri is None
    assert tracking.price_per_hour is None


def test_a_local_database_is_relative_to_the_file_and_a_password_is_not_shown(tmp_path: Path) -> None:
    local = load_config(config(tmp_path, tracking={"uri": "sqlite:///mlruns.db", "report_to": "tensorboard"}))
    assert local.tracking.where().store == f"sqlite:///{tmp_path}/mlruns.db"
    assert local.tracking.where().report_to == ("tensorboard",)
    server = load_config(
        config(tmp_path, tracking={"uri": "https://me:hunter2@mlflow.example", "price_per_hour": 0.72})
    )
    assert server.tracking.where().store == "https://me:hunter2@mlflow.example"
    # A report shows the whole configuration.
    assert "hunter2" not in json.dumps(server.model_dump(mode="json")) + repr(server)


def test_a_training_is_tracked_and_then_swept(inputs: Any, cache: Path, crywolf: Callable, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("optuna")
    from mlflow.tracking import MlflowClient

    out, database = tmp_path / "run", tmp_path / "mlruns.db"
    shared = ("--config", inputs.config, "--cache", cache, "--out", out, "--epochs", 1)
    trained = crywolf("train", *shared, "--track", database, "--price-per-hour", 0.72, "--json")
    assert trained.code == 0, trained.err
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "crywolf"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "base")
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files == {"run.json", "history.json", "crywolf.json", "package.json", "export.json"}

    # Where and for how much is no part of what was trained: the same step is found again.
    again = crywolf("train", *shared)
    assert "base: done before, reused" in again.err

    swept = crywolf("sweep", *shared, "--trials", 2, "--recall", 0.8, "--json")
    assert swept.code == 0, swept.err
    assert [row["state"] for row in swept.document["trials"]] == ["done", "done"]
    assert swept.document["best"] == str(out / "sweep" / "best.yaml")
    best = yaml.safe_load((out / "sweep" / "best.yaml").read_text())["train"]
    assert (best["recipe"], best["epochs"], best["select_by"], best["select_recall"]) == (
        "full",
        1,
        "fp_at_recall",
        0.8,
    )
    assert {"benign_weight", "focal_gamma", "learning_rate"} <= set(best)
    # It can be pasted.
    pasted = load_config(config(tmp_path, train=best)).train
    assert pasted.focal_gamma == best["focal_gamma"]
    refused = crywolf("sweep", *shared, "--trials", 2, "--recall", 0.9)
    assert (refused.code, "holds another sweep (it differs in: recipe)" in refused.err) == (2, True)


@pytest.mark.parametrize(("option", "value"), [("--trials", 0), ("--recall", 0.2), ("--price-per-hour", -1)])
def test_values_out_of_range_are_refused(crywolf: Callable, tmp_path: Path, option: str, value: float) -> None:
    command = "train" if option == "--price-per-hour" else "sweep"
    assert crywolf(command, "--config", config(tmp_path), option, value).code == 2
