"""The review queue at rest: rows that a person must judge before they train anything.

Takes and gives a frame of contract rows with reason, score and the attack they resemble; the file is JSONL, one row a
line, written whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.data import SCHEMA, BadInput, atomic_path, make_corpus

from .rules import REVIEW_COLUMNS

_OWN = {name: dtype for name, dtype in REVIEW_COLUMNS.items() if name not in SCHEMA}
_NEEDED = ("text", "label", "reason")


def empty_review() -> pl.DataFrame:
    """Return a review frame without rows."""
    return pl.DataFrame(schema=REVIEW_COLUMNS)


def write_review(review: pl.DataFrame, path: str | Path, *, force: bool = False) -> Path:
    """Write a review frame as JSONL, nulls left out.

    Raises:
        BadInput: A column is missing, or the file exists and force is not set.
    """
    missing = [name for name in REVIEW_COLUMNS if name not in review.columns]
    if missing:
        raise BadInput(f"review queue {path}: the frame has no column {', '.join(missing)}")
    with atomic_path(path, force=force) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # Row by row: leaving out nulls, also inside `extra`, has no column expression, and a queue is small.
        for row in review.select(*REVIEW_COLUMNS).iter_rows(named=True):
            stream.write(json.dumps(_without_nulls(row), ensure_ascii=False) + "\n")
    return Path(path)


def read_review(path: str | Path) -> pl.DataFrame:
    """Read a review queue.

    Raises:
        BadInput: The file cannot be read, or a line is no review row; the message names file and line.
    """
    rows = [_parse(line, number, Path(path)) for number, line in enumerate(_lines(Path(path)), start=1) if line.strip()]
    if not rows:
        return empty_review()
    try:
        corpus = make_corpus([{name: row[name] for name in row if name not in _OWN} for row in rows])
    except BadInput as error:
        raise BadInput(f"review queue {path}: {error}") from error
    own = pl.DataFrame([{name: row.get(name) for name in _OWN} for row in rows], schema=_OWN)
    return pl.concat([corpus, own], how="horizontal")


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): a prompt may hold U+2028 and other marks that it takes for ends of lines.
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"review queue {path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _parse(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"review queue {path}, line {number}: not JSON") from error
    if not isinstance(row, dict):
        raise BadInput(f"review queue {path}, line {number}: not a JSON object")
    for name in _NEEDED:
        if not isinstance(row.get(name), str):
            raise BadInput(f"review queue {path}, line {number}: {name} is missing or not text")
    for name in ("nearest_id", "nearest_text"):
        if not isinstance(row.get(name), str | None):
            raise BadInput(f"review queue {path}, line {number}: {name} is not text")
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float | None):
        raise BadInput(f"review queue {path}, line {number}: score is not a number")
    return row


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value
