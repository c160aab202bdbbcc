"""The three shapes that other tools of the field write: a test harness's result, augmented JSONL, the master CSV.

Takes rows in the loose form and says what the columns of each shape mean in the contract, and the other way round. What
the contract has no column for travels in `extra`, so that writing a file back loses nothing.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import polars as pl

from .errors import BadInput
from .schema import BENIGN, MALICIOUS, THREAT_TYPES, LooseRows, RowProblem, merge_other, parse_other, text_ids

Format: TypeAlias = Literal["native", "harness", "augmented", "master"]

CUT_LENGTH: Final = 100
CUT_MARK: Final = "..."
CUT: Final = f"cut:{CUT_LENGTH}"
"""`how` of a row whose text a harness cut; such a row must be joined back to its prompt or left out, never grown."""

MASTER_COLUMNS: Final = ("text", "label", "family", "category", "severity", "confidence", "source", "notes")
AUGMENTED_COLUMNS: Final = ("prompt", "label", "category", "subcategory", "original_fp", "why_hard")
_THREAT_KEYS: Final = ("rule_id", "severity", "confidence", "layer")
_ID: Final = r"^[0-9a-f]{16}$"


def sniff(columns: list[str], *, is_csv: bool) -> Format:
    """The shape that the columns of a row file speak for."""
    if "extra" in columns:
        return "native"
    if is_csv and "family" in columns and {"severity", "notes", "confidence"} & set(columns):
        return "master"
    if not is_csv and {"original_fp", "why_hard"} & set(columns):
        return "augmented"
    return "native"


def from_foreign(loose: pl.DataFrame, format: Format) -> pl.DataFrame:
    """What the columns of a foreign row file mean in the contract."""
    if format == "master":
        return _from_master(loose)
    if format == "augmented":
        return _from_augmented(loose)
    return loose


def with_threat_types(loose: pl.DataFrame) -> pl.DataFrame:
    """For a file that has no column threat_type: malicious rows whose category is a threat type are of that type."""
    malicious = pl.col("label").str.strip_chars().str.to_uppercase().is_in([MALICIOUS, "1", "1.0"])
    category = pl.col("category").str.to_lowercase()
    found = pl.when(malicious & category.is_in(THREAT_TYPES)).then(category)
    return loose.with_columns(pl.coalesce("threat_type", found).alias("threat_type"))


def default_source(format: Format) -> str | None:
    """The source of rows of a shape that has no column for it."""
    return "augmented" if format == "augmented" else None


# --- sample_training_master.csv --------------------------------------------------------------------------------------


def _from_master(loose: pl.DataFrame) -> pl.DataFrame:
    """A malicious row's category is its threat type; failing that its family, failing that `unknown`."""
    malicious = pl.col("label").str.strip_chars().str.to_uppercase().is_in([MALICIOUS, "1", "1.0"])
    category = pl.col("category").replace("", None)
    named = [category, pl.col("extra").struct.field("family")]
    known = [
        pl.when(name.str.to_lowercase().is_in(THREAT_TYPES)).then(name.str.to_lowercase()).otherwise(None)
        for name in named
    ]
    vague = pl.when(pl.any_horizontal(name.is_not_null() for name in named)).then(pl.lit("unknown"))
    threat = pl.when(malicious).then(pl.coalesce("threat_type", *known, vague)).otherwise("threat_type")
    typed = loose.with_columns(threat.alias("threat_type"), category.alias("category"))
    said = malicious & (pl.col("category") == pl.col("threat_type"))
    return typed.with_columns(pl.when(said.fill_null(False)).then(None).otherwise("category").alias("category"))


def to_master(frame: pl.DataFrame) -> pl.DataFrame:
    """Contract rows as the columns of a master CSV, then a column for each thing else that some row has."""
    extra = {name: pl.col("extra").struct.field(name) for name in ("family", "severity", "confidence", "notes")}
    malicious = pl.col("label") == MALICIOUS
    threat = pl.col("threat_type").cast(pl.String())
    # Rows that never had a foreign shape get what a row of this shape usually says.
    fresh = pl.all_horizontal(extra[name].is_null() for name in ("family", "severity", "confidence"))
    usual = {
        "family": pl.when(malicious).then(threat.fill_null("unknown").str.to_uppercase()).otherwise(pl.lit(BENIGN)),
        "severity": pl.when(malicious).then(pl.lit("high")).otherwise(pl.lit("info")),
        "confidence": pl.lit(1.0),
    }
    filled = {name: pl.when(fresh).then(value).otherwise(extra[name]) for name, value in usual.items()}
    out = frame.select(
        "text",
        malicious.cast(pl.Int8()).alias("label"),
        filled["family"].alias("family"),
        pl.when(malicious).then(pl.coalesce("category", threat)).otherwise("category").alias("category"),
        filled["severity"].alias("severity"),
        filled["confidence"].alias("confidence"),
        "source",
        extra["notes"].alias("notes"),
    )
    said = malicious & (pl.coalesce("category", threat).str.to_lowercase() == threat)
    more = frame.select(
        pl.when(~said.fill_null(False)).then(threat).alias("threat_type"),
        *_beyond("subcategory", "origin_id", "how", "weight"),
        *(pl.col("extra").struct.field(name) for name in ("layer", "rule_id", "why_hard", "original_fp")),
    )
    spread = _spread_other(frame, taken=[*out.columns, *more.columns])
    return pl.concat([out, _with_values(more), spread], how="horizontal")


def _beyond(*names: str) -> list[pl.Expr]:
    """The row's old id and the named columns, for writers that add them where there is something to say."""
    weight = pl.when(pl.col("weight") != 1.0).then("weight").alias("weight")
    return [pl.col("external_id").alias("id"), *(weight if name == "weight" else pl.col(name) for name in names)]


def _with_values(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(name for name in frame.columns if frame[name].null_count() < frame.height)


def _spread_other(frame: pl.DataFrame, *, taken: list[str]) -> pl.DataFrame:
    """The columns of a CSV that the contract does not know, out of `extra.other` again."""
    texts = frame["extra"].struct.field("other")
    if texts.null_count() == frame.height:
        return pl.DataFrame()
    # A loop over rows: only files that had unknown columns come here.
    rows = [parse_other(text) for text in texts.to_list()]
    names = dict.fromkeys(name for row in rows for name in row if name not in taken)
    cells = {name: [_cell(row.get(name)) for row in rows] for name in names}
    return pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String()))


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- augmented_training_data.jsonl -----------------------------------------------------------------------------------


def _from_augmented(loose: pl.DataFrame) -> pl.DataFrame:
    """`original_fp` is the text that a row was grown from, so its id is the row's origin; it may be that id itself."""
    original = loose["extra"].struct.field("original_fp").replace("", None)
    is_id = original.str.contains(_ID).fill_null(value=False)
    origin = original.zip_with(is_id, text_ids(original))
    return loose.with_columns(pl.coalesce("origin_id", origin).alias("origin_id"))


def to_augmented(frame: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Contract rows as the objects of an augmented JSONL, with further keys where a row has more to say."""
    extra = pl.col("extra").struct
    table = frame.select(
        pl.col("text").alias("prompt"),
        "label",
        "category",
        "subcategory",
        pl.coalesce(extra.field("original_fp"), "origin_id").alias("original_fp"),
        extra.field("why_hard"),
        # From here on only what is said is written.
        *_beyond("threat_type", "origin_id", "how", "weight"),
        pl.when(pl.col("source") != "augmented").then("source").alias("source"),
        *(extra.field(name) for name in ("confidence", "layer", "rule_id", "severity", "family", "notes", "threats")),
        extra.field("other").alias("_other"),
    )
    # A loop over rows, because each may have keys of its own.
    for row in table.iter_rows(named=True):
        other = parse_other(row.pop("_other"))
        said = {name: value for name, value in row.items() if value is not None or name in AUGMENTED_COLUMNS}
        yield {**said, **{name: value for name, value in other.items() if name not in said}}


# --- benign_test_results.json ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Harness:
    """A harness's result: its rows in the loose form, what is wrong with others, and its totals as they were."""

    rows: LooseRows
    raws: list[Any]
    summary: dict[str, Any]


def read_harness(document: Mapping[str, Any]) -> Harness:
    """The false positives of a harness's result, as benign rows; those with cut prompts have `how` set to `CUT`.

    Raises:
        BadInput: `fp_details` is not a list.
    """
    details = document["fp_details"]
    if not isinstance(details, list):
        raise BadInput("fp_details must be a list of false positives")
    rows = LooseRows.collect(details, _detail)
    return Harness(rows, details, {name: value for name, value in document.items() if name != "fp_details"})


def _detail(detail: Any) -> dict[str, Any]:
    if not isinstance(detail, Mapping):
        raise RowProblem("fp_details", "an object is expected for each false positive")
    prompt = detail.get("prompt")
    if not isinstance(prompt, str):
        raise RowProblem("prompt", "no text")
    other = {name: value for name, value in detail.items() if name not in ("id", "prompt", "category", "threats")}
    given = detail.get("id")
    if given is not None and not isinstance(given, str):
        other["id"] = given  # a number is written back as one
    threats, odd = _split_threats(detail.get("threats"))
    if odd:
        other["threats"] = odd
    extra = {**_taken_for(threats), "threats": threats, "other": merge_other(None, other)}
    threat_type = _threat_type(extra.get("rule_id")) if threats else None
    return {
        "text": prompt,
        "label": BENIGN,
        "category": detail.get("category"),
        "external_id": None if given is None else str(given),
        "how": CUT if is_cut(prompt) else None,
        "threat_type": threat_type,
        "extra": extra,
    }


def is_cut(prompt: str) -> bool:
    """Whether a harness may have cut a prompt: exactly its 100 characters and the mark, no more and no less."""
    return len(prompt) == CUT_LENGTH + len(CUT_MARK) and prompt.endswith(CUT_MARK)


def _split_threats(threats: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Each threat's known keys, and its unknown ones where there are any."""
    if threats is None:
        return [], None
    if not isinstance(threats, list) or not all(isinstance(threat, Mapping) for threat in threats):
        raise RowProblem("threats", "must be a list of objects")
    known = [{name: threat.get(name) for name in _THREAT_KEYS} for threat in threats]
    odd = [{name: value for name, value in threat.items() if name not in _THREAT_KEYS} for threat in threats]
    return known, odd if any(odd) else None


def _taken_for(threats: list[dict[str, Any]]) -> dict[str, Any]:
    """The threat that decides: of those of L2, or of all if L2 is silent, the most confident."""
    if not threats:
        return {}
    of_l2 = [threat for threat in threats if threat["layer"] == "L2"]
    return max(of_l2 or threats, key=lambda threat: _rank(threat["confidence"]))


def _rank(confidence: Any) -> float:
    return float(confidence) if isinstance(confidence, int | float) and confidence == confidence else -1.0


def _threat_type(rule_id: Any) -> str:
    name = str(rule_id).lower()
    return name if name in THREAT_TYPES else "unknown"


def to_harness(frame: pl.DataFrame, summary: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Contract rows as a harness's result; prompts are whole.

    Args:
        frame: the false positives.
        summary: what the result says beside them, at least `total` and `categories` ({name: {"total": n}}) to be of
            use. Without it the false positives are all there is. The counts of false positives and true negatives are
            always made from the rows.
    """
    given = dict(summary or {})
    counted = {str(name): n for name, n in frame.group_by("category", maintain_order=True).len().iter_rows()}
    total = int(given.get("total") or frame.height)
    categories = {name: {**_counts(value), "fp": 0} for name, value in dict(given.get("categories") or {}).items()}
    for name, fps in counted.items():
        entry = categories.setdefault(name, {"total": fps})
        entry["fp"] = fps
    result = {
        "total": total,
        "false_positives": frame.height,
        "true_negatives": max(total - frame.height, 0),
        "fp_details": [_to_detail(row) for row in frame.iter_rows(named=True)],
        "categories": categories,
    }
    return {**result, **{name: value for name, value in given.items() if name not in result}}


def _counts(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {"total": value}


def _to_detail(row: Mapping[str, Any]) -> dict[str, Any]:
    extra = row["extra"] or {}
    other = parse_other(extra.get("other"))
    threats = extra.get("threats")
    if threats is None:
        threats = [_own_threat(row, extra)] if row["threat_type"] else []
    odd = other.pop("threats", None)
    if isinstance(odd, list) and len(odd) == len(threats):
        threats = [{**threat, **more} for threat, more in zip(threats, odd, strict=True)]
    detail = {"id": row["external_id"] or row["id"], "prompt": row["text"], "category": row["category"]}
    return {**detail, "threats": threats, **other}


def _own_threat(row: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The threat of a row that never came from a harness."""
    return {
        "rule_id": extra.get("rule_id") or row["threat_type"],
        "severity": extra.get("severity") or "ML_DETECTED",
        "confidence": extra.get("confidence"),
        "layer": extra.get("layer") or "L2",
    }
