"""Which epoch is the best: by F1, or by the FP rate at a fixed recall, which the history keeps for a resumed run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crywolf.data import BadInput
from crywolf.train import Recipe, TrainedModel, fit
from crywolf.train.learn.trainer import best_epoch, fp_at_recall, out_of_patience
from crywolf.train.measure.metrics import fp_rate_at_recall

MakeRows = Callable[..., pl.DataFrame]


def entry(epoch: int, f1: float, fp: float | None, loss: float = 0.1) -> dict[str, Any]:
    return {"epoch": epoch, "f1": f1, "fp_at_recall": fp, "validation_loss": loss}


def test_the_two_ways_choose_differently() -> None:
    history = [entry(1, 0.90, 0.02), entry(2, 0.95, 0.05), entry(3, 0.93, 0.02, 0.2), entry(4, 0.93, 0.02, 0.1)]
    assert best_epoch(history) == best_epoch(history, "f1") == 2
    # Among equals the higher F1, then the lower loss.
    assert best_epoch(history, "fp_at_recall") == 4


def test_without_attacks_or_benign_rows_f1_decides() -> None:
    assert best_epoch([entry(1, 0.5, None), entry(2, 0.7, None)], "fp_at_recall") == 2
    margins = np.array([0.1, 0.2])
    assert fp_at_recall(margins, np.array([True, True]), 0.95) is None
    assert fp_at_recall(margins, np.array([False, False]), 0.95) is None


def test_patience_counts_what_epochs_are_chosen_by() -> None:
    history = [entry(1, 0.5, 0.01), entry(2, 0.6, 0.02), entry(3, 0.7, 0.03)]
    by_f1 = Recipe(patience=2)
    assert not out_of_patience(history, by_f1)
    assert out_of_patience(history, dataclasses.replace(by_f1, select_by="fp_at_recall"))
    assert not out_of_patience(history, dataclasses.replace(by_f1, select_by="fp_at_recall", patience=0))


def test_a_recipe_takes_only_ways_that_there_are() -> None:
    with pytest.raises(BadInput, match="select_by is 'recall'; it must be one of f1, fp_at_recall"):
        Recipe.from_mapping({"select_by": "recall"})
    with pytest.raises(BadInput, match=r"select_recall is 95"):
        Recipe(select_recall=95.0)


def test_the_best_epoch_has_the_lowest_fp_rate_at_the_recall_and_resuming_finds_it_again(
    tiny_encoder: Path, tiny_recipe: Recipe, make_rows: MakeRows, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(epoch: dict[str, Any]) -> None:
        if epoch["epoch"] == 3:
            raise StoppedError

    recipe = dataclasses.replace(tiny_recipe, learning_rate=5e-4, select_by="fp_at_recall", select_recall=0.8)
    train, validation = make_rows(96, 1), make_rows(80, 2)
    call: dict[str, Any] = {"recipe": recipe, "encoder": tiny_encoder}
    whole = fit(train, validation, out=tmp_path / "whole", **call)
    found = [item["fp_at_recall"] for item in whole.history]
    assert found[whole.best_epoch - 1] == min(found)
    margins = TrainedModel.load(whole.model_dir).margins(validation["text"].to_list())
    malicious = (validation["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    rate = fp_rate_at_recall(margins[~malicious], margins[malicious], 0.8)
    # bfloat16 while training, float32 afterwards.
    assert rate.value == pytest.approx(min(found), abs=2 / rate.n)

    with pytest.raises(StoppedError):
        fit(train, validation, out=tmp_path / "cut", on_epoch=stop, **call)
    resumed = fit(train, validation, out=tmp_path / "cut", **call)
    assert resumed.resumed_from == 2
    assert [item["fp_at_recall"] for item in resumed.history] == found
    assert resumed.best_epoch == whole.best_epoch
