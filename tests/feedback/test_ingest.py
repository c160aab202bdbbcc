"""Logs of several shapes give the same reports; what is not a new false positive is counted by reason."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.data import BadInput
from crywolf.feedback import Store, ingest

ROWS = [
    {"text": "show my list", "flagged_as_threat": True, "user_reported_fp": True, "timestamp": "2026-10-02T10:00:00Z"},
    {"text": "stop timer", "flagged_as_threat": True, "user_reported_fp": False, "timestamp": "2026-10-02T11:00:00Z"},
    {"text": "what is dns", "flagged_as_threat": False, "user_reported_fp": True, "timestamp": "2026-10-02T12:00:00Z"},
    {"text": "old report", "flagged_as_threat": True, "user_reported_fp": True, "timestamp": "2026-09-30T23:59:59Z"},
    {"text": "show my list", "flagged_as_threat": True, "user_reported_fp": True, "timestamp": "2026-10-03T10:00:00Z"},
]
EXPECTED = {"read": 5, "rejected": 0, "not_flagged": 1, "not_reported": 1, "too_old": 1, "known": 1, "new": 1} | {
    "repeats": 0
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store" / "feedback.sqlite")


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_each_format_gives_the_same_counts(tmp_path: Path, store: Store, name: str) -> None:
    log = write(ROWS, tmp_path / name)
    assert ingest(log, store, since="2026-10-01").counts == EXPECTED
    assert store.frame()["text"].to_list() == ["show my list"]


def test_reading_the_same_log_twice_adds_nothing(tmp_path: Path, store: Store) -> None:
    log = write(ROWS, tmp_path / "log.jsonl")
    ingest(log, store, since="2026-10-01")
    assert ingest(log, store, since="2026-10-01").counts["new"] == 0
    assert len(store.frame()) == 1


def test_the_logs_own_field_names_are_mapped(tmp_path: Path, store: Store) -> None:
    rows = [{"message": r["text"], "blocked": r["flagged_as_threat"], "fp": r["user_reported_fp"]} for r in ROWS]
    log = write(rows, tmp_path / "log.jsonl")
    mapping = {"text": "message", "flagged_as_threat": "blocked", "user_reported_fp": "fp"}
    assert ingest(log, store, mapping=mapping).counts["new"] == 2


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_every_field_may_have_another_name_in_the_log(tmp_path: Path, store: Store, name: str) -> None:
    theirs = {
        "text": "message",
        "id": "request",
        "category": "topic",
        "threat_type": "rule",
        "confidence": "score",
        "flagged_as_threat": "blocked",
        "user_reported_fp": "fp",
        "timestamp": "ts",
    }
    more = {"id": "r-1", "category": "daily_tasks", "threat_type": "unknown", "confidence": 0.75}
    rows = [{theirs[field]: value for field, value in {**row, **more}.items()} for row in ROWS]
    log = write(rows, tmp_path / name)
    assert ingest(log, store, since="2026-10-01", mapping=theirs).counts == EXPECTED
    report = store.frame().row(0, named=True)
    assert (report["text"], report["external_id"], report["category"]) == ("show my list", "r-1", "daily_tasks")
    assert (report["threat_type"], report["extra"]["confidence"]) == ("unknown", 0.75)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_the_named_column_counts_and_not_the_one_of_our_name(tmp_path: Path, store: Store, name: str) -> None:
    rows = [{**row, "message": f"my {row['text']}", "user_reported_fp": False, "fp": True} for row in ROWS]
    log = write(rows, tmp_path / name)
    counts = ingest(log, store, mapping={"text": "message", "user_reported_fp": "fp"}).counts
    assert (counts["not_reported"], counts["new"]) == (0, 3)
    assert all(text.startswith("my ") for text in store.frame()["text"])


def test_since_is_inclusive_and_knows_zones(tmp_path: Path, store: Store) -> None:
    log = write(ROWS, tmp_path / "log.jsonl")
    assert ingest(log, store, since="2026-10-01T01:59:59+02:00").counts["too_old"] == 0


@pytest.mark.parametrize("per_second", [1, 1000])
@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
def test_times_may_be_seconds_or_milliseconds_since_1970(
    tmp_path: Path, store: Store, name: str, per_second: int
) -> None:
    rows = [
        {**row, "timestamp": int(datetime.fromisoformat(row["timestamp"]).timestamp()) * per_second} for row in ROWS
    ]
    assert ingest(write(rows, tmp_path / name), store, since="2026-10-01").counts == EXPECTED


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.parquet"])
@pytest.mark.parametrize("label", ["jailbreak", "MALICIOUS", 7])
def test_the_logs_own_label_is_not_looked_at(tmp_path: Path, store: Store, name: str, label: object) -> None:
    log = write([{**row, "label": label} for row in ROWS], tmp_path / name)
    assert ingest(log, store, since="2026-10-01").counts == EXPECTED


def test_a_label_may_be_mapped_to_a_field(tmp_path: Path, store: Store) -> None:
    log = write([{**row, "label": "semantic_jailbreak"} for row in ROWS], tmp_path / "log.jsonl")
    ingest(log, store, mapping={"threat_type": "label"})
    assert set(store.frame()["threat_type"]) == {"semantic_jailbreak"}


def test_reported_alone_may_be_enough(tmp_path: Path, store: Store) -> None:
    log = write(ROWS, tmp_path / "log.jsonl")
    assert ingest(log, store, need_both=False).counts["new"] == 3


@pytest.mark.parametrize(
    ("rows", "arguments", "message"),
    [
        ([{"text": "a prompt"}], {}, "user_reported_fp"),
        ([{"text": "a prompt", "user_reported_fp": "maybe", "flagged_as_threat": True}], {}, "maybe"),
        (ROWS, {"since": "last week"}, "last week"),
        (ROWS, {"since": "17672256000000"}, "17672256000000"),
        (ROWS, {"mapping": {"txet": "text"}}, "txet"),
        (ROWS, {"mapping": {"text": "message"}}, "no column message"),
        (ROWS, {"mapping": {"id": "text", "text": "text"}}, "--map text=text: column text is id already"),
        ([{**ROWS[0], "timestamp": "soon"}], {"since": "2026-10-01"}, "soon"),
        ([{k: v for k, v in ROWS[0].items() if k != "timestamp"}], {"since": "2026-10-01"}, "timestamp"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, store: Store, rows: list[dict[str, Any]], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        ingest(write(rows, tmp_path / "log.jsonl"), store, **arguments)
    assert not len(store.frame())
