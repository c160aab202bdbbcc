"""Trainings recorded with MLflow in a local database: numbers, settings and files, no prompts, and never in the way."""

import dataclasses
import importlib.util
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.data import BadInput, MissingExtra
from crywolf.train import Recipe, fit
from crywolf.train.learn import tracking
from crywolf.train.learn.tracking import LOCAL, RECORD, Tracker, Tracking, attach, flattened

MakeRows = Callable[..., pl.DataFrame]


class StoppedError(Exception):
    """Ends a training in the middle."""


@pytest.fixture
def store(tmp_path: Path) -> Tracking:
    pytest.importorskip("mlflow")
    return Tracking(f"sqlite:///{tmp_path / 'mlruns.db'}", "threats")


@pytest.fixture
def short(tiny_recipe: Recipe) -> Recipe:
    return dataclasses.replace(tiny_recipe, epochs=2)


def client(store: Tracking) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=store.store)


def runs(store: Tracking) -> list[Any]:
    found = client(store).get_experiment_by_name(store.experiment)
    return list(client(store).search_runs([found.experiment_id])) if found else []


def test_a_training_is_recorded_whole_and_without_prompts(
    store: Tracking, short: Recipe, tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path
) -> None:
    train, validation = make_rows(60, 1), make_rows(40, 2)
    out = tmp_path / "base" / "model"
    result = fit(train, validation, recipe=short, out=out, encoder=tiny_encoder, seed=3, tracking=store)
    (run,) = runs(store)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "base")

    params = run.data.params
    assert (params["seed"], params["recipe.epochs"], params["recipe.benign_weight"]) == ("3", "2", "1.5")
    assert params["data.training.rows"] == str(len(train))
    assert len(params["data.validation.sha256"]) == 64
    assert params["encoder.name"] == tiny_encoder.name

    for name in ("loss", "validation_loss", "fp_rate", "recall", "f1", "fp_at_recall"):
        points = client(store).get_metric_history(run.info.run_id, name)
        assert [(point.step, point.value) for point in points] == [
            (entry["epoch"], pytest.approx(entry[name])) for entry in result.history
        ]
    assert run.data.metrics["threshold"] == pytest.approx(result.threshold.value)
    assert run.data.metrics["final_recall"] == pytest.approx(result.threshold.recall)

    files = {item.path for item in client(store).list_artifacts(run.info.run_id)}
    assert files == {"run.json", "history.json", "crywolf.json"}
    assert (tmp_path / "mlruns-artifacts" / "threats").is_dir()

    report = tmp_path / "report.html"
    report.write_text("<p>a report</p>")
    attach(store, out, [report, tmp_path / "not there"], warn=pytest.fail)
    assert "report.html" in {item.path for item in client(store).list_artifacts(run.info.run_id)}

    database = (tmp_path / "mlruns.db").read_bytes()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "mlruns-artifacts").rglob("*") if path.is_file())
    for text in (*train["text"], *validation["text"]):
        assert text.encode() not in database + kept


def test_what_is_recorded_changes_nothing(
    store: Tracking, short: Recipe, tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path
) -> None:
    from crywolf.train.learn.model import sha256

    rows: dict[str, Any] = {"recipe": short, "encoder": tiny_encoder}
    one = fit(make_rows(60, 1), make_rows(40, 2), out=tmp_path / "tracked", tracking=store, **rows)
    two = fit(make_rows(60, 1), make_rows(40, 2), out=tmp_path / "alone", **rows)
    assert sha256(one.model_dir / "model.safetensors") == sha256(two.model_dir / "model.safetensors")
    assert not (tmp_path / "alone" / RECORD).exists()


def test_a_resumed_training_goes_on_in_the_same_tracked_run(
    store: Tracking, short: Recipe, tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path
) -> None:
    call: dict[str, Any] = {"recipe": short, "encoder": tiny_encoder, "out": tmp_path / "run", "tracking": store}

    def stop(entry: dict[str, Any]) -> None:
        if entry["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(make_rows(60, 1), make_rows(40, 2), on_epoch=stop, **call)
    (run,) = runs(store)
    assert run.info.status == "FAILED"
    assert fit(make_rows(60, 1), make_rows(40, 2), **call).resumed_from == 1
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    steps = {point.step for point in client(store).get_metric_history(run.info.run_id, "f1")}
    assert steps == {1, 2}

    # Another training in the folder is another run; so is this one in another experiment.
    fit(make_rows(60, 1), make_rows(40, 2), seed=1, force=True, **call)
    assert len(runs(store)) == 2


def test_a_server_that_is_down_is_warned_of_once_and_kills_nothing(
    short: Recipe, tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines: list[str] = []
    down = Tracking(f"http://somebody:hunter2@127.0.0.1:{port}")
    recipe = dataclasses.replace(short, epochs=1)
    call: dict[str, Any] = {"recipe": recipe, "encoder": tiny_encoder, "tracking": down, "log": lines.append}
    result = fit(make_rows(60, 1), make_rows(40, 2), out=tmp_path / "run", **call)
    assert len(result.history) == 1
    (warning,) = [line for line in lines if "tracking" in line]
    assert f"http://127.0.0.1:{port}" in warning
    assert not [line for line in lines if "hunter2" in line]
    assert not [path for path in tmp_path.rglob("*.json") if "hunter2" in path.read_text()]


def test_what_could_not_be_sent_is_sent_when_the_server_is_back(
    store: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Tracking) -> Any:
        raise ConnectionError("nobody answers")

    warnings: list[str] = []
    tracker = Tracker(store, tmp_path, key="a run", warn=warnings.append)
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "_client", away)
        tracker.begin({"seed": 0})
        tracker.metrics({"f1": 0.5, "recall": None, "precision": float("nan")}, step=1)
    assert len(warnings) == 1
    tracker.metrics({"f1": 0.75}, step=2)
    tracker.end()
    (run,) = runs(store)
    assert (run.data.params, run.data.metrics, run.info.status) == ({"seed": "0"}, {"f1": 0.75}, "FINISHED")
    assert [point.value for point in client(store).get_metric_history(run.info.run_id, "f1")] == [0.5, 0.75]
    assert len(warnings) == 1


def test_what_the_server_refuses_does_not_hold_up_the_rest(store: Tracking, tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = Tracker(store, tmp_path, key="a run", warn=warnings.append)
    tracker.begin({"seed": 0})
    tracker.begin({"seed": 1})  # a parameter that is set cannot be changed
    tracker.metrics({"f1": 0.5})
    (run,) = runs(store)
    assert (run.data.params, run.data.metrics) == ({"seed": "0"}, {"f1": 0.5})
    assert len(warnings) == 1


def test_a_tracked_run_that_was_deleted_for_good_is_begun_anew(store: Tracking, tmp_path: Path) -> None:
    tracker = Tracker(store, tmp_path, key="a run", warn=pytest.fail)
    tracker.begin({"seed": 0})
    record = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**record, "run_id": "0" * 32}))
    Tracker(store, tmp_path, key="a run", warn=pytest.fail).begin({"seed": 0})
    assert len(runs(store)) == 2


def test_a_missing_extra_is_named_before_any_work(
    tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    hidden = {"mlflow", "wandb"}
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None if name in hidden else found(name))
    rows: dict[str, Any] = {"out": tmp_path / "run", "encoder": tiny_encoder}
    with pytest.raises(MissingExtra, match=r"pip install 'crywolf\[mlflow\]'"):
        fit(make_rows(20, 1), make_rows(20, 2), tracking=Tracking(LOCAL), **rows)
    with pytest.raises(MissingExtra, match="pip install wandb"):
        fit(make_rows(20, 1), make_rows(20, 2), tracking=Tracking(report_to=("wandb",)), **rows)
    assert not (tmp_path / "run").exists()


def test_where_to_is_checked_and_said_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="report_to has 'wand'"):
        Tracking(report_to=("wand",))
    with pytest.raises(BadInput, match="needs a name"):
        Tracking(LOCAL, experiment=" ")
    assert Tracking("https://me:pass@mlflow.example/x").shown == "https://mlflow.example/x"
    assert Tracking("runs/mlruns.db").store == "sqlite:///runs/mlruns.db"
    assert Tracking(LOCAL).relative_to(tmp_path).store == f"sqlite:///{tmp_path}/mlruns.db"
    assert Tracking("sqlite:////data/a.db").relative_to(tmp_path).store == "sqlite:////data/a.db"
    assert Tracking("http://host:5000").relative_to(tmp_path).store == "http://host:5000"
    assert Tracking().relative_to(tmp_path).store is None


def test_parameters_are_flat_and_their_names_are_plain() -> None:
    nested = {"recipe": {"mix": {"a (b)": 0.5}, "epoch_rows": None}, "data": {"training rows": 3}}
    assert dict(flattened(nested)) == {"recipe.mix.a__b_": 0.5, "data.training_rows": 3}
