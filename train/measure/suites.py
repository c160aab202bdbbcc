"""The validation sets as suites: named sets of rows, each with its kind and whether it was held out.

Takes contract frames (the user's benign test set, held-out attacks) and the frames that a model was trained on or grown
from; gives suites of rows that the model can't have seen, and the whole set apart, named as not held out. The
programming and edge-case suites come from the embedded data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from crywolf.data import BadInput

Kind = Literal["benign", "malicious", "mixed"]
Reference = tuple[str, pl.DataFrame]
"""A name and a frame that a model was trained on, grown from or tuned with."""

BENIGN_TEST = "benign_test"
MALICIOUS_HELD_OUT = "malicious_held_out"
PROGRAMMING = "programming"
EDGE_CASES = "edge_cases"
WHOLE = "_whole"
"""Ending of the name of a suite that repeats a set whole although it is not held out."""


@dataclass(frozen=True)
class Suite:
    """A named set of contract rows to be scored.

    Attributes:
        name: what the tables call it, and what a gate asks for.
        frame: contract rows, every id once.
        kind: which labels it holds.
        held_out: False when rows of it were trained on, grown from, or are near-duplicates of such rows.
        note: said under the tables.
        l1_stopped: ids of rows that layer 1 stopped before L2 saw them; None where no L1 results are given.
    """

    name: str
    frame: pl.DataFrame
    kind: Kind
    held_out: bool = True
    note: str = ""
    l1_stopped: frozenset[str] | None = None

    def __post_init__(self) -> None:
        missing = [column for column in ("id", "text", "label") if column not in self.frame.columns]
        if missing:
            raise BadInput(
                f"suite {self.name!r}: column {missing[0]!r} is missing; pass a contract frame (make_corpus)"
            )
        if self.frame["id"].n_unique() != self.frame.height:
            raise BadInput(f"suite {self.name!r}: an id occurs twice; build it with suite_of, which keeps the first")
        found = kind_of(self.frame)
        if not self.frame.is_empty() and self.kind not in ("mixed", found):
            raise BadInput(f"suite {self.name!r} is called {self.kind} but holds {found} rows")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.frame.height


def kind_of(frame: pl.DataFrame) -> Kind:
    """Which labels a frame holds."""
    labels = set(frame["label"].cast(pl.String).unique().to_list())
    if labels <= {"BENIGN"}:
        return "benign"
    return "malicious" if labels == {"MALICIOUS"} else "mixed"


def suite_of(
    name: str,
    frame: pl.DataFrame,
    *,
    kind: Kind | None = None,
    held_out: bool = True,
    note: str = "",
    l1_stopped: frozenset[str] | None = None,
) -> Suite:
    """A suite of any contract frame; exact duplicates are left out and counted, the kind is read off the labels."""
    unique = frame.unique(subset="id", keep="first", maintain_order=True)
    repeats = frame.height - unique.height
    notes = [part for part in (note, f"{repeats:,} exact duplicates left out" if repeats else "") if part]
    return Suite(name, unique, kind or kind_of(unique), held_out, "; ".join(notes), l1_stopped)


@dataclass(frozen=True)
class HeldOut:
    """A test set parted in two.

    Attributes:
        held_out: rows that nothing in the references has seen.
        seen: the others, with `reason` (trained_on:NAME, grown_from:NAME, near_duplicate_of:NAME) and `match_id`.
    """

    held_out: pl.DataFrame
    seen: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Rows left out, by reason."""
        table = self.seen.group_by("reason").len().sort("reason")
        return dict(zip(table["reason"].to_list(), table["len"].to_list(), strict=True))

    @property
    def note(self) -> str:
        """For people: what was left out, and why."""
        parts = (f"{n:,} {reason.replace('_', ' ').replace(':', ' ')}" for reason, n in self.counts.items())
        return f"left out: {', '.join(parts)}" if self.counts else ""


def split_held_out(frame: pl.DataFrame, references: Sequence[Reference], *, threshold: float = 0.8) -> HeldOut:
    """Part a test set from what a model was trained on, grown from, or tuned with.

    A row is seen when its id is in a reference, when a reference row was grown from it or from the row that it was
    itself grown from, or when its text is a near-duplicate of a reference text. Give the FPs that were grown as a
    reference as
    well: their own texts count, not only those of their offspring.

    Args:
        frame: the test rows.
        references: named frames, such as ("train", split.train) and ("fps", fps).
        threshold: Jaccard of character 5-grams from which two texts are near-duplicates.
    """
    marked = frame.with_columns(
        pl.lit(None, dtype=pl.String).alias("reason"), pl.lit(None, dtype=pl.String).alias("match_id")
    )
    for name, reference in references:
        marked = _mark_lineage(marked, name, reference)
    seen = marked.filter(pl.col("reason").is_not_null())
    left = marked.filter(pl.col("reason").is_null())
    # Only rows that lineage leaves open are compared by text, which is the dear part.
    left = _mark_near_duplicates(left, references, threshold)
    seen = pl.concat([seen, left.filter(pl.col("reason").is_not_null())])
    return HeldOut(left.filter(pl.col("reason").is_null()).drop("reason", "match_id"), seen)


def _mark_lineage(marked: pl.DataFrame, name: str, reference: pl.DataFrame) -> pl.DataFrame:
    """Name the rows that share an id or an origin with the reference; rows already marked keep their reason."""
    ids = reference["id"].unique()
    origins = (reference["origin_id"] if "origin_id" in reference.columns else ids.clear()).drop_nulls().unique()
    family = pl.concat([ids, origins]).unique()
    own, origin = pl.col("id"), pl.col("origin_id") if "origin_id" in marked.columns else pl.lit(None, dtype=pl.String)
    trained, grown = own.is_in(ids.implode()), own.is_in(origins.implode())
    sibling = origin.is_in(family.implode()).fill_null(value=False)
    reason = (
        pl.when(trained).then(pl.lit(f"trained_on:{name}")).when(grown).then(pl.lit(f"grown_from:{name}"))
        .when(sibling).then(pl.lit(f"same_origin_as:{name}"))
    )  # fmt: skip
    match = pl.when(trained | grown).then(own).when(sibling).then(origin)
    return marked.with_columns(pl.coalesce("reason", reason), pl.coalesce("match_id", match))


def _mark_near_duplicates(left: pl.DataFrame, references: Sequence[Reference], threshold: float) -> pl.DataFrame:
    """Name the rows whose text is a near-duplicate of any reference text."""
    from crywolf.augment.dedup import nearest_reference

    known = [frame.select("id", "text", pl.lit(name).alias("name")) for name, frame in references]
    if left.is_empty() or not known:
        return left
    pool = pl.concat(known).unique(subset="id", keep="first", maintain_order=True)
    if pool.is_empty():
        return left
    nearest = nearest_reference(left["text"].to_list(), pool["text"].to_list(), threshold=threshold)
    hit = pl.Series(nearest, dtype=pl.Int64)
    found = pool.select(("near_duplicate_of:" + pl.col("name")).alias("reason"), pl.col("id").alias("match_id"))
    matched = found[hit.clip(lower_bound=0)].with_columns(
        pl.when(pl.lit(hit >= 0)).then(pl.col(column)).alias(column) for column in ("reason", "match_id")
    )
    return left.with_columns(matched["reason"], matched["match_id"])


def held_out_suites(
    name: str,
    frame: pl.DataFrame,
    references: Sequence[Reference] = (),
    *,
    threshold: float = 0.8,
    note: str = "",
    l1_stopped: frozenset[str] | None = None,
) -> tuple[Suite, ...]:
    """A set as the suite of its held-out rows and, where some were seen, the whole set apart, named as not held out.

    The whole set is called NAME_whole. A set of which nothing is held out gives an empty suite under its own name, so
    that a gate on it says what it lacks rather than quietly counting memorised rows.
    """
    parted = split_held_out(frame, references, threshold=threshold)
    notes = "; ".join(part for part in (note, parted.note) if part)
    clean = suite_of(name, parted.held_out, kind=kind_of(frame), note=notes, l1_stopped=l1_stopped)
    if parted.seen.is_empty():
        return (clean,)
    share = (
        f"not held out: {parted.seen.height:,} of {frame.height:,} rows were trained on, grown from, or are near these"
    )
    whole = suite_of(f"{name}{WHOLE}", frame, held_out=False, note=share, l1_stopped=l1_stopped)
    return (clean, whole)


def standard_suites(
    benign_test: pl.DataFrame | None = None,
    malicious_held_out: pl.DataFrame | None = None,
    *,
    trained_on: Sequence[Reference] = (),
    programming: bool = True,
    edge_cases: bool = True,
    l1_stopped: frozenset[str] | None = None,
    threshold: float = 0.8,
) -> tuple[Suite, ...]:
    """The four validation sets: the user's benign test set, held-out attacks, programming prompts, edge cases.

    Args:
        benign_test: the user's benign prompts; None leaves the set out.
        malicious_held_out: attacks; None leaves the set out.
        trained_on: named frames that the model was trained on, grown from or tuned with. Every set is cleaned of them.
        programming: add the embedded programming prompts.
        edge_cases: add the embedded edge cases.
        l1_stopped: ids that layer 1 stopped, where L1 results are given.
        threshold: Jaccard from which two texts are near-duplicates.
    """
    sets: list[tuple[str, pl.DataFrame, str]] = []
    if benign_test is not None:
        sets.append((BENIGN_TEST, _only(benign_test, "BENIGN", BENIGN_TEST), "the user's benign test set"))
    if malicious_held_out is not None:
        sets.append(
            (MALICIOUS_HELD_OUT, _only(malicious_held_out, "MALICIOUS", MALICIOUS_HELD_OUT), "held-out attacks")
        )
    if programming:
        from crywolf.data.embedded import programming_suite

        sets.append((PROGRAMMING, programming_suite(), "embedded programming prompts"))
    if edge_cases:
        from crywolf.data.embedded import edge_case_suite

        sets.append((EDGE_CASES, edge_case_suite(), "embedded edge cases"))
    built: list[Suite] = []
    for name, frame, note in sets:
        built += held_out_suites(name, frame, trained_on, threshold=threshold, note=note, l1_stopped=l1_stopped)
    return tuple(built)


def _only(frame: pl.DataFrame, label: str, name: str) -> pl.DataFrame:
    """The frame, if it holds this label alone: a mislabelled file must not pass for a test set."""
    wrong = frame.filter(pl.col("label").cast(pl.String) != label).height
    if wrong:
        raise BadInput(
            f"{wrong:,} of {frame.height:,} rows of {name} are not {label}; filter the file or fix its labels"
        )
    return frame
