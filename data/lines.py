"""JSON lines and CSV into loose rows that know their line, as fast as the file allows.

Takes the bytes of a file, and which of its columns is which of ours. A well-formed file is parsed by polars in one go;
in any other the good lines are picked out first and still parsed together, and each line that is no row is named with
the reason. Both ways give the same rows.
"""

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .columns import Columns
from .errors import BadInput
from .schema import LOOSE, LooseRows, NotColumnar, RowProblem, is_plain, loosen

MAX_LINE = 1_048_576
"""Bytes in one line or characters in one CSV record; a longer one is a broken file, not a prompt."""

_BLOCK = 1 << 22
_AS_NAMED = Columns()
_Places: TypeAlias = NDArray[Any]
_QUOTE, _COMMA, _NEWLINE = 34, 44, 10
# Half of a surrogate pair in a JSON escape, which polars reads as NUL; a doubled backslash gives a false alarm, and a
# false alarm only costs time.
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")


@dataclass(frozen=True)
class Place:
    """Where a row stands: the number of the line it begins on, and its raw form."""

    line: int
    raw: str


@dataclass(frozen=True)
class Rejection:
    """A row that cannot be used, and why."""

    place: Place
    problem: RowProblem


@dataclass(frozen=True)
class Span:
    """A row's line number and its first and last place in the content."""

    line: int
    start: int
    end: int


@dataclass(frozen=True)
class Parsed:
    """The rows of a file in the loose form, the file's own names of its columns, and the lines that are no rows.

    `spans` tells where each loose row stands; it is called only when some row has to be named.
    """

    loose: pl.DataFrame
    names: list[str]
    bad: list[Rejection]
    content: bytes
    spans: Callable[[], list[Span]]

    def places(self, rows: list[int]) -> list[Place]:
        """Where some of the loose rows stand."""
        if not rows:
            return []
        spans = self.spans()
        return [_place(self.content, spans[row]) for row in rows]


def _place(content: bytes, span: Span) -> Place:
    return Place(span.line, _shown(content[span.start : span.end]))


def _shown(raw: bytes) -> str:
    return raw[:MAX_LINE].decode("utf-8", "replace").rstrip("\r\n")


def _longest(ends: _Places, size: int) -> int:
    edges = np.concatenate(([-1], ends, [size]))
    return int(np.diff(edges).max()) - 1


# --- JSON lines ------------------------------------------------------------------------------------------------------


def parse_json(data: bytes, columns: Columns = _AS_NAMED) -> Parsed:
    """JSON lines; blank lines are no rows."""
    # In threads, because polars works outside the interpreter's lock but infers the columns of one piece on one core.
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        parts = list(pool.map(lambda block: _json_block(data, block, columns), _blocks(data)))
    names = dict.fromkeys(name for part in parts for name in part.names)
    bad = [rejection for part in parts for rejection in part.bad]
    loose = pl.concat([part.loose for part in parts])
    return Parsed(loose, list(names), bad, data, lambda: [span for part in parts for span in part.spans()])


def _blocks(data: bytes) -> Iterator[Span]:
    """Pieces of some megabytes that end with a line, so that one bad line slows down only its own piece."""
    line, start = 1, 0
    while start < len(data):
        newline = data.find(b"\n", start + _BLOCK)
        end = newline + 1 if newline >= 0 else len(data)
        yield Span(line, start, end)
        line += data.count(b"\n", start, end)
        start = end


def _json_block(data: bytes, block: Span, columns: Columns) -> Parsed:
    content = data[block.start : block.end]
    whole = _json_loose(content, columns)
    if whole is not None and whole[0].height == content.count(b"\n") + (not content.endswith(b"\n")):
        return Parsed(*whole, [], data, lambda: list(_line_spans(data, block)))
    good: list[tuple[Span, dict[str, Any]]] = []
    bad: list[Rejection] = []
    for span in _line_spans(data, block):
        line = data[span.start : span.end]
        if not line.strip():
            continue
        try:
            good.append((span, _json_object(line)))
        except RowProblem as problem:
            bad.append(Rejection(_place(data, span), problem))
    names = list(dict.fromkeys(name for _, values in good for name in values))
    spans = [span for span, _ in good]
    whole = _json_loose(b"\n".join(data[span.start : span.end] for span in spans), columns) if good else None
    if whole is not None and whole[0].height == len(good):
        return Parsed(whole[0], names, bad, data, lambda: spans)
    found = LooseRows.collect((values for _, values in good), columns.row, columns.aside)
    return _by_row(found, names, spans, bad, data)


def _by_row(found: LooseRows, names: list[str], spans: list[Span], bad: list[Rejection], data: bytes) -> Parsed:
    """Rows that were taken one at a time, as their columns do not share a type."""
    bad = bad + [Rejection(_place(data, spans[place]), problem) for place, problem in found.bad]
    return Parsed(found.frame, names, bad, data, lambda: [spans[place] for place in found.places])


def _line_spans(data: bytes, block: Span) -> Iterator[Span]:
    start = block.start
    content = data[block.start : block.end].removesuffix(b"\n")
    for line, text in enumerate(content.split(b"\n"), start=block.line):
        yield Span(line, start, start + len(text))
        start += len(text) + 1


def _json_loose(data: bytes, columns: Columns) -> tuple[pl.DataFrame, list[str]] | None:
    frame = _json_columns(data)
    if frame is None:
        return None
    mapped, aside = columns.frame(frame)
    if not is_plain(mapped, aside):
        return None
    try:
        return loosen(mapped, aside), frame.columns
    except NotColumnar:
        return None


def _json_columns(data: bytes) -> pl.DataFrame | None:
    """All lines at once, or None if some line is not plainly an object of plain values."""
    bytes_ = np.frombuffer(data, np.uint8)
    if b"\0" in data or _longest(np.flatnonzero(bytes_ == _NEWLINE), len(data)) > MAX_LINE:
        return None
    if b"\\u" in data and _LONE_SURROGATE.search(_PAIR.sub(b"", data)):
        return None
    try:
        frame = pl.read_ndjson(io.BytesIO(data), infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None
    return None if _mixed(frame, data) else frame


def _mixed(frame: pl.DataFrame, data: bytes) -> bool:
    """Whether some string column holds bare numbers or truth values too, which polars turns into strings."""
    names = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    names += [name for dtype in frame.dtypes if isinstance(dtype, pl.Struct) for name in _string_fields(dtype)]
    if not names or not re.search(rb'"\s*:\s*[-0-9tf\[{]', data):
        return False
    either = "|".join(re.escape(json.dumps(name)[1:-1]) for name in names)
    return re.search(rf'"(?:{either})"\s*:\s*[-0-9tf\[{{]'.encode(), data) is not None


def _string_fields(dtype: pl.Struct) -> list[str]:
    names = []
    for field in dtype.fields:
        inner = field.dtype.inner if isinstance(field.dtype, pl.List) else field.dtype
        if inner == pl.String:
            names.append(field.name)
        elif isinstance(inner, pl.Struct):
            names += _string_fields(inner)
    return names


def _json_object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise RowProblem(None, f"a line of {len(line):,} bytes, the limit is {MAX_LINE:,}")
    if b"\0" in line:
        raise RowProblem(None, f"a NUL byte at byte {line.index(0) + 1}")
    try:
        values = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RowProblem(None, f"not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise RowProblem(None, f"not JSON: {error.msg} at character {error.colno}") from error
    except RecursionError as error:
        raise RowProblem(None, "nested too deeply") from error
    except ValueError as error:
        raise RowProblem(None, "a number with too many digits") from error
    if not isinstance(values, dict):
        raise RowProblem(None, "a JSON object is expected on each line")
    return values


# --- CSV -------------------------------------------------------------------------------------------------------------


def parse_csv(data: bytes, columns: Columns = _AS_NAMED) -> Parsed:
    """CSV with a header line, strictly; after a broken record reading goes on with the line after its first.

    Raises:
        BadInput: the header cannot be used.
    """
    data = data.rstrip(b"\r\n")
    frame = _csv_columns(data)
    if frame is not None:
        names = _check_header(frame.columns)
        frame.columns = names
        loose = _csv_loose(frame, columns)
        if loose is not None:
            return Parsed(loose, names, [], data, lambda: _csv_spans(data)[1])
    names, spans, bad = _csv_spans(data)
    if not spans:
        return Parsed(pl.DataFrame(schema=LOOSE), names, bad, data, list)
    plain = b"h" + b",h" * (len(names) - 1) + b"\n"
    frame = _read_csv(plain + b"".join(data[span.start : span.end] + b"\n" for span in spans))
    if frame is None or frame.height != len(spans):
        raise BadInput("the CSV cannot be parsed; check its quotes and commas")
    frame.columns = names
    loose = _csv_loose(frame, columns)
    if loose is not None:
        return Parsed(loose, names, bad, data, lambda: spans)
    found = LooseRows.collect(frame.iter_rows(named=True), columns.row, columns.aside)
    return _by_row(found, names, spans, bad, data)


def _csv_spans(data: bytes) -> tuple[list[str], list[Span], list[Rejection]]:
    """The column names, where the good records stand, and the others."""
    names, body, line = _header(data)
    spans: list[Span] = []
    bad: list[Rejection] = []
    for span, problem in _records(data, body, line, names):
        if problem is None:
            spans.append(span)
        else:
            bad.append(Rejection(_place(data, span), problem))
    return names, spans, bad


def _csv_loose(frame: pl.DataFrame, columns: Columns) -> pl.DataFrame | None:
    try:
        return loosen(*columns.frame(frame))
    except NotColumnar:
        return None


def _csv_columns(data: bytes) -> pl.DataFrame | None:
    """The whole file at once with every value a string, or None if it is not strictly well formed."""
    if b"\0" in data or not _well_formed(data):
        return None
    return _read_csv(data + b"\n")


def _read_csv(data: bytes) -> pl.DataFrame | None:
    try:
        return pl.read_csv(io.BytesIO(data), infer_schema=False)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return None


def _check_header(names: list[str]) -> list[str]:
    # polars renames the second of two equal names, so that it has to be known by what it is renamed to.
    names = [re.sub(r"_duplicated_\d+$", "", name.strip()) for name in names]
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise BadInput(f"line 1, the header: column {double[0][:40]!r} is there {names.count(double[0])} times")
    return names


def _header(data: bytes) -> tuple[list[str], int, int]:
    """The column names, and the place and line where the records begin."""
    fields: list[str] = []
    try:
        end = _record(data, 0, fields)
    except _Stray as stray:
        raise BadInput(f"line 1, the header: {stray}") from stray
    if any("\0" in name or "\ufffd" in name for name in fields):
        raise BadInput("line 1, the header: NUL bytes, or bytes that are not UTF-8; is this a CSV file?")
    return _check_header(fields), end, 1 + data.count(b"\n", 0, end)


def _well_formed(data: bytes) -> bool:
    """Quotes only around whole fields, doubled inside; the same number of fields everywhere; no blank line."""
    bytes_ = np.concatenate((np.frombuffer(data, np.uint8), np.array([_NEWLINE], np.uint8)))
    quotes = np.flatnonzero(bytes_ == _QUOTE)
    if len(quotes) % 2 or not _quotes_fit(bytes_, quotes):
        return False
    ends = _outside(np.flatnonzero(bytes_ == _NEWLINE), quotes)
    commas = _outside(np.flatnonzero(bytes_ == _COMMA), quotes)
    if _longest(ends, len(data)) > MAX_LINE:
        return False
    starts = np.concatenate(([0], ends[:-1] + 1))
    blank = np.isin(bytes_[starts], (_NEWLINE, 13))
    fields = np.diff(np.searchsorted(commas, np.concatenate(([-1], ends))))
    return not blank.any() and bool((fields == fields[0]).all())


def _quotes_fit(bytes_: _Places, quotes: _Places) -> bool:
    # A doubled quote reads as a closing one followed by an opening one, so each may also stand beside a quote.
    opening, closing = quotes[::2], quotes[1::2]
    before = bytes_[np.maximum(opening - 1, 0)]
    after = bytes_[closing + 1]
    opens = np.isin(before, (_COMMA, _NEWLINE, _QUOTE)) | (opening == 0)
    returned = (after == 13) & (bytes_[np.minimum(closing + 2, len(bytes_) - 1)] == _NEWLINE)
    return bool(opens.all() and (np.isin(after, (_COMMA, _NEWLINE, _QUOTE)) | returned).all())


def _outside(places: _Places, quotes: _Places) -> _Places:
    """Those places that are not between an opening and a closing quote."""
    outside: _Places = places[np.searchsorted(quotes, places) % 2 == 0]
    return outside


class _Stray(Exception):  # noqa: N818 - control flow inside this file
    """A quote where none may be."""


_BLANK = re.compile(rb"\r?(?:\n|\Z)")


def _records(data: bytes, at: int, line: int, names: list[str]) -> Iterator[tuple[Span, RowProblem | None]]:
    """Each record without its line end, and what is wrong with it."""
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"(?=,|\r?\n|\Z)|[^",\n]*+)'
    good = re.compile(rb"%s(?:,%s){%d}(?:\n|\Z)" % (field + rb"\r?+", field + rb"\r?+", len(names) - 1))
    odd = b"\0" in data or not _is_utf8(data)
    while at < len(data):
        match = _BLANK.match(data, at) or good.match(data, at)
        problem = None
        if match is None:
            end, problem = _diagnose(data, at, names)
        else:
            end = match.end()
        span = Span(line, at, end - data.endswith(b"\n", at, end))
        if span.end - at > MAX_LINE:
            problem = RowProblem(None, f"a line of {span.end - at:,} bytes, the limit is {MAX_LINE:,}")
        elif odd and problem is None:
            problem = _odd_bytes(data[at:end])
        if problem is not None or match is None or match.re is not _BLANK:
            yield span, problem
        line += data.count(b"\n", at, end)
        at = end


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _odd_bytes(record: bytes) -> RowProblem | None:
    if b"\0" in record:
        return RowProblem(None, f"a NUL byte at byte {record.index(0) + 1}")
    try:
        record.decode()
    except UnicodeDecodeError as error:
        return RowProblem(None, f"not UTF-8 at byte {error.start + 1}")
    return None


def _diagnose(data: bytes, at: int, names: list[str]) -> tuple[int, RowProblem]:
    """Where to go on after a broken record, and what is wrong with it."""
    newline = data.find(b"\n", at)
    next_line = newline + 1 if newline >= 0 else len(data)
    fields: list[str] = []
    try:
        end = _record(data, at, fields)
    except _Stray as stray:
        column = names[len(fields)] if len(fields) < len(names) else None
        return next_line, RowProblem(column, str(stray))
    return end, RowProblem(None, f"{len(fields)} fields, the header has {len(names)}")


def _record(data: bytes, at: int, fields: list[str]) -> int:
    """Append the fields of the record at a place; the place after it."""
    while True:
        value, at = _quoted(data, at) if data.startswith(b'"', at) else _plain(data, at)
        fields.append(value.decode("utf-8", "replace"))
        if not data.startswith(b",", at):
            return min(at + 1, len(data))
        at += 1


_PLAIN = re.compile(rb"[^,\n]*")


def _plain(data: bytes, at: int) -> tuple[bytes, int]:
    match = _PLAIN.match(data, at)
    value = match.group() if match else b""
    end = at + len(value)
    if b'"' in value:
        raise _Stray("a quote inside an unquoted field; put the field in quotes and double those inside")
    return value if data.startswith(b",", end) else value.removesuffix(b"\r"), end


def _quoted(data: bytes, at: int) -> tuple[bytes, int]:
    limit = at + MAX_LINE
    close = data.find(b'"', at + 1, limit)
    while close >= 0 and data.startswith(b'"', close + 1):
        close = data.find(b'"', close + 2, limit)
    if close < 0:
        raise _Stray("a quote that is never closed")
    end = close + 1
    if data.startswith(b"\r\n", end):
        end += 1
    if end < len(data) and not data.startswith((b",", b"\n"), end):
        raise _Stray("text after a closing quote; double the quotes inside a quoted field")
    return data[at + 1 : close].replace(b'""', b'"'), end
