"""The contract: the one table that goes through the whole house, and the functions that bring rows into its shape.

Takes rows or polars frames with some of the columns, in any letter case of label and threat type; gives frames with all
of `SCHEMA`'s columns in order, ids made from the text, or says which row and column cannot be used.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import polars as pl

from .errors import BadInput

BENIGN: Final = "BENIGN"
MALICIOUS: Final = "MALICIOUS"
LABELS: Final = (BENIGN, MALICIOUS)
THREAT_TYPES: Final = (
    "context_manipulation",
    "semantic_jailbreak",
    "obfuscated_command",
    "data_exfil_pattern",
    "unknown",
)
CATEGORIES: Final = (
    "programming",
    "technical_docs",
    "education",
    "general_knowledge",
    "professional",
    "creative",
    "daily_tasks",
    "conversational",
    "edge_cases",
)
GROWN_CATEGORIES: Final = ("legitimate_programming", "legitimate_educational", "hard_negative", "generic_variation")

THREAT: Final = pl.Struct(
    {"rule_id": pl.String(), "severity": pl.String(), "confidence": pl.Float64(), "layer": pl.String()}
)
EXTRA: Final = pl.Struct(
    {
        "confidence": pl.Float64(),
        "layer": pl.String(),
        "rule_id": pl.String(),
        "severity": pl.String(),
        "family": pl.String(),
        "notes": pl.String(),
        "why_hard": pl.String(),
        "original_fp": pl.String(),
        "threats": pl.List(THREAT),
        # A JSON object of every key that came with the row and has no column here, so that it can be written back.
        "other": pl.String(),
    }
)
EXTRA_FIELDS: Final = tuple(field.name for field in EXTRA.fields)

SCHEMA: Final[dict[str, pl.DataType]] = {
    "id": pl.String(),
    "text": pl.String(),
    "label": pl.Enum(LABELS),
    "category": pl.String(),
    "subcategory": pl.String(),
    "threat_type": pl.Enum(THREAT_TYPES),
    "source": pl.String(),
    "origin_id": pl.String(),
    "how": pl.String(),
    "external_id": pl.String(),
    "extra": EXTRA,
    "weight": pl.Float32(),
}

DEFAULT_SOURCE: Final = "original"
MAX_TEXT_BYTES: Final = 1_048_576
"""A longer text is refused everywhere: it is a file by mistake or an attack on the reader, not a prompt."""

_LABEL_CODES: Final = {"0": BENIGN, "1": MALICIOUS, "0.0": BENIGN, "1.0": MALICIOUS}


def text_id(text: str) -> str:
    """The id of a text: 16 hex digits of BLAKE2b over its NFC form in UTF-8."""
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    return blake2b(composed.encode(), digest_size=8).hexdigest()


def text_ids(texts: pl.Series) -> pl.Series:
    """The ids of many texts, null where the text is null."""
    # A loop, because no column expression hashes with BLAKE2b; a quarter of a second for 236,000 prompts.
    ids = [None if text is None else text_id(text) for text in texts.to_list()]
    return pl.Series("id", ids, dtype=pl.String())


def empty_corpus() -> pl.DataFrame:
    """A contract frame without rows."""
    return pl.DataFrame(schema=SCHEMA)


def make_corpus(
    rows: Iterable[Mapping[str, Any]] | pl.DataFrame, *, source: str | None = None, label: str | None = None
) -> pl.DataFrame:
    """Bring rows into the contract: fill the missing columns, make the ids, cast to `SCHEMA`.

    Args:
        rows: mappings or a frame with at least `text` (or `prompt`). Keys that the contract does not have are kept in
            `extra.other`. A given `id` that is not the text's own becomes the `external_id` if there is none yet.
        source: where rows without a source come from; `original` if not said.
        label: the label of rows that have none; without it such a row is an error.

    Raises:
        BadInput: naming the first row and column that cannot be used.
    """
    if isinstance(rows, pl.DataFrame):
        loose = loosen(rows)
    else:
        by_row = LooseRows.collect(rows)
        if by_row.bad:
            index, problem = by_row.bad[0]
            raise BadInput(f"row {index + 1}, column {problem.column}: {problem.reason}")
        loose = by_row.frame
    result = conform(loose, source=source, label=label)
    if result.problems.height:
        first = result.problems.row(0, named=True)
        raise BadInput(f"row {first['row'] + 1}, column {first['column']}: {first['reason']}")
    return result.frame


def check_corpus(frame: pl.DataFrame) -> pl.DataFrame:
    """Give the frame back if it keeps the contract.

    Raises:
        BadInput: naming the first offending column, and the row if it is a value that offends.
    """
    for name, dtype in SCHEMA.items():
        if name not in frame.columns:
            raise BadInput(f"the frame has no column {name}; make_corpus fills in what is missing")
        if frame.schema[name] != dtype:
            raise BadInput(f"column {name} is {frame.schema[name]}, the contract says {dtype}; use make_corpus")
    if frame.columns != list(SCHEMA):
        odd = [name for name in frame.columns if name not in SCHEMA]
        raise BadInput(f"columns beyond the contract or out of order: {odd or frame.columns}; use make_corpus")
    for name in ("id", "text", "label", "source", "weight"):
        if frame[name].null_count():
            raise BadInput(f"column {name}, row {_first(frame[name].is_null())}: no value")
    for name, wrong, reason in _value_checks():
        mask = frame.select(wrong).to_series()
        if mask.any():
            raise BadInput(f"column {name}, row {_first(mask)}: {reason}")
    mask = frame["id"] != text_ids(frame["text"])
    if mask.any():
        raise BadInput(f"column id, row {_first(mask)}: not the id of the row's text; drop the column and make_corpus")
    return frame


def _first(mask: pl.Series) -> int:
    """The number, from 1, of the first true row."""
    return int(mask.arg_true()[0]) + 1


# --- any columns to the loose form -----------------------------------------------------------------------------------
# "Loose" is the contract with label and threat_type as whatever strings came in. Two ways lead there: columns at once,
# for frames and well-formed files, and row by row, for what needs a closer look. `conform` then judges the values.

LOOSE: Final[dict[str, pl.DataType]] = {
    **SCHEMA,
    "label": pl.String(),
    "threat_type": pl.String(),
    "weight": pl.Float64(),
}
KNOWN: Final = frozenset({*LOOSE, *EXTRA_FIELDS})
"""Every name that means something on input; any other is kept in `extra.other`."""
BAD_NUMBER: Final = "not a number"


class NotColumnar(BadInput):
    """A frame whose column types do not say enough; the reader then goes row by row."""


def loosen(frame: pl.DataFrame, aside: pl.DataFrame | None = None) -> pl.DataFrame:
    """All columns of a frame at once into the loose form.

    Args:
        frame: columns whose names say what they mean.
        aside: more columns of the same rows, kept in `extra.other` whatever their names.

    Raises:
        NotColumnar: a column has a type that its name does not allow.
    """
    if "text" not in frame.columns and "prompt" in frame.columns:
        frame = frame.rename({"prompt": "text"})
    elif "prompt" in frame.columns and frame["text"].null_count():
        frame = _with_prompts_as_text(frame)
    out = {name: _loose_column(frame, name) for name in LOOSE if name != "extra"}
    extra = _loose_extra(frame, aside)
    return pl.DataFrame([*(out[name] if name != "extra" else extra for name in LOOSE)])


def _with_prompts_as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Take `prompt` for the text of the rows that have no `text`."""
    if not {frame.schema["text"], frame.schema["prompt"]} <= {pl.String(), pl.Null()}:
        raise NotColumnar("columns text and prompt must hold text")
    missing = pl.col("text").is_null()
    prompt = pl.col("prompt").cast(pl.String)
    return frame.with_columns(
        text=pl.when(missing).then(prompt).otherwise(pl.col("text").cast(pl.String)),
        prompt=pl.when(missing).then(None).otherwise(prompt),
    )


def _loose_column(frame: pl.DataFrame, name: str) -> pl.Series:
    if name not in frame.columns:
        return pl.Series(name, [None], dtype=LOOSE[name]).new_from_index(0, frame.height)
    column = frame[name]
    if name == "weight":
        return _number(column)
    return _string(column, integers=name != "text")


def _string(column: pl.Series, *, integers: bool = True) -> pl.Series:
    dtype = column.dtype
    if dtype.is_integer() and integers:
        return column.cast(pl.String())
    if dtype == pl.Float64() and column.name == "label":
        return column.cast(pl.String())
    if dtype in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        return column.cast(pl.String())
    raise NotColumnar(f"column {column.name} must hold text, not {dtype}")


def _number(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String:
        column = column.replace("", None)
        numbers = column.str.strip_chars().cast(pl.Float64(), strict=False)
        broken = numbers.is_null() & column.is_not_null()
        if broken.any():
            raise NotColumnar(f"column {column.name}, row {_first(broken)}: {BAD_NUMBER}")
        return numbers
    if column.dtype.is_numeric() or column.dtype == pl.Null:
        return column.cast(pl.Float64())
    raise NotColumnar(f"column {column.name} must hold numbers, not {column.dtype}")


def _loose_extra(frame: pl.DataFrame, aside: pl.DataFrame | None) -> pl.Series:
    """The `extra` column from a struct or JSON column, columns named like its fields, and all other columns."""
    fields = _extra_struct(frame)
    for name in EXTRA_FIELDS:
        if name in frame.columns:
            given = _extra_field(frame[name])
            fields[name] = given if name not in fields else given.zip_with(given.is_not_null(), fields[name])
    unknown = [frame[name] for name in frame.columns if name not in KNOWN]
    unknown += [] if aside is None else aside.get_columns()
    if unknown:
        fields["other"] = _merge_other(pl.DataFrame(unknown), fields.get("other"))
    if not fields:
        return pl.Series("extra", [None], dtype=EXTRA).new_from_index(0, frame.height)
    columns = [
        fields[field.name].alias(field.name) if field.name in fields else pl.lit(None, field.dtype).alias(field.name)
        for field in EXTRA.fields
    ]
    given_any = pl.any_horizontal(pl.col(name).is_not_null() for name in EXTRA_FIELDS)
    struct = pl.struct(EXTRA_FIELDS, schema=dict(zip(EXTRA_FIELDS, (f.dtype for f in EXTRA.fields), strict=True)))
    return pl.DataFrame(fields).select(columns).select(pl.when(given_any).then(struct).alias("extra")).to_series()


def _extra_struct(frame: pl.DataFrame) -> dict[str, pl.Series]:
    if "extra" not in frame.columns or frame["extra"].null_count() == frame.height:
        return {}
    column = frame["extra"]
    if column.dtype == pl.String:
        try:
            column = column.replace("", None).str.json_decode(infer_schema_length=None)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            raise NotColumnar("column extra does not hold JSON objects") from error
    if not isinstance(column.dtype, pl.Struct):
        raise NotColumnar(f"column extra must hold objects, not {column.dtype}")
    parts = column.struct.unnest()
    odd = [name for name in parts.columns if name not in EXTRA_FIELDS]
    if odd:
        raise NotColumnar(f"column extra has unknown fields {odd}")
    return {name: _extra_field(parts[name]) for name in parts.columns}


def _extra_field(column: pl.Series) -> pl.Series:
    if column.name == "confidence":
        return _number(column).fill_nan(None)
    if column.name != "threats":
        return _string(column)
    if column.null_count() == len(column):
        return pl.Series("threats", [None], dtype=pl.List(THREAT)).new_from_index(0, len(column))
    inner = column.dtype.inner if isinstance(column.dtype, pl.List) else None
    if inner == pl.Null and not column.list.len().sum():
        return column.cast(pl.List(THREAT))
    wanted = {field.name: field.dtype for field in THREAT.fields}
    if not isinstance(inner, pl.Struct) or any(
        field.name not in wanted or not _threat_dtype_fits(field) for field in inner.fields
    ):
        raise NotColumnar(f"column threats must hold lists of {list(wanted)}, not {column.dtype}")
    if column.explode(empty_as_null=False, keep_nulls=False).null_count():
        raise NotColumnar("column threats has empty places in a list")
    have = {field.name for field in inner.fields}
    parts = [
        (pl.element().struct.field(name) if name in have else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in wanted.items()
    ]
    return column.list.eval(pl.struct(parts)).cast(pl.List(THREAT))


def _threat_dtype_fits(field: pl.Field) -> bool:
    if field.dtype == pl.Null:
        return True
    return field.dtype.is_numeric() if field.name == "confidence" else field.dtype == pl.String


def _merge_other(unknown: pl.DataFrame, existing: pl.Series | None) -> pl.Series:
    # A loop over rows: only files with columns unknown to the contract come here, and nulls must not become keys.
    olds = existing.to_list() if existing is not None else [None] * unknown.height
    merged = []
    for old, row in zip(olds, unknown.iter_rows(named=True), strict=True):
        keys = {name: value for name, value in row.items() if value is not None}
        merged.append(merge_other(old, keys))
    return pl.Series("other", merged, dtype=pl.String())


def merge_other(old: str | None, keys: Mapping[str, Any]) -> str | None:
    """Add keys to the JSON object of `extra.other`, sorted; what is there already stays."""
    if not keys:
        return old
    return json.dumps({**keys, **parse_other(old)}, ensure_ascii=False, default=str, sort_keys=True)


def parse_other(other: str | None) -> dict[str, Any]:
    """The keys kept in `extra.other`; a string that is no JSON object counts as one nameless key."""
    if not other:
        return {}
    try:
        parsed = json.loads(other)
    except (ValueError, RecursionError):
        return {"other": other}
    return parsed if isinstance(parsed, dict) else {"other": other}


# --- row by row ------------------------------------------------------------------------------------------------------


class RowProblem(Exception):  # noqa: N818 - a finding about one row, not an error of the program
    """What is wrong with one row, and in which column."""

    def __init__(self, column: str | None, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason


@dataclass(frozen=True)
class LooseRows:
    """Rows in the loose form, the place of each in what was given, and those that cannot be brought there."""

    frame: pl.DataFrame
    places: list[int]
    bad: list[tuple[int, RowProblem]]

    @classmethod
    def collect(
        cls,
        rows: Iterable[Any],
        shape: Callable[[Any], Mapping[str, Any]] | None = None,
        aside: Callable[[Any], Mapping[str, Any]] | None = None,
    ) -> "LooseRows":
        """Rows one at a time into the loose form, for rows whose columns do not share one type.

        Args:
            rows: mappings, or whatever `shape` takes.
            shape: turns one row into a mapping of contract columns, or raises `RowProblem`.
            aside: what of one row is kept in `extra.other` whatever its names.
        """
        good: list[dict[str, Any]] = []
        places: list[int] = []
        bad: list[tuple[int, RowProblem]] = []
        for place, row in enumerate(rows):
            try:
                good.append(_flat(row if shape is None else shape(row), {} if aside is None else aside(row)))
                places.append(place)
            except RowProblem as problem:
                bad.append((place, problem))
            except RecursionError:
                bad.append((place, RowProblem(None, "nested too deeply")))
        return cls(pl.DataFrame(good, schema=LOOSE, orient="row"), places, bad)


def _flat(row: Mapping[str, Any], aside: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = dict.fromkeys(LOOSE)
    extra: dict[str, Any] = {}
    other = {name: value for name, value in aside.items() if value is not None}
    for given, value in row.items():
        if value is None:
            continue
        key = "text" if given == "prompt" and row.get("text") is None else given
        if key == "extra":
            for name, inner in _extra_items(value):
                _put_extra(extra, other, name, inner)
        elif key == "weight":
            flat[key] = _float(key, value)
        elif key in LOOSE:
            flat[key] = _text(key, value, integers=key != "text")
        else:
            _put_extra(extra, other, key, value)
    if other:
        extra["other"] = _text("extra.other", merge_other(extra.get("other"), other))
    if any(value is not None for value in extra.values()):
        flat["extra"] = {name: extra.get(name) for name in EXTRA_FIELDS}
    return flat


def _extra_items(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, str):
        if not value:
            return ()
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowProblem("extra", "not a JSON object") from error
    if not isinstance(value, Mapping):
        raise RowProblem("extra", f"must be an object, found {_kind(value)}")
    return value.items()


def _put_extra(extra: dict[str, Any], other: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        return
    if name == "threats":
        extra[name] = _threats(value)
    elif name == "confidence":
        extra[name] = _confidence(name, value)
    elif name in EXTRA_FIELDS:
        extra[name] = _text(name, value)
    else:
        other[name] = value


def _threats(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple):
        raise RowProblem("threats", f"must be a list, found {_kind(value)}")
    threats = []
    for item in value:
        if not isinstance(item, Mapping):
            raise RowProblem("threats", f"must be a list of objects, found {_kind(item)}")
        odd = [name for name in item if name not in ("rule_id", "severity", "confidence", "layer")]
        if odd:
            raise RowProblem("threats", f"unknown key {odd[0][:40]!r}")
        threats.append(
            {
                "rule_id": _text("threats.rule_id", item.get("rule_id")),
                "severity": _text("threats.severity", item.get("severity")),
                "confidence": _confidence("threats.confidence", item.get("confidence")),
                "layer": _text("threats.layer", item.get("layer")),
            }
        )
    return threats


def _text(column: str, value: Any, *, integers: bool = True) -> str | None:
    if value is None:
        return None
    if integers and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if column == "label" and isinstance(value, float):
        return str(value)
    if not isinstance(value, str):
        raise RowProblem(column, f"must be text, found {_kind(value)}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowProblem(column, "holds half of a surrogate pair, which is no character") from error
    return value


def _float(column: str, value: Any) -> float | None:
    if isinstance(value, str):
        if not value:
            return None
        try:
            return float(value)
        except ValueError as error:
            raise RowProblem(column, BAD_NUMBER) from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowProblem(column, f"must be a number, found {_kind(value)}")
    try:
        return float(value)
    except OverflowError as error:
        raise RowProblem(column, "a number too large") from error


def _confidence(column: str, value: Any) -> float | None:
    number = None if value is None else _float(column, value)
    if number is None or math.isnan(number):
        return None
    if math.isinf(number):
        raise RowProblem(column, BAD_NUMBER)
    return number


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


# --- judging the values ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conformed:
    """Contract rows, the place of each in the loose frame, and the problems (row, column, reason) of all others."""

    frame: pl.DataFrame
    places: pl.Series
    problems: pl.DataFrame


def conform(loose: pl.DataFrame, *, source: str | None = None, label: str | None = None) -> Conformed:
    """Judge loose rows value by value; those without a problem come out as contract rows.

    Args:
        loose: a frame in the loose form.
        source: for rows that name none.
        label: for rows that have none.

    Raises:
        BadInput: the whole frame has no text or no label, or `label` is not a label.
    """
    if label is not None and label.upper() not in LABELS:
        raise BadInput(f"label {label!r} is not one of {', '.join(LABELS)}")
    if loose.height:
        _check_columns(loose, label)
    judged = loose.with_row_index("row").with_columns(
        _label_expr(label).alias("_label"), _threat_expr().alias("_threat")
    )
    problems = _problems(judged)
    good = judged.join(problems.select("row").unique(), on="row", how="anti", maintain_order="left")
    ids = text_ids(good["text"])
    frame = good.select(
        ids,
        "text",
        pl.col("_label").cast(SCHEMA["label"]).alias("label"),
        "category",
        "subcategory",
        pl.col("_threat").cast(SCHEMA["threat_type"]).alias("threat_type"),
        pl.coalesce(pl.col("source").replace("", None), pl.lit(source or DEFAULT_SOURCE)).alias("source"),
        "origin_id",
        "how",
        pl.coalesce("external_id", pl.when(pl.col("id").replace("", None) != ids).then("id")).alias("external_id"),
        "extra",
        pl.col("weight").fill_null(1.0).cast(pl.Float32()),
    )
    return Conformed(frame, good["row"], problems)


def _check_columns(loose: pl.DataFrame, label: str | None) -> None:
    if loose["text"].null_count() == loose.height:
        raise BadInput("no column text (or prompt); rename the column that holds the prompts")
    if label is None and loose["label"].null_count() == loose.height:
        raise BadInput("no column label; add one with BENIGN or MALICIOUS (0 or 1), or say which label all rows have")


def _label_expr(label: str | None) -> pl.Expr:
    given = pl.col("label").str.strip_chars().str.to_uppercase().replace(_LABEL_CODES).replace("", None)
    return given if label is None else given.fill_null(label.upper())


def _threat_expr() -> pl.Expr:
    return pl.col("threat_type").str.strip_chars().str.to_lowercase().replace("", None)


def _problems(judged: pl.DataFrame) -> pl.DataFrame:
    """One line for each row that cannot be used, with the first thing wrong with it."""
    label, threat = pl.col("_label"), pl.col("_threat")
    checks: list[tuple[str, pl.Expr, pl.Expr]] = [
        ("text", pl.col("text").is_null(), pl.lit("no text")),
        *((name, wrong, pl.lit(reason)) for name, wrong, reason in _value_checks()),
        ("label", label.is_null(), pl.lit("no label")),
        (
            "label",
            ~label.is_in(LABELS),
            pl.format("'{}' is not BENIGN or MALICIOUS (0 or 1)", pl.col("label").str.head(20)),
        ),
        (
            "threat_type",
            ~threat.is_in(THREAT_TYPES),
            pl.format("'{}' is not one of " + ", ".join(THREAT_TYPES), pl.col("threat_type").str.head(20)),
        ),
    ]
    found = [
        judged.filter(wrong).select("row", pl.lit(name).alias("column"), reason.alias("reason"))
        for name, wrong, reason in checks
    ]
    return pl.concat(found).unique("row", keep="first", maintain_order=True).sort("row")


def _value_checks() -> list[tuple[str, pl.Expr, str]]:
    """What makes a value unusable whatever file it came from: column, mask, reason."""
    text, weight = pl.col("text"), pl.col("weight")
    return [
        ("text", text.str.strip_chars() == "", "the text is empty"),
        ("text", text.str.contains("\0", literal=True), "the text holds a NUL character"),
        ("text", text.str.len_bytes() > MAX_TEXT_BYTES, f"the text is longer than {MAX_TEXT_BYTES:,} bytes"),
        ("extra", pl.col("extra").struct.field("confidence").is_infinite(), "the confidence must be finite"),
        ("weight", ~weight.is_finite() | (weight < 0), "the weight must be a finite number, 0 or more"),
    ]


def is_plain(frame: pl.DataFrame, aside: pl.DataFrame) -> bool:
    """Whether all columns that go to `extra.other` hold single values, which can be kept as they came."""
    other = [dtype for name, dtype in frame.schema.items() if name not in KNOWN and name != "prompt"]
    return not any(dtype.is_nested() for dtype in [*other, *aside.dtypes])
