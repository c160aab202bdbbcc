"""Writing: contract rows to a file, whole or not at all, in our own shape or one of the three foreign ones.

Takes a frame and a path; what reads the file back gets the same rows. The text of a prompt is never altered.
"""

import gzip
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import zstandard

from .atomic import atomic_path, check_target
from .errors import BadInput
from .foreign import Format, to_augmented, to_harness, to_master
from .readers import bare_suffix
from .schema import check_corpus

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "native": (".jsonl", ".ndjson", ".csv", ".parquet"),
    "harness": (".json",),
    "augmented": (".jsonl", ".ndjson"),
    "master": (".csv",),
}
_ALWAYS = ("id", "text", "label", "threat_type", "source")


def write_corpus(
    frame: pl.DataFrame,
    path: str | Path,
    *,
    format: Format | None = None,
    force: bool = False,
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write contract rows; the name says JSONL, CSV, Parquet or JSON, and with .gz or .zst how it is compressed.

    Args:
        frame: contract rows.
        path: the file to write.
        format: native if not given, for a .json file harness.
        force: replace a file that is there.
        summary: for a harness's result, `total` and `categories` of the whole run, as `Corpus.summary` gives them.

    Raises:
        BadInput: the frame breaks the contract, the name does not fit the format, or the file cannot be written.
    """
    target = Path(path)
    chosen = _check_format(target, format)
    check_corpus(frame)
    with atomic_path(target, force=force) as temporary:
        if bare_suffix(target) == ".parquet":
            frame.write_parquet(temporary, compression="zstd")
        else:
            temporary.write_bytes(_compress(_content(frame, target, chosen, summary), target))
    return target


def check_output(path: str | Path, *, format: Format | None = None, force: bool = False) -> Path:
    """Say before any work starts whether contract rows may be written to a path.

    Raises:
        BadInput: as `check_target`, or the name does not fit the format.
    """
    _check_format(Path(path), format)
    return check_target(path, force=force)


def write_rejected(rejected: pl.DataFrame, beside: str | Path, *, force: bool = False) -> Path | None:
    """Make the file of rejected rows beside an output say what this output's reader rejected.

    Whoever writes an output checks `rejected_path` with `check_target` before the work, as the output itself, so that
    a file in the way is found in time.

    Args:
        rejected: as `Corpus.rejected` gives them.
        beside: the output.
        force: replace an older output's file; without rejected rows it is removed.

    Returns:
        `rejected_path(beside)`, or None if no row was rejected and so no file is there.

    Raises:
        BadInput: the file is there already and `force` is not set, as it may hold somebody's corrections; or it cannot
            be written or removed.
    """
    path = rejected_path(beside)
    if not rejected.height:
        _remove(path, force=force)
        return None
    with atomic_path(path, force=force) as temporary:
        rejected.write_ndjson(temporary)
    return path


def _remove(path: Path, *, force: bool) -> None:
    check_target(path, force=force)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: of an older output, cannot be removed: {error.strerror or error}") from error


def rejected_path(beside: str | Path) -> Path:
    """Where the rejected rows of an output lie: `<file>.rejected.jsonl`, in a folder `run.rejected.jsonl`."""
    output = Path(beside)
    return output / "run.rejected.jsonl" if output.is_dir() else output.with_name(output.name + ".rejected.jsonl")


def _check_format(path: Path, format_: Format | None) -> Format:
    suffix = bare_suffix(path)
    chosen: Format = format_ or ("harness" if suffix == ".json" else "native")
    if chosen not in _SUFFIXES:
        raise BadInput(f"format {chosen!r} is not one of {', '.join(_SUFFIXES)}")
    if suffix not in _SUFFIXES[chosen]:
        raise BadInput(f"{path}: the {chosen} format is written to {' or '.join(_SUFFIXES[chosen])}, also .gz or .zst")
    if suffix == ".parquet" and path.suffix.lower() != ".parquet":
        raise BadInput(f"{path}: Parquet is compressed inside; leave {path.suffix} away")
    return chosen


def _content(frame: pl.DataFrame, path: Path, format_: Format, summary: Mapping[str, Any] | None) -> bytes:
    if format_ == "harness":
        return json.dumps(to_harness(frame, summary), indent=1, ensure_ascii=False).encode()
    if format_ == "augmented":
        return _json_lines(to_augmented(frame))
    if format_ == "master":
        # The line ends of the shape, as Python's csv module and spreadsheets write them.
        return to_master(frame).write_csv(line_terminator="\r\n").encode()
    if bare_suffix(path) == ".csv":
        extra = pl.when(pl.col("extra").is_not_null()).then(pl.col("extra").struct.json_encode())
        return frame.with_columns(extra.alias("extra")).write_csv().encode()
    return _native_lines(frame)


def _native_lines(frame: pl.DataFrame) -> bytes:
    # Columns that say nothing are left away; a reader fills them in.
    said = [name for name in frame.columns if name in _ALWAYS or not _says_nothing(frame[name])]
    return frame.select(said).with_columns(*_narrow_extra(frame)).write_ndjson().encode()


def _says_nothing(column: pl.Series) -> bool:
    if column.name == "weight":
        return bool((column == 1.0).all())
    return column.null_count() == len(column)


def _narrow_extra(frame: pl.DataFrame) -> list[pl.Series]:
    """`extra` with only those fields that some row fills."""
    extra = frame["extra"]
    if extra.null_count() == frame.height:
        return []
    parts = extra.struct.unnest()
    said = [name for name in parts.columns if parts[name].null_count() < frame.height]
    if not said:
        return []
    return [parts.select(pl.when(extra.is_not_null()).then(pl.struct(said)).alias("extra")).to_series()]


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    lines = io.StringIO()
    for row in rows:
        lines.write(json.dumps(row, ensure_ascii=False))
        lines.write("\n")
    return lines.getvalue().encode()


def _compress(content: bytes, path: Path) -> bytes:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        # No time stamp inside: the same rows give the same bytes.
        return gzip.compress(content, compresslevel=6, mtime=0)
    if suffix == ".zst":
        return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(content)
    return content
