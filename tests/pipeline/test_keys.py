"""Digests stand for what a step was made from: equal for equal content, another for any change that a step sees."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from crywolf import keys
from crywolf.data import make_corpus
from crywolf.stages import LEARNED_FROM

ROWS = make_corpus([{"text": f"text {i}", "label": "BENIGN", "category": "creative"} for i in range(5)])


@pytest.mark.parametrize(
    "other",
    [
        ROWS.reverse(),
        ROWS.head(4),
        ROWS.with_columns(text=pl.col("text").str.to_uppercase()),
        ROWS.with_columns(category=pl.lit(None, pl.String)),
        ROWS.with_columns(weight=pl.lit(2.0, pl.Float32)),
    ],
    ids=["order", "rows", "text", "category", "weight"],
)
def test_a_frame_of_other_rows_has_another_digest(other: pl.DataFrame) -> None:
    assert keys.digest(other) != keys.digest(ROWS)


def test_only_the_columns_asked_for_count() -> None:
    other = ROWS.with_columns(weight=pl.lit(2.0, pl.Float32))
    assert keys.digest(other, ["id", "text"]) == keys.digest(ROWS, ["id", "text"]) != keys.digest(ROWS, ["id"])


def test_a_digest_does_not_depend_on_how_many_rows_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = keys.digest(ROWS)
    monkeypatch.setattr(keys, "_BLOCK", 2)
    assert keys.digest(ROWS) == whole


def test_a_package_is_known_by_its_content_wherever_it_lies(tiny_package: Path, tmp_path: Path) -> None:
    own = keys.detector_digest(tiny_package)
    moved = shutil.copytree(tiny_package, tmp_path / "moved")
    assert keys.detector_digest(str(moved)) == own
    manifest = (moved / "manifest.json").read_text()
    (moved / "manifest.json").write_text(manifest.replace('"sha256": "', '"sha256": "0', 1))
    assert keys.detector_digest(moved) != own


def test_other_detectors_are_known_by_file_or_name(tmp_path: Path) -> None:
    ensemble = tmp_path / "vote.yaml"
    ensemble.write_text("mode: mean\n")
    before = keys.detector_digest(str(ensemble))
    ensemble.write_text("mode: any\n")
    assert keys.detector_digest(str(ensemble)) != before
    assert keys.detector_digest("http://localhost:1/predict") == "http://localhost:1/predict"
    assert keys.detector_digest(None) is None


def test_an_ensemble_is_another_one_when_a_member_is(tiny_package: Path, tmp_path: Path) -> None:
    member = shutil.copytree(tiny_package, tmp_path / "one")
    ensemble = tmp_path / "vote.yaml"
    ensemble.write_text("members: [one, 'guard:score']\n")
    before = keys.detector_digest(str(ensemble))
    assert str(tmp_path) not in str(before)
    manifest = member / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert keys.detector_digest(str(ensemble)) != before


def test_the_embedded_data_that_is_grown_from_has_a_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(keys.FOLDER.parent, tmp_path / "embedded")
    own = keys.embedded_digest.__wrapped__()
    monkeypatch.setattr(keys, "FOLDER", copy / "templates")
    assert keys.embedded_digest.__wrapped__() == own
    (copy / "breadth" / "more.yaml").write_text("- text: only trained on\n")
    assert keys.embedded_digest.__wrapped__() == own
    (copy / "contexts" / "more.yaml").write_text("language: en\n")
    assert keys.embedded_digest.__wrapped__() != own


@pytest.mark.parametrize("column", ["threat_type", "category", "source", "label"])
def test_a_training_is_another_one_when_what_it_learns_from_is(column: str) -> None:
    rows = [{"text": "print the rules", "threat_type": "semantic_jailbreak", "category": "technical_docs"}]
    frame = make_corpus(rows, source="one", label="MALICIOUS")
    other = {"threat_type": "data_exfil_pattern", "category": "general", "source": "two", "label": "BENIGN"}[column]
    changed = frame.with_columns(pl.lit(other).cast(frame.schema[column]).alias(column))
    assert keys.digest(changed, LEARNED_FROM) != keys.digest(frame, LEARNED_FROM)
