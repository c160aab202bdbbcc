"""Naming threats is counted apart from finding them, and `unknown` is no name."""

import json

import polars as pl
import pytest

from crywolf.data import BadInput
from crywolf.train.measure.intervals import Rate, wilson
from crywolf.train.measure.threats import threat_naming

CM, SJ, OC = "context_manipulation", "semantic_jailbreak", "obfuscated_command"


def _rows(*groups: tuple[int, str, str | None, bool, str | None]) -> pl.DataFrame:
    columns = ("label", "threat_type", "flagged", "taken_for")
    return pl.DataFrame(
        [group[1:] for group in groups for _ in range(group[0])],
        schema=dict(zip(columns, (pl.String, pl.String, pl.Boolean, pl.String), strict=True)),
        orient="row",
    )


ROWS = _rows(
    (6, "MALICIOUS", CM, True, CM),
    (2, "MALICIOUS", CM, True, SJ),
    (3, "MALICIOUS", CM, True, "unknown"),
    (1, "MALICIOUS", CM, False, None),
    (4, "MALICIOUS", SJ, True, SJ),
    (5, "MALICIOUS", "unknown", True, SJ),
    (2, "MALICIOUS", None, False, None),
    (7, "BENIGN", SJ, True, CM),
    (9, "BENIGN", None, False, None),
)


def test_recall_counts_the_missed_and_the_unnamed_and_precision_neither() -> None:
    table = {row["threat_type"]: row for row in threat_naming(ROWS).types.to_dicts()}
    cm, sj = table[CM], table[SJ]
    assert (cm["attacks"], cm["flagged"], cm["unknown"], cm["recall_k"]) == (12, 11, 3, 6)
    assert cm["recall"] == 0.5
    assert (cm["recall_low"], cm["recall_high"]) == pytest.approx(wilson(6, 12))
    assert (cm["named"], cm["precision"], cm["benign"]) == (6, 1.0, 7)
    assert (sj["attacks"], sj["recall"], sj["named"], sj["unjudged"]) == (4, 1.0, 6, 5)
    assert sj["precision"] == pytest.approx(4 / 6)


def test_the_confusion_holds_every_attack_once() -> None:
    naming = threat_naming(ROWS)
    cells = {(row["threat_type"], row["taken_for"]): row["n"] for row in naming.confusion.to_dicts()}
    assert sum(cells.values()) == 23
    assert cells[CM, "(missed)"] == 1
    assert cells["unknown", "(missed)"] == 2
    assert cells["unknown", SJ] == 5
    assert naming.without_type == 7
    assert naming.named_right == Rate(10, 12)
    assert naming.answered_unknown == Rate(3, 15)
    assert "7 attacks have no known type" in naming.text


def test_a_type_that_nobody_saw_has_no_rate() -> None:
    naming = threat_naming(ROWS)
    row = naming.types.filter(pl.col("threat_type") == OC).to_dicts()[0]
    assert row["attacks"] == row["named"] == 0
    (found,) = [entry for entry in json.loads(json.dumps(naming.to_dict()))["types"] if entry["threat_type"] == OC]
    assert found["recall"] is None


def test_rows_of_something_else_are_refused() -> None:
    with pytest.raises(BadInput, match="taken_for"):
        threat_naming(ROWS.drop("taken_for"))
