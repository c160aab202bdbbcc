"""Distillation: the student follows the teachers and not the labels, and each row is scored once."""

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from crywolf.data import BadInput, CorruptPackage
from crywolf.train import FitResult, Mix, Recipe, TrainedModel, fit
from crywolf.train.learn import teachers
from crywolf.train.learn.batches import TokenRows, tokenize_rows
from crywolf.train.learn.model import KNOWN_THREATS, load_tokenizer, sha256
from crywolf.train.learn.pieces import pieces
from crywolf.train.learn.teachers import drawn_rows, mean_margins, taught, teacher_hashes
from crywolf.train.learn.trainer import Losses

MakeRows = Callable[..., pl.DataFrame]
FEW = Mix(original_benign=0.5, original_malicious=0.5)


class StoppedError(Exception):
    """Raised from a callback to end a training in the middle."""


@dataclasses.dataclass(frozen=True)
class School:
    """Rows, two trained teachers, and a recipe that learns from them."""

    encoder: Path
    recipe: Recipe
    train: pl.DataFrame
    validation: pl.DataFrame
    teachers: tuple[Path, ...] = ()

    def fit(self, out: Path, **changes: Any) -> FitResult:
        values: dict[str, Any] = {"recipe": self.recipe, "encoder": self.encoder, "teachers": self.teachers, **changes}
        return fit(values.pop("train", self.train), self.validation, out=out, **values)

    def rows(self, **mix: Any) -> TokenRows:
        return tokenize_rows(self.train, load_tokenizer(self.encoder, 32), KNOWN_THREATS, **mix)


@pytest.fixture(scope="module")
def school(
    tiny_encoder: Path, tiny_recipe: Recipe, make_rows: MakeRows, tmp_path_factory: pytest.TempPathFactory
) -> School:
    plain = School(tiny_encoder, tiny_recipe, make_rows(96, 1), make_rows(50, 2))
    out = tmp_path_factory.mktemp("teachers")
    trained = tuple(plain.fit(out / str(seed), seed=seed).model_dir for seed in (0, 1))
    return dataclasses.replace(plain, recipe=dataclasses.replace(tiny_recipe, distill=0.7), teachers=trained)


@pytest.fixture(scope="module")
def whole(school: School, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """The uninterrupted student that others are compared with."""
    return school.fit(tmp_path_factory.mktemp("whole") / "run")


def _weights(result: FitResult) -> str:
    return sha256(result.model_dir / "model.safetensors")


def test_a_student_of_teachers_alone_follows_them_against_its_labels(school: School, tmp_path: Path) -> None:
    turned = school.train.with_columns(
        pl.when(pl.col("label").cast(pl.String) == "BENIGN")
        .then(pl.lit("MALICIOUS"))
        .otherwise(pl.lit("BENIGN"))
        .cast(school.train.schema["label"])
        .alias("label")
    )
    recipe = dataclasses.replace(school.recipe, distill=1.0, epochs=4)
    student = TrainedModel.load(school.fit(tmp_path / "run", train=turned, recipe=recipe).model_dir)
    texts = school.validation["text"].to_list()
    theirs, own = mean_margins(school.teachers, texts), student.margins(texts)
    assert np.corrcoef(theirs, own)[0, 1] > 0.8
    malicious = (school.validation["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    assert ((own >= 0) == malicious).mean() > 0.8


def test_the_lesson_is_the_mean_of_the_teachers_log_odds(school: School) -> None:
    texts = school.validation["text"].to_list()
    one, two = (TrainedModel.load(folder).margins(texts) for folder in school.teachers)
    assert not np.allclose(one, two, atol=0.1)
    np.testing.assert_allclose(mean_margins(school.teachers, texts), (one + two) / 2, atol=1e-5)


def test_every_row_that_an_epoch_shows_has_been_scored_and_no_other(
    school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    seen: list[float] = []
    before = mean_margins, Losses.__call__

    def scored(folders: Any, texts: Any) -> Any:
        asked.append(len(texts))
        return before[0](folders, texts)

    def looked_at(self: Losses, inputs: Any, *logits: Any) -> Any:
        seen.extend(inputs["teacher_margins"].tolist() if "teacher_margins" in inputs else ())
        return before[1](self, inputs, *logits)

    monkeypatch.setattr(teachers, "mean_margins", scored)
    monkeypatch.setattr(Losses, "__call__", looked_at)
    recipe = dataclasses.replace(school.recipe, mix=FEW, epoch_rows=16, epochs=2)
    school.fit(tmp_path / "run", recipe=recipe)
    assert len(seen) == 2 * 16  # validation rows have none
    assert not any(map(math.isnan, seen))
    assert 16 < asked[0] <= 32
    assert len(set(seen)) == asked[0]


def test_without_a_mix_all_rows_are_scored(school: School) -> None:
    rows = school.rows()
    assert drawn_rows(rows, epochs=3, batch_size=8, seed=0).tolist() == list(range(len(rows)))


@pytest.mark.parametrize("step", [3, 15])
def test_a_resumed_student_ends_the_same_and_its_teachers_do_not_score_again(
    whole: FitResult, school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def stop(done: int, _: int) -> None:
        if done == step:
            raise StoppedError

    def never(*_: object) -> Any:
        raise AssertionError("scored once more")

    with pytest.raises(StoppedError):
        school.fit(tmp_path / "run", progress=stop)
    monkeypatch.setattr(teachers, "mean_margins", never)
    assert _weights(school.fit(tmp_path / "run")) == _weights(whole)
    assert not (tmp_path / "run" / "checkpoints").exists()


def _other_ids(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(id=pl.col("id").reverse())


@pytest.mark.parametrize(
    "damage",
    [
        _other_ids,
        lambda table: table.head(3),
        lambda table: table.rename({"margin": "score"}),
        lambda table: table.with_columns(margin=pl.lit(math.nan, dtype=pl.Float32)),
        None,
    ],
)
def test_kept_margins_that_are_not_of_these_rows_are_made_again(
    school: School, tmp_path: Path, damage: Callable[[pl.DataFrame], pl.DataFrame] | None
) -> None:
    kept, rows, lines = tmp_path / "teachers.parquet", school.rows(), list[str]()
    at = np.array([1, 4, 5, 9])

    def lesson() -> Any:
        return taught(rows, school.train, school.teachers, at=at, kept=kept, log=lines.append).teacher_margins

    first = lesson()
    assert np.flatnonzero(~np.isnan(first)).tolist() == at.tolist()
    np.testing.assert_array_equal(lesson(), first)
    if damage is None:
        kept.write_bytes(kept.read_bytes()[:-20])
    else:
        damage(pl.read_parquet(kept)).write_parquet(kept)
    np.testing.assert_array_equal(lesson(), first)
    assert ["read back" in line for line in lines] == [False, True, False]


def test_a_row_that_is_cut_or_joined_has_its_label_alone(school: School) -> None:
    rows = dataclasses.replace(school.rows(), teacher_margins=np.ones(school.train.height, dtype=np.float32))
    shown = pieces(rows, crop=0.5, pack=0.5, epochs=2, seed=0)
    lone = [
        (shown[index]["input_ids"] != rows.input_ids[shown.shown.row[index]], shown[index]["teacher_margins"])
        for index in range(len(shown))
    ]
    assert {changed for changed, _ in lone} == {True, False}
    assert all(math.isnan(margin) if changed else margin == 1.0 for changed, margin in lone)


def test_teachers_and_distill_need_each_other(school: School, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"distill is 0\.7, but there are no teachers"):
        school.fit(tmp_path / "run", teachers=())
    with pytest.raises(BadInput, match="2 teachers, but distill is 0"):
        school.fit(tmp_path / "run", recipe=dataclasses.replace(school.recipe, distill=0.0))
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_none_or_was_altered_is_refused_before_any_work(school: School, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model folder"):
        school.fit(tmp_path / "run", teachers=[tmp_path])
    altered = shutil.copytree(school.teachers[0], tmp_path / "altered")
    content = bytearray((altered / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (altered / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptPackage, match="SHA-256"):
        school.fit(tmp_path / "run", teachers=[altered])
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_teachers_is_another_run(school: School, whole: FitResult, tmp_path: Path) -> None:
    out = whole.model_dir.parent
    with pytest.raises(BadInput, match="differs in: teachers"):
        school.fit(out, teachers=school.teachers[:1])
    moved = [shutil.copytree(folder, tmp_path / folder.parent.name) for folder in school.teachers]
    assert teacher_hashes(moved) == teacher_hashes(school.teachers)
    assert school.fit(out, teachers=moved[::-1]).resumed_from == 3  # by weights, wherever they lie
