"""What is known is asked through one index beside the store: repeats are noted, not grown twice, and never slip in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from crywolf.augment import GrowConfig, GrowResult, grow
from crywolf.augment.dedup import NearIndex
from crywolf.data import make_corpus, read_corpus, text_id, write_corpus
from crywolf.feedback import Before, NothingNewError, Store, ingest, run_round
from crywolf.feedback.known import known_path, open_known

REPORT = "How do I kill a process that ignores SIGTERM on my Linux machine?"
OTHER = "Write a Python function that merges two sorted lists into one."
TRAINED = "Summarize the plot of Hamlet in two sentences for a school magazine."


def rows(*texts: str, label: str = "BENIGN") -> pl.DataFrame:
    return make_corpus([{"text": text} for text in texts], label=label)


def unlike(texts: Sequence[str]) -> NDArray[np.float32]:
    """Attacks on one side, all else on the other."""
    return np.array([[1.0, 0.0] if text == "attack" else [0.0, 1.0] for text in texts], dtype=np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "feedback.sqlite")


def run(store: Store, folder: Path, training: pl.DataFrame, seen: list[list[str]]) -> Any:
    def grow_one(fps: pl.DataFrame) -> GrowResult:
        seen.append(fps["text"].to_list())
        return grow(fps, config=GrowConfig(per_fp=1, twins=False), encode=None, rng=np.random.default_rng(0))

    def retrain(_: pl.DataFrame, here: Path) -> Path:
        return here

    given = Before(training, rows("attack", label="MALICIOUS"), ())
    return run_round(store, folder, given, encode=unlike, grow=grow_one, retrain=retrain, judge=lambda _: {})


def log(path: Path, *texts: str) -> Path:
    flags = {"flagged_as_threat": True, "user_reported_fp": True}
    pl.DataFrame([{"text": text, **flags} for text in texts]).write_ndjson(path)
    return path


def notes(store: Store) -> dict[str, str | None]:
    found = store.frame()
    return dict(zip(found["text"], found["extra"].struct.field("notes"), strict=True))


def test_a_report_that_nearly_repeats_an_earlier_one_comes_in_with_a_note(store: Store, tmp_path: Path) -> None:
    ingest(log(tmp_path / "a.jsonl", REPORT), store)
    counts = ingest(log(tmp_path / "b.jsonl", f"{REPORT}!", REPORT, OTHER), store).counts
    assert (counts["new"], counts["known"], counts["repeats"]) == (2, 1, 1)
    assert notes(store)[REPORT] is None
    assert notes(store)[OTHER] is None
    note = notes(store)[f"{REPORT}!"]
    assert note is not None
    assert note.startswith(f"nearly repeats a report that is new: {text_id(REPORT)}, Jaccard 0.9")


def test_after_a_round_a_repeat_is_known_without_reading_what_was_trained_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add(rows(REPORT))
    result = run(store, tmp_path / "rounds", rows(TRAINED), [])
    (grown,) = read_corpus(result.folder / "grown.parquet").frame.filter(pl.col("text") != REPORT)["text"].to_list()

    def read(*_: object, **__: object) -> None:
        raise AssertionError("the reports were read again")

    monkeypatch.setattr(Store, "frame", read)
    counts = ingest(log(tmp_path / "a.jsonl", f"{TRAINED} Thanks", f"{REPORT} Thanks", f"{grown} Thanks"), store).counts
    monkeypatch.undo()
    assert counts["repeats"] == 3
    assert "a row trained on: " + text_id(TRAINED) in (notes(store)[f"{TRAINED} Thanks"] or "")
    assert "a report that is grown: " + text_id(REPORT) in (notes(store)[f"{REPORT} Thanks"] or "")
    assert "a row trained on: " + text_id(grown) in (notes(store)[f"{grown} Thanks"] or "")


def test_a_repeat_of_a_grown_report_is_not_grown_again(store: Store, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    store.add(rows(REPORT))
    run(store, tmp_path / "rounds", rows(TRAINED), seen)
    store.add(rows(f"{REPORT}!", OTHER))
    result = run(store, tmp_path / "rounds", rows(TRAINED, REPORT), seen)
    assert seen == [[REPORT], [OTHER]]
    assert result.counts["repeats"] == 1
    assert store.counts()["grown"] == 3


def test_repeats_alone_make_no_round_and_leave_the_queue(store: Store, tmp_path: Path) -> None:
    store.add(rows(REPORT))
    run(store, tmp_path / "rounds", rows(TRAINED), [])
    store.add(rows(f"{REPORT}!"))
    with pytest.raises(NothingNewError, match="1 of reports grown before"):
        run(store, tmp_path / "rounds", rows(TRAINED, REPORT), [])
    assert store.counts()["new"] == 0
    with pytest.raises(NothingNewError, match="no new false positives"):
        run(store, tmp_path / "rounds", rows(TRAINED, REPORT), [])


def test_a_rejected_report_does_not_come_back_with_a_word_changed(store: Store, tmp_path: Path) -> None:
    seen: list[list[str]] = []
    store.add(rows(REPORT))
    store.set_status([text_id(REPORT)], "rejected")
    store.add(rows(f"{REPORT} Please", OTHER))
    assert run(store, tmp_path / "rounds", rows(TRAINED), seen).counts["quarantined"] == 1
    assert seen == [[OTHER]]
    held = store.frame(("quarantined",))
    assert held["text"].to_list() == [f"{REPORT} Please"]
    assert held["extra"].struct.field("notes").to_list() == [f"near-duplicate of the rejected report {text_id(REPORT)}"]


def test_only_what_is_trained_on_now_counts_as_training(store: Store, tmp_path: Path) -> None:
    store.add(rows(OTHER))
    run(store, tmp_path / "rounds", rows(TRAINED, f"{REPORT}!"), [])
    store.add(rows(REPORT))
    result = run(store, tmp_path / "rounds", rows(TRAINED), [])
    assert result.counts["duplicates"] == 0


@pytest.mark.parametrize("content", [None, b"", b"no index"])
def test_a_lost_or_damaged_index_is_made_again(content: bytes | None, store: Store, tmp_path: Path) -> None:
    ingest(log(tmp_path / "a.jsonl", REPORT), store)
    known_path(store).unlink()
    if content is not None:
        known_path(store).write_bytes(content)
    assert ingest(log(tmp_path / "b.jsonl", f"{REPORT}!"), store).counts["repeats"] == 1
    assert NearIndex.load(known_path(store)).ids == [text_id(REPORT), text_id(f"{REPORT}!")]


def test_the_index_has_every_report_whatever_way_it_came_in(store: Store) -> None:
    store.add(rows(REPORT, OTHER))
    assert set(open_known(store).ids) == set(store.statuses()) == {text_id(REPORT), text_id(OTHER)}


def test_a_log_that_cannot_be_read_leaves_no_index(store: Store, tmp_path: Path) -> None:
    write_corpus(rows(REPORT), tmp_path / "plain.jsonl")
    with pytest.raises(Exception, match="no column user_reported_fp"):
        ingest(tmp_path / "plain.jsonl", store)
    assert not known_path(store).exists()
