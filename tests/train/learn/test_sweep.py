"""The sweep: what it proposes first, what it keeps, what it ends early, and that it goes on where it was stopped."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.data import BadInput, CrywolfError, MissingExtra
from crywolf.train import Recipe
from crywolf.train.learn import sweep as module
from crywolf.train.learn.fit import FitResult
from crywolf.train.learn.sweep import KNOBS, Space, SweepResult, sweep

MakeRows = Callable[..., pl.DataFrame]


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    pytest.importorskip("optuna")
    return dataclasses.replace(tiny_recipe, epochs=2)


@pytest.fixture
def run(recipe: Recipe, tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path) -> Callable[..., SweepResult]:
    def go(**changes: Any) -> SweepResult:
        values: dict[str, Any] = {"recipe": recipe, "out": tmp_path / "sweep", "encoder": tiny_encoder, **changes}
        return sweep(make_rows(60, 1), values.pop("validation", make_rows(50, 2)), **values)

    return go


def test_a_recipe_that_learns_from_teachers_is_refused(run: Callable[..., SweepResult], recipe: Recipe) -> None:
    with pytest.raises(BadInput, match="needs teachers"):
        run(trials=1, recipe=dataclasses.replace(recipe, distill=0.5))


def test_the_recipe_itself_is_tried_first_and_the_best_is_a_recipe(
    run: Callable[..., SweepResult], recipe: Recipe, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    lines: list[str] = []
    result = run(trials=3, progress=lambda done, total: seen.append((done, total)), log=lines.append)
    table = result.trials
    assert table["trial"].to_list() == [0, 1, 2]
    assert table.select(KNOBS).row(0) == tuple(getattr(recipe, name) for name in KNOBS)
    assert table["state"].to_list() == ["done"] * 3
    assert table["epochs"].to_list() == [2, 2, 2]
    assert (table["low"] <= table["fp_rate"]).all()
    assert (table["fp_rate"] <= table["high"]).all()
    assert result.fp_rate.value == table["fp_rate"].min()
    assert result.start is not None
    assert result.start.value == table["fp_rate"][0]
    for name in KNOBS:
        assert getattr(result.best, name) == table[name][result.best_trial]
    assert result.best.select_by == "fp_at_recall"
    assert Recipe.from_mapping(result.settings(), base=recipe).learning_rate > 0
    assert "measure it on others" in result.text
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert len([line for line in lines if "at 95% recall" in line and line.startswith("trial")]) == 3
    # The study stays, the models go.
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {".lock", "sweep.sqlite", "trials"}
    assert not list((tmp_path / "sweep" / "trials").iterdir())


def test_the_same_call_adds_only_the_trials_that_are_missing(run: Callable[..., SweepResult]) -> None:
    first = run(trials=2)
    lines: list[str] = []
    again = run(trials=3, log=lines.append)
    assert again.trials.head(2).equals(first.trials)
    assert len(again.trials) == 3
    assert again.trials.select(KNOBS).is_unique().all()
    assert not [line for line in lines if line.startswith(("trial 0", "trial 1"))]
    assert run(trials=3).trials.equals(again.trials)


def test_a_stopped_trial_is_taken_up_again_from_its_last_epoch(run: Callable[..., SweepResult]) -> None:
    def stop(line: str) -> None:
        if line.startswith("epoch 2/2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trials=2, log=stop)
    lines: list[str] = []
    result = run(trials=2, log=lines.append)
    assert "resumed after epoch 1 of 2" in lines
    assert len(result.trials) == 2
    assert result.start is not None
    whole = result.trials.filter(pl.col("state") == "done")
    assert len(whole) == 2


def test_what_lags_is_pruned_and_what_fails_is_passed_over(
    run: Callable[..., SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = module.fit, []

    def fake(*args: Any, on_epoch: Callable[[dict[str, Any]], None], **kwargs: Any) -> FitResult:
        calls.append(1)
        if len(calls) == 3:
            raise CrywolfError("training diverged")
        if len(calls) == 7:
            for epoch in (1, 2):
                on_epoch({"epoch": epoch, "fp_at_recall": 1.0, "f1": 0.1})
        return real(*args, on_epoch=on_epoch, **kwargs)

    monkeypatch.setattr(module, "fit", fake)
    result = run(trials=7)
    assert result.trials["state"].to_list() == ["done"] * 2 + ["failed"] + ["done"] * 3 + ["pruned"]
    assert result.trials["fp_rate"][6] == 1.0
    assert result.trials["low"][6] is None
    assert result.best_trial not in (2, 6)
    # What failed by itself is not tried again.
    assert run(trials=7).trials.equals(result.trials)
    assert len(calls) == 7


def test_another_sweep_in_the_folder_is_refused_naming_what_changed(run: Callable[..., SweepResult]) -> None:
    run(trials=1)
    with pytest.raises(BadInput, match=r"another sweep \(it differs in: recipe, seed\)"):
        run(trials=1, seed=5, recall=0.9)


def test_what_cannot_be_searched_is_refused_before_any_work(
    run: Callable[..., SweepResult], make_rows: MakeRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match="0 trials"):
        run(trials=0)
    with pytest.raises(BadInput, match="rows of both labels"):
        run(validation=make_rows(20, 2, malicious=0.0))
    with pytest.raises(BadInput, match="select_recall is 0"):
        run(recall=0.3)
    with pytest.raises(BadInput, match="learning_rate from 2 to 1"):
        Space(learning_rate=(2.0, 1.0))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "optuna" else found(name))
    with pytest.raises(MissingExtra, match=r"pip install 'crywolf\[sweep\]'"):
        run()
    assert not (tmp_path / "sweep").exists()
