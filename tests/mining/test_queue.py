"""A review queue comes back from disk as it went there, and a broken one is named by file and line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus
from crywolf.mining import REVIEW_COLUMNS, empty_review, read_review, write_review

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30).filter(
    lambda text: bool(text.strip())
)
maybe = st.none() | texts
rows = st.fixed_dictionaries(
    {
        "text": texts,
        "label": st.just("BENIGN"),
        "source": texts,
        "category": maybe,
        "how": maybe,
        "threat_type": st.sampled_from([None, "unknown", "semantic_jailbreak"]),
        "notes": maybe,
        "confidence": st.none() | st.floats(0, 1),
        "reason": texts,
        "score": st.none() | st.floats(-1, 1),
        "nearest_id": maybe,
        "nearest_text": maybe,
    }
)


def frame_of(items: list[dict[str, object]]) -> pl.DataFrame:
    own = ("reason", "score", "nearest_id", "nearest_text")
    corpus = make_corpus([{k: v for k, v in item.items() if k not in own} for item in items])
    extra = pl.DataFrame([{k: item[k] for k in own} for item in items], schema={k: REVIEW_COLUMNS[k] for k in own})
    return pl.concat([corpus, extra], how="horizontal")


@given(st.lists(rows, min_size=1, max_size=6))
@settings(deadline=None, max_examples=80)
def test_a_queue_comes_back_as_it_was(items: list[dict[str, object]]) -> None:
    review = frame_of(items)
    with tempfile.TemporaryDirectory() as folder:
        assert read_review(write_review(review, Path(folder) / "queue.jsonl")).equals(review)


def test_an_empty_queue_is_a_queue(tmp_path: Path) -> None:
    path = write_review(empty_review(), tmp_path / "queue.jsonl")
    assert read_review(path).schema == pl.Schema(REVIEW_COLUMNS)


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = write_review(empty_review(), tmp_path / "queue.jsonl")
    with pytest.raises(BadInput, match="exists already"):
        write_review(empty_review(), path)
    write_review(empty_review(), path, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["queue.jsonl"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"text": "a", "label": "BENIGN"}', "line 2: reason is missing"),
        ('{"text": 3, "label": "BENIGN", "reason": "r"}', "line 2: text is missing or not text"),
        ('{"text": "a", "label": "BENIGN", "reason": "r", "score": "x"}', "line 2: score is not a number"),
        ('{"text": "a", "label": "BENIGN", "reason": "r", "nearest_id": 5}', "line 2: nearest_id is not text"),
        ('{"text": "a", "label": "PERHAPS", "reason": "r"}', "queue.jsonl: row 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "queue.jsonl"
    path.write_text('{"text": "fine", "label": "BENIGN", "reason": "r"}\n' + line + "\n")
    with pytest.raises(BadInput, match=message):
        read_review(path)


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_review(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_review(tmp_path / "bytes.jsonl")


def test_a_frame_without_reasons_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no column reason"):
        write_review(make_corpus([{"text": "a", "label": "BENIGN"}]), tmp_path / "queue.jsonl")
    assert not list(tmp_path.iterdir())
