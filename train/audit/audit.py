"""The audit of a training corpus: what is wrong with it before anybody trains on it.

Takes contract rows of both labels and, where there are any, holdouts and an encoder; gives an `Audit` that holds every
table, and `findings`: what passes a line, and what to do about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from crywolf.data import BENIGN, MALICIOUS, BadInput, Encode, Progress

from .config import AuditConfig
from .duplicates import NEAR_TEXT, SAME_TEXT, Duplicates, balance, find_duplicates
from .label_errors import BOTH, LabelErrors, find_label_errors
from .ranking import Ints, Mask, make_folds
from .shortcuts import Shortcut, find_shortcuts
from .traits import traits

Stage = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress display for a stage that is named."""
LEAK_COLUMNS: dict[str, pl.DataType] = {
    "id": pl.String(),
    "holdout": pl.String(),
    "match_id": pl.String(),
    "jaccard": pl.Float64(),
    "cosine": pl.Float64(),
    "kind": pl.String(),
}


@dataclass(frozen=True)
class Finding:
    """Something that passes a line: in which check, what was seen, and what to do."""

    check: str
    what: str
    advice: str


@dataclass(frozen=True)
class Audit:
    """Everything that was found.

    Attributes:
        config: the lines.
        labels: rows by label.
        composition: rows by source, category and language, a column for each label.
        duplicates: copies within and between the labels.
        holdouts: rows of each holdout by its name.
        leaks: rows that stand in a holdout: id, holdout, match_id, jaccard, cosine, kind.
        shortcuts: by trait; empty where the rows have one label only.
        errors: accused labels; None where nothing was embedded.
        embedded: rows that were embedded.
    """

    config: AuditConfig
    labels: dict[str, int]
    composition: pl.DataFrame
    duplicates: Duplicates
    holdouts: dict[str, int]
    leaks: pl.DataFrame
    shortcuts: tuple[Shortcut, ...]
    errors: LabelErrors | None
    embedded: int

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self.labels.values())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What passes a line, in the order of the checks."""
        return (
            *_of_balance(self),
            *_of_duplicates(self),
            *_of_leaks(self),
            *_of_errors(self),
            *(
                Finding(f"shortcut: {shortcut.trait.name}", f"AUC {shortcut.auc.text}", shortcut.advice)
                for shortcut in sorted(self.shortcuts, key=_strength)
                if shortcut.flagged
            ),
        )

    def by_source(self) -> pl.DataFrame:
        """Rows by source, a column for each label, the largest first."""
        return _folded(self.composition, "source")

    def lonely_cells(self) -> pl.DataFrame:
        """Cells of one label with no row of the other, over all traits: trait, cell, label, rows, share."""
        parts = [
            shortcut.cells.filter("without_counterpart").select(
                pl.lit(shortcut.trait.name).alias("trait"),
                "cell",
                pl.col("side").alias("label"),
                pl.max_horizontal("benign", "malicious").alias("rows"),
                pl.max_horizontal("benign_share", "malicious_share").alias("share"),
            )
            for shortcut in self.shortcuts
            if not shortcut.by_construction
        ]
        schema = {"trait": pl.String, "cell": pl.String, "label": pl.String, "rows": pl.Int64, "share": pl.Float64}
        return pl.concat([pl.DataFrame(schema=schema), *parts])

    def leak_table(self) -> pl.DataFrame:
        """Leaking rows by holdout and kind, with the number of holdout rows that they hit."""
        return (
            self.leaks.group_by("holdout", "kind")
            .agg(rows=pl.col("id").n_unique().cast(pl.Int64), holdout_rows=pl.col("match_id").n_unique().cast(pl.Int64))
            .sort("holdout", "kind")
        )

    def to_dict(self) -> dict[str, Any]:
        """For machines; no prompt text, but names, and first words as cells of a trait."""
        return {
            "config": asdict(self.config),
            "rows": self.rows,
            "labels": self.labels,
            "composition": self.composition.to_dicts(),
            "duplicates": self.duplicates.to_dict(),
            "leakage": {
                "holdouts": self.holdouts,
                "counts": self.leak_table().to_dicts(),
                "rows": self.leaks.to_dicts(),
            },
            "embedded": self.embedded,
            "label_errors": None if self.errors is None else self.errors.to_dict(),
            "shortcuts": [shortcut.to_dict() for shortcut in self.shortcuts],
            "without_counterpart": self.lonely_cells().to_dicts(),
            "findings": [asdict(finding) for finding in self.findings],
        }


def audit(
    frame: pl.DataFrame,
    *,
    holdouts: Sequence[tuple[str, pl.DataFrame]] = (),
    encode: Encode | None = None,
    sample: int | None = None,
    config: AuditConfig | None = None,
    rng: np.random.Generator,
    stage: Stage | None = None,
) -> Audit:
    """Audit a corpus.

    Args:
        frame: contract rows, as they would go into training.
        holdouts: names and frames that training must not resemble.
        encode: texts to unit vectors; without it there are no label errors, and leakage is by characters alone.
        sample: the most rows of each label that are embedded, drawn by chance; None embeds all.
        config: the lines.
        rng: deals folds, draws the sample and the intervals.
        stage: opens a progress display.

    Raises:
        BadInput: there are no rows, or the sample is smaller than 1.
    """
    if not frame.height:
        raise BadInput("audit: there are no rows")
    if sample is not None and sample < 1:
        raise BadInput(f"audit: a sample of {sample} rows; it must be at least 1")
    config = config or AuditConfig()
    stage = stage or _silent
    # By id first: what the generator draws must not depend on the order of the rows.
    frame = frame.sort("id", "label", "source", "text")
    malicious = np.asarray((frame["label"].cast(pl.String) == MALICIOUS).to_numpy(), dtype=np.bool_)
    clusters = _clusters(frame, config, stage)
    with stage("guessing languages") as progress:
        table = traits(frame, progress=progress)
    judged = _sampled(malicious, sample, rng) if encode is not None else np.empty(0, dtype=np.int64)
    if encode is not None:
        encode = _embedded([frame["text"].gather(judged), *(held["text"] for _, held in holdouts)], encode, stage)
    shortcuts: tuple[Shortcut, ...] = ()
    errors = None
    if malicious.any() and not malicious.all():
        groups = _joined(clusters, frame["origin_id"])
        with stage("measuring shortcuts") as progress:
            folds = make_folds(malicious, groups, rng=rng)
            shortcuts = find_shortcuts(table, folds, config=config, progress=progress)
        if encode is not None:
            with stage("judging labels"):
                errors = _label_errors(frame, judged, groups, encode, config, rng)
    with stage("holding against holdouts"):
        leaks = _leaks(frame, judged, holdouts, encode, config)
    return Audit(
        config=config,
        labels={BENIGN: int((~malicious).sum()), MALICIOUS: int(malicious.sum())},
        composition=balance(frame, table["language"]),
        duplicates=find_duplicates(frame, clusters),
        holdouts={name: held.height for name, held in holdouts},
        leaks=leaks,
        shortcuts=shortcuts,
        errors=errors,
        embedded=len(judged),
    )


def _silent(_name: str) -> AbstractContextManager[Progress]:
    return nullcontext(lambda done, total: None)


def _clusters(frame: pl.DataFrame, config: AuditConfig, stage: Stage) -> Ints:
    from crywolf.augment.dedup import near_duplicate_clusters

    with stage("looking for near-duplicates") as progress:
        return near_duplicate_clusters(frame["text"].to_list(), threshold=config.threshold, progress=progress)


def _embedded(texts: list[pl.Series], encode: Encode, stage: Stage) -> Encode:
    """Embed all that will be asked for at once, and return an encoder that remembers it."""
    from crywolf.augment.guards import Remembering

    remembering = Remembering(encode)
    with stage("embedding") as progress:
        remembering(pl.concat([part.rename("text") for part in texts]).to_list(), progress=progress)
    return remembering


def _joined(clusters: Ints, origin: pl.Series) -> Ints:
    """Clusters joined where rows were grown from one origin: siblings must not straddle folds either."""
    from ..rows.split import _join_groups

    return _join_groups(clusters, origin)


def _sampled(malicious: Mask, sample: int | None, rng: np.random.Generator) -> Ints:
    parts = []
    for label in (False, True):
        mine = np.flatnonzero(malicious == label)
        parts.append(mine if sample is None or len(mine) <= sample else rng.permutation(mine)[:sample])
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _label_errors(
    frame: pl.DataFrame, judged: Ints, groups: Ints, encode: Encode, config: AuditConfig, rng: np.random.Generator
) -> LabelErrors | None:
    rows = frame[judged]
    malicious = np.asarray((rows["label"].cast(pl.String) == MALICIOUS).to_numpy(), dtype=np.bool_)
    folds = make_folds(malicious, groups[judged], rng=rng)
    if folds.count < 2:
        return None
    vectors = np.asarray(encode(rows["text"].to_list()), dtype=np.float32)
    return find_label_errors(rows, vectors, groups[judged], folds, config=config)


def _leaks(
    frame: pl.DataFrame,
    judged: Ints,
    holdouts: Sequence[tuple[str, pl.DataFrame]],
    encode: Encode | None,
    config: AuditConfig,
) -> pl.DataFrame:
    """Leakage of all rows by characters, and of those that are embedded by meaning too."""
    from crywolf.augment.dedup import leakage

    embedded = np.zeros(frame.height, dtype=np.bool_)
    embedded[judged] = True
    parts = [pl.DataFrame(schema=LEAK_COLUMNS)]
    for rows, by in ((frame.filter(~embedded), None), (frame.filter(embedded), encode)):
        if rows.height and holdouts:
            found = leakage(rows, holdouts, encode=by, threshold=config.threshold, cosine=config.cosine)
            parts.append(found.select(*(pl.col(name).cast(dtype) for name, dtype in LEAK_COLUMNS.items())))
    return pl.concat(parts)


def _folded(composition: pl.DataFrame, by: str) -> pl.DataFrame:
    return (
        composition.group_by(by)
        .agg(pl.col("benign").sum(), pl.col("malicious").sum())
        .sort(pl.col("benign") + pl.col("malicious"), by, descending=[True, False])
    )


def _strength(shortcut: Shortcut) -> float:
    """For sorting: the strongest first, and what could not be ranked last."""
    return 1.0 if math.isnan(shortcut.auc.value) else -shortcut.auc.value


def _of_balance(result: Audit) -> list[Finding]:
    few, many = sorted(result.labels, key=lambda label: result.labels[label])
    low, high = result.labels[few], result.labels[many]
    if not low:
        return [
            Finding(
                "balance",
                f"no row is {few}",
                "Shortcuts and label errors need both labels: give the other file too (--benign, --malicious).",
            )
        ]
    if high < result.config.label_ratio * low:
        return []
    return [
        Finding(
            "balance",
            f"{high:,} rows are {many}, {low:,} {few}: {high / low:.1f} to 1",
            f"Draw fewer {many} rows (`data.{'benign' if many == BENIGN else 'malicious'}_limit` in crywolf.yaml) or "
            f"weigh the labels (`train.benign_weight`), and judge the detector at the prevalence of your traffic.",
        )
    ]


def _of_duplicates(result: Audit) -> list[Finding]:
    found = []
    duplicates = result.duplicates
    for kind, said in (
        (SAME_TEXT, "texts stand under both labels"),
        (NEAR_TEXT, "clusters of near-duplicates hold both labels"),
    ):
        if count := duplicates.conflicting(kind):
            advice = "Decide which label is right; their ids are in audit.json (duplicates.conflict_rows)."
            found.append(Finding("duplicates between labels", f"{count:,} {said}", advice))
    if duplicates.redundant >= result.config.duplicate_share * result.rows:
        share = 100 * duplicates.redundant / result.rows
        found.append(
            Finding(
                "duplicates",
                f"{duplicates.redundant:,} of {result.rows:,} rows ({share:.1f}%) repeat another of their label, the "
                f"largest cluster has {duplicates.largest:,} rows",
                f"Drop them: `crywolf dedup IN -o OUT` (threshold {result.config.threshold:g}).",
            )
        )
    return found


def _of_leaks(result: Audit) -> list[Finding]:
    return [
        Finding(
            "leakage",
            f"rows that match {held:,} of the {result.holdouts[name]:,} rows of {name} ({kind}): {rows:,}",
            "Drop them from training: `crywolf dedup IN --against HOLDOUT -o OUT` (and `--semantic` for meaning), or "
            "list the holdout under `data.holdouts` in crywolf.yaml.",
        )
        for name, kind, rows, held in result.leak_table().iter_rows()
    ]


def _of_errors(result: Audit) -> list[Finding]:
    if result.errors is None:
        return []
    both = result.errors.counts[BOTH]
    if not both or both < result.config.error_share * result.errors.judged:
        return []
    return [
        Finding(
            "label errors",
            f"both witnesses accuse {both:,} of {result.errors.judged:,} labels",
            "Read review.jsonl in the report's folder, the worst first, and correct the labels in the corpus.",
        )
    ]
