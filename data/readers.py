"""Reading: any file of prompts, in our own shape or a foreign one, into contract rows and a table of rejected rows.

Takes a path; the shape is told by the name and the content. A well-formed file is read column by column; one with
anything odd in it is read again row by row, so that each rejected row is named with its line, column and reason.
"""

import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from .columns import Columns
from .errors import BadInput
from .foreign import CUT, Harness, default_source, from_foreign, read_harness, sniff, with_threat_types
from .lines import Place, Rejection, parse_csv, parse_json
from .raw import COMPRESSIONS, read_bytes
from .schema import BENIGN, SCHEMA, RowProblem, conform, loosen, text_ids

REJECTED_SCHEMA: Final[dict[str, pl.DataType]] = {
    "file": pl.String(),
    "line": pl.Int64(),
    "column": pl.String(),
    "reason": pl.String(),
    "raw": pl.String(),
}
MAX_ROWS: Final = 100_000_000
_RAW_LIMIT: Final = 4000
_SHOWN: Final = 5
_KINDS: Final = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


@dataclass(frozen=True)
class Corpus:
    """What a file held.

    Attributes:
        frame: the contract rows, in the file's order.
        rejected: one line for each row that cannot be used: file, line, column, reason, raw. For Parquet and
            a harness's result, `line` is the number of the row.
        path: the file, as given.
        format: native, harness, augmented or master.
        summary: what a harness's result says beside its rows (totals, categories), for writing it back.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    path: Path
    format: str
    summary: dict[str, Any] | None = None

    @property
    def rejected_share(self) -> float:
        """Rejected rows out of all rows of the file."""
        total = self.frame.height + self.rejected.height
        return self.rejected.height / total if total else 0.0

    @property
    def cut(self) -> int:
        """Rows whose text a harness cut; `read_fps` joins them back or leaves them out."""
        return int((self.frame["how"] == CUT).sum())


@dataclass(frozen=True)
class FalsePositives:
    """False positives ready to be grown: benign rows with whole texts.

    Attributes:
        frame: the rows; threat_type says what each was taken for.
        cut_joined: cut prompts that were found whole in the prompts file.
        cut_left_out: cut prompts that were not, and are left out.
        rejected: as in `Corpus`, of the false positives and then of the prompts file; each row names its own file.
        path: the file of false positives, as given.
        format: its shape.
        summary: as in `Corpus`.
    """

    frame: pl.DataFrame
    cut_joined: int
    cut_left_out: int
    rejected: pl.DataFrame
    path: Path
    format: str
    summary: dict[str, Any] | None = field(default=None)


def read_corpus(
    path: str | Path,
    *,
    label: str | None = None,
    source: str | None = None,
    max_rejected: float = 0.01,
    columns: Mapping[str, str] | None = None,
    ignored: Collection[str] = (),
) -> Corpus:
    """Read a file of prompts: JSONL, CSV or Parquet, or one of the three foreign shapes; gzip and Zstandard too.

    Args:
        path: the file.
        label: for rows that have none; without it a file without labels is an error.
        source: for rows that name none.
        max_rejected: the share of rows that may be unusable.
        columns: the file's column -> ours, where its own have other names. From there on the column is read as if
            the file had it under that name; a name that the contract does not have is kept in `extra.other`. If the
            file has a column of that name too, the mapped one takes its place in every row, even where it is empty,
            and the other is kept in `extra.other` under its own name (left out if both would stand there under the
            same), unless it is mapped itself.
        ignored: columns of the file whose values must not be taken for ours, e.g. a label that means something else;
            those that `columns` does not map are kept in `extra.other` unread. One that is not there is no error.

    Raises:
        BadInput: the file cannot be read, has no usable row, lacks a column, or has too many unusable rows; two columns
            are mapped to one, or a column of a harness's result is mapped, whose names are fixed.
    """
    mapping = Columns.of(columns, ignored)
    file = Path(path)
    data = read_bytes(file)
    try:
        kind = _kind(file, data)
        if kind == "harness":
            corpus = _read_harness(file, data, source, mapping)
        elif kind == "parquet":
            corpus = _read_parquet(file, data, label, source, mapping)
        else:
            corpus = _read_rows(file, data, kind, label, source, mapping)
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from error
    _judge(corpus, max_rejected)
    return corpus


def read_fps(path: str | Path, *, prompts: str | Path | None = None, max_rejected: float = 0.01) -> FalsePositives:
    """Read false positives in any shape; cut prompts are joined back to the file that they were cut from.

    A cut prompt counts as found when the prompts file has, under the same id, exactly one text that begins with it.
    All others are counted and left out, since cut text must never be grown.

    Args:
        path: the false positives.
        prompts: the benign file that the harness was given.
        max_rejected: the share of rows of either file that may be unusable.

    Raises:
        BadInput: as `read_corpus`, or nothing is left because every prompt is cut.
    """
    corpus = read_corpus(path, label=BENIGN, max_rejected=1.0)
    corpus = _only_benign(corpus)
    _judge(corpus, max_rejected)
    cut = pl.col("how").eq_missing(CUT)
    whole, rejected = corpus.frame, corpus.rejected
    if corpus.cut and prompts is not None:
        given = read_corpus(prompts, label=BENIGN, max_rejected=max_rejected)
        whole = _join_cut(corpus.frame, given.frame)
        rejected = pl.concat([rejected, given.rejected])
    left_out = int(whole.select(cut.sum()).item())
    frame = whole.filter(~cut)
    if corpus.frame.height and not frame.height:
        raise BadInput(
            f"{corpus.path}: all {left_out:,} prompts are cut and none is found whole; "
            "give the benign file that the harness was run on with --prompts"
        )
    joined = corpus.cut - left_out
    return FalsePositives(frame, joined, left_out, rejected, corpus.path, corpus.format, corpus.summary)


# --- false positives -------------------------------------------------------------------------------------------------


def _only_benign(corpus: Corpus) -> Corpus:
    """A false positive is benign by definition; a row that says otherwise is a mistake or an attack."""
    wrong = corpus.frame.filter(pl.col("label") != BENIGN)
    if not wrong.height:
        return corpus
    rejected = wrong.select(
        pl.lit(str(corpus.path)).alias("file"),
        pl.lit(None, pl.Int64()).alias("line"),
        pl.lit("label").alias("column"),
        pl.format("label MALICIOUS, a false positive is BENIGN (id {})", "id").alias("reason"),
        pl.col("text").str.head(_RAW_LIMIT).alias("raw"),
    )
    return Corpus(
        corpus.frame.filter(pl.col("label") == BENIGN),
        pl.concat([corpus.rejected, rejected]),
        corpus.path,
        corpus.format,
        corpus.summary,
    )


def _join_cut(frame: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """Give each cut row the one whole text that the prompts file has for its id."""
    rows = frame.with_row_index("_row")
    cut = rows.filter(pl.col("how") == CUT).select(
        "_row",
        pl.col("external_id").fill_null(pl.col("id")).alias("_key"),
        pl.col("text").str.head(100).alias("_start"),
    )
    known = prompts.select(
        pl.col("external_id").fill_null(pl.col("id")).alias("_key"),
        pl.col("text").alias("_whole"),
        pl.col("category").alias("_category"),
    )
    found = (
        cut.join(known, on="_key", how="inner")
        .filter(pl.col("_whole").str.starts_with(pl.col("_start")))
        .unique(["_row", "_whole"], keep="first", maintain_order=True)
        .filter(pl.len().over("_row") == 1)
    )
    found = found.with_columns(text_ids(found["_whole"]).alias("_id"))
    joined = rows.join(found, on="_row", how="left", maintain_order="left")
    hit = pl.col("_whole").is_not_null()
    return joined.with_columns(
        pl.coalesce("_id", "id").alias("id"),
        pl.coalesce("_whole", "text").alias("text"),
        pl.coalesce("category", "_category").alias("category"),
        pl.when(~hit).then("how").alias("how"),
        # The joined text has another id, so the old one is kept even where the harness used the id of the text.
        pl.when(hit).then(pl.coalesce("external_id", "_key")).otherwise("external_id").alias("external_id"),
    ).select(list(SCHEMA))


# --- which shape -----------------------------------------------------------------------------------------------------


def _kind(path: Path, data: bytes) -> str:
    """One of jsonl, csv, parquet, harness: by the content where it cannot be mistaken, else by the name."""
    if data.startswith(b"PAR1"):
        return "parquet"
    named = _KINDS.get(bare_suffix(path))
    if named == "parquet":
        raise BadInput("named .parquet but holds no Parquet data; write the file again")
    if named == "csv":
        return "csv"
    if data.lstrip()[:1] != b"{":
        if named == "jsonl":
            return "jsonl"
        raise BadInput(_no_shape(path))
    start = data.lstrip()[:4096]
    one_object = named == "json" or b'"fp_details"' in start or start.split(b"\n", 1)[0].rstrip() == b"{"
    return "harness" if one_object else "jsonl"


def _no_shape(path: Path) -> str:
    if bare_suffix(path) == ".json":
        return "a .json file must be a harness's result, an object with fp_details; for rows use .jsonl"
    return "cannot tell what it holds; name it .jsonl, .csv, .parquet or .json (also with .gz or .zst)"


def bare_suffix(path: Path) -> str:
    """The suffix under a suffix of compression, in lower case."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


# --- one reader for each kind ----------------------------------------------------------------------------------------


def _read_rows(path: Path, data: bytes, kind: str, label: str | None, source: str | None, columns: Columns) -> Corpus:
    parsed = parse_csv(data, columns) if kind == "csv" else parse_json(data, columns)
    names = columns.names(parsed.names)
    if names:
        _check_names(names, label, is_csv=kind == "csv")
    format_ = sniff(names, is_csv=kind == "csv")
    loose = _typed(from_foreign(parsed.loose, format_), names)
    result = conform(loose, source=source or default_source(format_), label=label)
    places = parsed.places(result.problems["row"].to_list())
    bad = [*parsed.bad, *_rejections(places, result.problems)]
    return Corpus(result.frame, _rejected(path, bad), path, format_)


def _rejections(places: list[Place], problems: pl.DataFrame) -> list[Rejection]:
    said = problems.select("column", "reason").iter_rows()
    return [Rejection(place, RowProblem(*problem)) for place, problem in zip(places, said, strict=True)]


def _typed(loose: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    return loose if "threat_type" in names else with_threat_types(loose)


def _check_names(names: list[str], label: str | None, *, is_csv: bool) -> None:
    have = ", ".join(name[:40] for name in names[:12])
    if "text" not in names and "prompt" not in names:
        hint = ""
        if is_csv and len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
            hint = "; the fields must be separated by commas"
        raise BadInput(f"no column text or prompt; its columns are: {have}{hint}")
    if "label" not in names and label is None:
        raise BadInput(f"no column label, and no label was given for all rows; its columns are: {have}")


def _read_parquet(path: Path, data: bytes, label: str | None, source: str | None, columns: Columns) -> Corpus:
    try:
        rows = pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item()
        if rows > MAX_ROWS:
            raise BadInput(f"{rows:,} rows, the most one file may hold is {MAX_ROWS:,}; split it")
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BadInput(f"damaged or truncated Parquet data ({reason}); write the file again") from error
    names = columns.names(frame.columns)
    _check_names(names, label, is_csv=False)
    format_ = sniff(names, is_csv=True)
    loose = _typed(from_foreign(loosen(*columns.frame(frame)), format_), names)
    result = conform(loose, source=source, label=label)
    texts = loose["text"]
    places = [Place(row + 1, texts[row] or "") for row in result.problems["row"]]
    return Corpus(result.frame, _rejected(path, _rejections(places, result.problems)), path, format_)


def _read_harness(path: Path, data: bytes, source: str | None, columns: Columns) -> Corpus:
    if columns.ours:
        raise BadInput(f"a harness's result has fixed names, {next(iter(columns.ours))} cannot be mapped in it")
    document = _document(data)
    harness = read_harness(document)
    result = conform(harness.rows.frame, source=source)
    rows = [harness.rows.places[row] for row in result.problems["row"]]
    bad = [Rejection(_detail_place(harness, place), problem) for place, problem in harness.rows.bad]
    bad += _rejections([_detail_place(harness, row) for row in rows], result.problems)
    return Corpus(result.frame, _rejected(path, bad), path, "harness", harness.summary)


def _detail_place(harness: Harness, row: int) -> Place:
    try:
        return Place(row + 1, json.dumps(harness.raws[row]))
    except RecursionError:
        return Place(row + 1, "")


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"line {error.lineno}, character {error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise BadInput("JSON nested too deeply") from error
    except ValueError as error:
        raise BadInput("JSON with a number of too many digits") from error
    if not isinstance(document, dict) or "fp_details" not in document:
        raise BadInput("a harness's result must be an object with fp_details; for rows use .jsonl, one object a line")
    return document


# --- rejected rows ---------------------------------------------------------------------------------------------------


def _rejected(path: Path, bad: list[Rejection]) -> pl.DataFrame:
    rows = [
        (str(path), one.place.line, one.problem.column, one.problem.reason, one.place.raw[:_RAW_LIMIT])
        for one in sorted(bad, key=lambda one: one.place.line)
    ]
    return pl.DataFrame(rows, schema=REJECTED_SCHEMA, orient="row")


def _judge(corpus: Corpus, max_rejected: float) -> None:
    rejected, total = corpus.rejected.height, corpus.frame.height + corpus.rejected.height
    if not total:
        if corpus.format == "harness":
            return
        raise BadInput(f"{corpus.path}: the file has no rows")
    if corpus.frame.height and corpus.rejected_share <= max_rejected:
        return
    shown = [_say(row) for row in corpus.rejected.head(_SHOWN).iter_rows(named=True)]
    more = f"\n  and {rejected - len(shown):,} more" if rejected > len(shown) else ""
    limit = f"--max-rejected allows {max_rejected:.4g}" if corpus.frame.height else "none is left"
    raise BadInput(
        f"{corpus.path}: {rejected:,} of {total:,} rows cannot be used ({rejected / total:.1%}, {limit}):\n  "
        + "\n  ".join(shown)
        + more
    )


def _say(row: Mapping[str, Any]) -> str:
    place = [f"line {row['line']:,}"] if row["line"] is not None else []
    if row["column"]:
        place.append(f"column {row['column']}")
    return f"{', '.join(place)}: {row['reason']}" if place else str(row["reason"])
