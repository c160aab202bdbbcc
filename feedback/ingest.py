"""Ingestion: production logs in, reported false positives into the store, once each.

Takes a log in any shape that `read_corpus` reads, with the log's own field names mapped to ours; counts what was not
flagged, not reported, too old or known already, notes what nearly repeats a report or a row trained on, and keeps an
account of every log that was read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from crywolf.data import BadInput, file_hash, read_corpus

from .known import known_path, open_known, repeats
from .store import Store

FIELDS = (
    "text",
    "id",
    "category",
    "threat_type",
    "confidence",
    "flagged_as_threat",
    "user_reported_fp",
    "timestamp",
)
_TRUE = ("true", "1", "1.0", "yes", "t", "y")
_FALSE = ("false", "0", "0.0", "no", "f", "n", "")
_FIRST_MILLISECONDS = 1e11  # 1973-03-03
_PAST_MILLISECONDS = 1e13  # 2286-11-20, the last of 13 digits


@dataclass(frozen=True)
class Ingestion:
    """What a log gave.

    Attributes:
        counts: rows read, rejected, not_flagged, not_reported, too_old, known before, new, and of the new ones those
            that nearly repeat something known (repeats): they come in with a note that says what.
        rejected: the rows that could not be read, with line and reason.
    """

    counts: dict[str, int]
    rejected: pl.DataFrame


def ingest(
    log: Path,
    store: Store,
    *,
    since: str | None = None,
    mapping: Mapping[str, str] | None = None,
    need_both: bool = True,
    max_rejected: float = 0.01,
) -> Ingestion:
    """Take the new false positives of a log into the store.

    Args:
        log: JSONL, CSV or Parquet, also .gz and .zst. A column `label`, if any, is not looked at, unless it is mapped.
        store: the feedback store.
        since: ISO date or time; rows before it are counted and left. Times without a zone are UTC. Here and in the log
            a number is seconds or milliseconds since 1970.
        mapping: our field -> the log's column, for fields of `FIELDS` that have other names there.
        need_both: a row counts when it was flagged and reported; otherwise reported is enough.
        max_rejected: share of rows that may be unreadable.

    Raises:
        BadInput: the log cannot be read, a mapped field is unknown, a column is mapped twice, a needed column is
            missing, or `since` is no time.
    """
    renames = _renames(mapping or {})
    start = None if since is None else _moment(since)
    # The production verdict is what is in doubt here, so every row comes in as benign and is checked by the round.
    corpus = read_corpus(
        log, label="BENIGN", source="feedback", max_rejected=max_rejected, columns=renames, ignored=("label",)
    )
    frame = _with_flags(corpus.frame, log, need_both=need_both, need_time=start is not None)
    flagged = pl.col("flagged_as_threat") if need_both else pl.lit(value=True)
    late = pl.lit(value=True) if start is None else pl.col("at") >= start
    steps = {
        "not_flagged": flagged,
        "not_reported": pl.col("user_reported_fp"),
        "too_old": late,
    }
    counts = {"read": len(frame), "rejected": len(corpus.rejected)}
    for name, keep in steps.items():
        left = frame.filter(keep)
        counts[name] = len(frame) - len(left)
        frame = left
    index, statuses = open_known(store), store.statuses()
    fresh = frame.filter(~pl.col("id").is_in(list(statuses)))
    notes = repeats(index, statuses, fresh)
    noted = frame.join(notes, on="id", how="left", maintain_order="left")
    new, known = store.add(noted.with_columns(seen_at=pl.col("timestamp")))
    if index.add(fresh):
        index.save(known_path(store))
    counts |= {"known": known, "new": new, "repeats": notes["id"].n_unique()}
    store.record_ingestion(str(log), file_hash(log), since, counts)
    return Ingestion(counts, corpus.rejected)


def _renames(mapping: Mapping[str, str]) -> dict[str, str]:
    """The log's column -> our field, from our field -> the log's column."""
    renames: dict[str, str] = {}
    for field, column in mapping.items():
        if field not in FIELDS:
            raise BadInput(f"--map {field}: no such field; the fields are {', '.join(FIELDS)}")
        if column in renames:
            raise BadInput(f"--map {field}={column}: column {column} is {renames[column]} already; map it to one field")
        renames[column] = field
    return renames


def _with_flags(frame: pl.DataFrame, log: Path, *, need_both: bool, need_time: bool) -> pl.DataFrame:
    """Add flagged_as_threat and user_reported_fp as booleans, timestamp as text and `at` as a UTC time."""
    other = pl.col("extra").struct.field("other")
    names = ("flagged_as_threat", "user_reported_fp", "timestamp")
    frame = frame.with_columns(other.str.json_path_match(f"$.{name}").alias(name) for name in names)
    needed = ["user_reported_fp", *(["flagged_as_threat"] if need_both else []), *(["timestamp"] if need_time else [])]
    for name in needed:
        if frame[name].null_count() == len(frame):
            raise BadInput(f"{log}: no column {name}; name the log's own with --map {name}=COLUMN")
    for name in names[:2]:
        lower = frame[name].str.strip_chars().str.to_lowercase()
        strange = lower.filter(lower.is_not_null() & ~lower.is_in([*_TRUE, *_FALSE]))
        if len(strange):
            raise BadInput(f"{log}: column {name} holds {strange[0][:40]!r}; expected true or false")
        frame = frame.with_columns(lower.is_in(_TRUE).fill_null(value=False).alias(name))
    if not need_time:
        return frame
    unique = frame["timestamp"].unique().drop_nulls().to_list()
    try:
        moments = {text: _moment(text) for text in unique}
    except BadInput as error:
        raise BadInput(f"{log}: column timestamp: {error}") from None
    at = [moments.get(text) for text in frame["timestamp"].to_list()]
    return frame.with_columns(pl.Series("at", at, dtype=pl.Datetime("us", "UTC")))


def _moment(text: str) -> datetime:
    """Return an ISO time, or seconds or milliseconds since 1970, as a UTC moment."""
    try:
        if text.replace(".", "", 1).isdigit() and len(text) >= 9:
            since_1970 = float(text)
            # As seconds the smallest number read as milliseconds would be the year 5138.
            is_milliseconds = _FIRST_MILLISECONDS <= since_1970 < _PAST_MILLISECONDS
            return datetime.fromtimestamp(since_1970 / 1000 if is_milliseconds else since_1970, UTC)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"{text[:40]!r} is not a time; write 2026-10-01 or 2026-10-01T08:00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
