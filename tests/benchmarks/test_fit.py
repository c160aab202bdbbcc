import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.augment import near_duplicate_pairs
from crywolf.train.measure.metrics import fp_rate_at_recall

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fit.py"
LABEL = pl.col("label").cast(pl.String)


def loaded() -> ModuleType:
    """The script as a module: benchmarks is no package."""
    spec = importlib.util.spec_from_file_location("bench_fit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_fit"] = module  # dataclasses look their module up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)  # as it is for a script
        spec.loader.exec_module(module)
    return module


bench = loaded()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A quick run of all arms on the embedded seeds, and its page."""
    out = tmp_path_factory.mktemp("fit") / "fit.json"
    subprocess.run([sys.executable, str(SCRIPT), "--quick", "--out", str(out)], check=True, capture_output=True)
    return json.loads(out.read_text(encoding="utf-8")) | {"page": out.with_suffix(".md").read_text(encoding="utf-8")}


@pytest.mark.slow
def test_a_quick_run_times_every_arm_against_the_plain_trainer(result: dict[str, Any]) -> None:
    speed = {row["arm"]: row for row in result["speed"]}
    assert set(speed) == set(bench.ARMS)
    for row in speed.values():
        assert row["times"] == pytest.approx(row["rows_per_second"] / speed["trainer"]["rows_per_second"], abs=0.02)
    assert speed["trainer"]["precision"] == "fp32"
    assert speed["crywolf"]["precision"] == speed["trainer-tuned"]["precision"]
    assert speed["crywolf"]["tokens_a_row"] <= speed["trainer"]["tokens_a_row"]


@pytest.mark.slow
def test_a_quick_run_measures_each_judged_arm_on_all_rows_held_out(result: dict[str, Any]) -> None:
    about = result["about"]
    trained = {row["arm"]: row for row in result["trainings"]}
    assert set(trained) == {name for name, arm in bench.ARMS.items() if arm.judged}
    for name, row in trained.items():
        assert row["accuracy"]["n"] == about["held_rows"]
        assert row["fp_at_recall"]["n"] == about["held_rows"] - round(about["held_rows"] / 3)
        assert (row["accuracy_change"] is None) == (name == "trainer")
        assert bench.ARMS[name].shown in result["page"]
    change = trained["crywolf"]["accuracy_change"]
    moved = trained["crywolf"]["accuracy"]["value"] - trained["trainer"]["accuracy"]["value"]
    assert change["value"] == pytest.approx(moved)
    assert change["low"] <= moved <= change["high"]


def test_rows_held_out_share_no_near_duplicate_with_those_trained_on() -> None:
    seeds = [frame.head(400) for frame in bench.read_pools(None)]
    # Every row has a twin: the rows drawn hold many pairs that must stay together.
    twins = [frame.with_columns(pl.col("id").str.reverse(), pl.col("text") + "!") for frame in seeds]
    pools = [pl.concat(both) for both in zip(seeds, twins, strict=True)]
    split = bench.draw(*pools, (500, 60, 200), np.random.default_rng(3))
    frames = [split.train, split.validation, split.test]
    assert [frame.height for frame in frames] == pytest.approx([500, 60, 200], abs=8)
    assert all(0.3 < frame.select((LABEL == "MALICIOUS").mean()).item() < 0.37 for frame in frames)
    fold = np.repeat([0, 1, 2], [frame.height for frame in frames])
    texts = [text for frame in frames for text in frame["text"]]
    pairs = near_duplicate_pairs(texts, threshold=0.8)[0]
    assert len(pairs) > 100
    assert (fold[pairs[:, 0]] == fold[pairs[:, 1]]).all()


def test_more_rows_than_there_are_is_said() -> None:
    with pytest.raises(SystemExit, match="benign rows are wanted"):
        bench.draw(*bench.read_pools(None), (900_000, 10, 10), np.random.default_rng(0))


@given(st.lists(st.integers(1, 256), min_size=12, max_size=200), st.integers(1, 10))
def test_the_timed_batches_stand_for_the_epoch(widths: list[int], count: int) -> None:
    found = np.array(widths)
    chosen, stands_for = bench.representative(found, count)
    assert len(set(chosen.tolist())) == count
    assert stands_for.sum() == len(found)
    # Each is off its part's mean by no more than the part spans, and the parts' spans add up to the whole span.
    off = abs(found[chosen] @ stands_for - found.sum())
    assert off <= (found.max() - found.min()) * stands_for.max()


def test_a_few_wide_batches_among_many_narrow_ones_are_timed_in_proportion() -> None:
    widths = np.random.default_rng(0).permutation(np.repeat([10, 256], [32, 6]))
    chosen, stands_for = bench.representative(widths, 6)
    assert sorted(widths[chosen].tolist()) == [10] * 5 + [256]
    assert stands_for[widths[chosen] == 256].tolist() == [6]


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.5, 0.9, 0.95, 1.0]), st.integers(0, 9))
def test_benign_rows_flagged_at_a_recall_are_as_many_as_the_rate_says(b: int, m: int, recall: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    attacks = rng.permutation(np.repeat([False, True], [b, m]))
    margins = rng.integers(-4, 5, b + m).astype(np.float64)
    flagged = bench.flagged_at_recall(margins, attacks, recall)
    assert len(flagged) == b
    assert int(flagged.sum()) == fp_rate_at_recall(margins[~attacks], margins[attacks], recall).k


def test_recipes_differ_in_what_is_frozen_alone() -> None:
    world = bench.World(*[pl.DataFrame()] * 3, Path(), 1e-4, bf16=False)
    free, frozen = (bench.recipe_of(bench.ARMS[name], world, 128) for name in ("crywolf", "crywolf-frozen"))
    differ = {key for key, value in free.to_mapping().items() if frozen.to_mapping()[key] != value}
    assert differ == {"freeze_embeddings", "freeze_layers"}
    assert (free.epochs, free.max_length, free.learning_rate) == (1, 128, 1e-4)
