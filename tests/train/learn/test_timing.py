"""The time told beforehand: near enough to the truth, and without a trace in the weights."""

import dataclasses
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crywolf.data import BadInput
from crywolf.train import Recipe, fit
from crywolf.train.learn import timing
from crywolf.train.learn.batches import TokenRows
from crywolf.train.learn.model import sha256
from crywolf.train.learn.timing import TimeEstimate, spoken

MakeRows = Callable[..., pl.DataFrame]
NOW = datetime(2026, 11, 23, 13, 46)


def estimate(seconds: float, **changes: Any) -> TimeEstimate:
    values = {"epochs": 4, "rows": 98_000, "may_stop": False, "batches": 13, "measuring": 2.0}
    return TimeEstimate(seconds, **{**values, **changes})


def test_the_line_says_how_long_when_and_how_dear() -> None:
    assert estimate(34 * 60).text(NOW, 0.72) == (
        "about 34 minutes for 4 epochs (48 rows/s), done about 14:20; about 0.41 at 0.72 an hour"
    )
    assert estimate(34 * 60).text(NOW) == "about 34 minutes for 4 epochs (48 rows/s), done about 14:20"
    assert estimate(12, epochs=1).text(NOW, 0.72).endswith("; less than 0.01 at 0.72 an hour")
    over_night = estimate(20 * 3600, epochs=1, may_stop=True).text(NOW)
    assert over_night == "at most about 20.0 hours for 1 epoch (1 rows/s), done about 2026-11-24 09:46"


def test_afterwards_the_truth_stands_beside_it() -> None:
    said = estimate(40 * 60).afterwards(44 * 60, 4, 0.60)
    assert said == "took 44 minutes for 4 epochs; the estimate was 40 minutes (+10%); 0.44 at 0.6 an hour"
    # Early stopping: the estimate for as many epochs.
    assert estimate(40 * 60).afterwards(20 * 60, 2) == (
        "took 20 minutes for 2 epochs; the estimate was 20 minutes (+0%)"
    )


def test_a_warm_up_is_told_and_is_no_part_of_an_epoch() -> None:
    said = estimate(40 * 60, warmup=6 * 60)
    assert said.text(NOW, 0.72) == (
        "about 40 minutes for 4 epochs (48 rows/s), 6 minutes of it for the warm-up, done about 14:26; "
        "about 0.48 at 0.72 an hour"
    )
    # Early stopping saves epochs, not the warm-up: 6 minutes and two epochs of 8.5.
    assert "the estimate was 23 minutes (+0%)" in said.afterwards(23 * 60, 2)
    assert said.to_dict()["warmup_seconds"] == 360


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "1 second"), (89, "89 seconds"), (90, "2 minutes"), (3600, "60 minutes"), (7200, "2.0 hours")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert spoken(seconds) == said


def test_long_batches_count_for_what_they_cost() -> None:
    lengths = np.random.default_rng(0).integers(4, 200, 4000)
    rows = TokenRows(
        [[1] * int(length) for length in lengths],
        np.zeros(4000, dtype=np.int64),
        np.zeros(4000, dtype=np.int64),
        np.ones(4000, dtype=np.float32),
    )
    clock = [0.0]

    def step(batch: list[dict[str, Any]]) -> None:
        width = max(len(row["input_ids"]) for row in batch)
        clock[0] += len(batch) * width * 1e-3 + 0.01  # so many seconds a token, and some for every batch

    order = np.argsort(lengths)
    batches = [order[start : start + 20] for start in range(0, 4000, 20)]
    truth = sum(20 * int(lengths[batch].max()) * 1e-3 + 0.01 for batch in batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", lambda: clock[0])
        found, timed = timing._extrapolate(batches, rows, step, timing.TRAIN_AT)
    assert found == pytest.approx(truth, rel=1e-6)
    assert timed == 3 * 5 + 1


@pytest.fixture(scope="module")
def small_steps(tiny_recipe: Recipe) -> Recipe:
    """300 steps, with everything in them that draws by chance."""
    return dataclasses.replace(tiny_recipe, batch_size=1, learning_rate=3e-4, dropout=0.2)


def test_measuring_leaves_the_weights_as_they_would_be(
    tiny_encoder: Path,
    small_steps: Recipe,
    make_rows: MakeRows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, validation, lines = make_rows(100, 1), make_rows(50, 2), []
    measured = fit(
        train,
        validation,
        recipe=small_steps,
        out=tmp_path / "measured",
        encoder=tiny_encoder,
        log=lines.append,
        price_per_hour=3.6,
    )
    assert measured.estimate is not None
    assert measured.estimate.epochs == 3
    assert measured.estimate.rows == 3 * len(train)
    before = [line for line in lines if line.startswith("about ") and "3 epochs" in line and "at 3.6 an hour" in line]
    after = [line for line in lines if line.startswith("took ") and "the estimate was" in line]
    assert len(before) == len(after) == 1
    assert lines.index(before[0]) < next(i for i, line in enumerate(lines) if line.startswith("epoch 1/"))

    monkeypatch.setattr(timing, "MIN_STEPS", 10**9)
    unmeasured = fit(train, validation, recipe=small_steps, out=tmp_path / "unmeasured", encoder=tiny_encoder)
    assert unmeasured.estimate is None
    assert sha256(measured.model_dir / "model.safetensors") == sha256(unmeasured.model_dir / "model.safetensors")
    same = [{**entry, "seconds": 0} for entry in unmeasured.history]
    assert [{**entry, "seconds": 0} for entry in measured.history] == same


def test_the_warm_up_is_counted_in_before_it_begins_and_measuring_leaves_no_trace(
    tiny_encoder: Path, small_steps: Recipe, make_rows: MakeRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = {"pretrain": "benign", "pretrain_rows": 700, "contrastive_rows": 640, "contrastive_pool": 40}
    recipe = dataclasses.replace(small_steps, epochs=2, **warm)
    train, validation, lines = make_rows(96, 1), make_rows(50, 2), []
    told: list[tuple[int, int]] = []
    measure = timing._extrapolate

    def extrapolate(batches: Any, rows: Any, step: Any, *rest: Any, **options: Any) -> tuple[float, int]:
        told.append((len(batches), sum(map(len, batches))))
        return measure(batches, rows, step, *rest, **options)

    monkeypatch.setattr(timing, "_extrapolate", extrapolate)
    result = fit(train, validation, recipe=recipe, out=tmp_path / "run", encoder=tiny_encoder, log=lines.append)
    assert result.estimate is not None
    assert 0 < result.estimate.warmup < result.estimate.seconds
    said = next(at for at, line in enumerate(lines) if "of it for the warm-up" in line)
    steps = [line for line in lines[said:] if line.startswith(("pretraining", "contrastive"))]
    assert len(steps) == 2, "they begin after what they will take was told"
    shown = [[int(n.replace(",", "")) for n in re.findall(r"([\d,]+) (?:rows|steps)", line)] for line in steps]
    (_, _, (batches, rows), _) = told
    assert batches == pytest.approx(shown[0][1] + shown[1][1], rel=0.1)  # a pass may end with a short batch
    # Two passes of each row in pretraining; attacks that share a neighbour make a batch smaller.
    assert 2 * shown[0][0] + shown[1][0] <= rows <= 2 * shown[0][0] + 1.2 * 640
    monkeypatch.setattr(timing, "MIN_STEPS", 10**9)
    unmeasured = fit(train, validation, recipe=recipe, out=tmp_path / "unmeasured", encoder=tiny_encoder)
    assert unmeasured.estimate is None
    assert sha256(result.model_dir / "model.safetensors") == sha256(unmeasured.model_dir / "model.safetensors")


def test_a_resumed_run_is_told_of_the_rest_alone(
    tiny_encoder: Path, small_steps: Recipe, make_rows: MakeRows, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, _: int) -> None:
        if done == 150:
            raise StoppedError

    rows = make_rows(120, 1)
    # Two epochs of so many steps are left of three: enough to measure.
    call: dict[str, Any] = {"recipe": small_steps, "encoder": tiny_encoder}
    with pytest.raises(StoppedError):
        fit(rows, make_rows(50, 2), out=tmp_path / "run", progress=stop, **call)
    result = fit(rows, make_rows(50, 2), out=tmp_path / "run", **call)
    assert result.resumed_from == 1
    assert result.estimate is not None
    assert (result.estimate.epochs, result.estimate.rows) == (2, 2 * len(rows))


def test_a_price_that_is_none_is_refused(tiny_encoder: Path, make_rows: MakeRows, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="price of -1"):
        fit(make_rows(20, 1), make_rows(20, 2), out=tmp_path / "run", encoder=tiny_encoder, price_per_hour=-1)
    assert not (tmp_path / "run").exists()
