"""The world of the benchmark: a base detector, its own false positives on sources it never saw, and what is held out.

Takes the corpora's folder and gives a `World`: the base's training rows, 200 of its false positives to grow from, and
slices of rows that no arm trains on: other false positives of the same sources, whole other sources, attacks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf import stages
from crywolf.augment import near_duplicate_clusters
from crywolf.config import Config
from crywolf.console import Console
from crywolf.data import read_corpus
from crywolf.data.embedded import suites
from crywolf.inputs import read_originals
from crywolf.session import Session
from crywolf.train import Split, split_held_out

FP_SOURCES = ("nl2bash", "clinc150")
BENIGN_SOURCES = ("banking77", "security_mentions")
ATTACK_SOURCES = ("tensortrust_hijack", "tensortrust_extract")
OOD = "ood_dev"
MOST_ROWS = 500  # of a held-out source; a rate of 5% is then known to 2 points
LABEL = pl.col("label").cast(pl.String)

Score = Callable[[Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True)
class World:
    """What every arm shares.

    Attributes:
        session: configuration, encoder, workspace.
        split: train, validation and test of the base's own sources.
        fps: the false positives that every generator is given.
        benign: held-out benign rows by name.
        attacks: held-out attacks by name.
        counts: how many rows were harvested from, flagged, and given.
    """

    session: Session
    split: Split
    fps: pl.DataFrame
    benign: dict[str, pl.DataFrame]
    attacks: dict[str, pl.DataFrame]
    counts: dict[str, int]
    kind: str = "full"
    threshold: float = 0.5  # the base's own


def open_session(corpus: Path, out: Path, *, benign: int, malicious: int) -> Session:
    """Return the session of the base detector."""
    config = Config.model_validate(
        {
            "out": out,
            "seed": 0,
            "data": {
                "benign": [corpus / "benign_pool.jsonl.gz"],
                "malicious": [corpus / "malicious_pool.jsonl.gz"],
                "holdout_sources": [*FP_SOURCES, *BENIGN_SOURCES, *ATTACK_SOURCES],
                "benign_limit": benign,
                "malicious_limit": malicious,
            },
            "train": {"recipe": "quick"},
        }
    )
    return Session(config, Console(), out / "cache", force=True)


def prepare(session: Session) -> Split:
    """Split the originals: the base's own sources, and those held out."""
    return stages.prepare(session, read_originals(session))


def candidates(split: Split, *, limit: int, seed: int) -> pl.DataFrame:
    """Return the rows that false positives are harvested from."""
    rows = split.held_out.filter(pl.col("source").is_in(list(FP_SOURCES)))
    order = np.random.default_rng(seed).permutation(rows.height)[:limit]
    return rows[np.sort(order)]


def build(
    session: Session, split: Split, corpus: Path, rows: pl.DataFrame, flagged: NDArray[np.bool_], *, given: int
) -> World:
    """Part the base's false positives by near-duplicate cluster, and lay out what is held out."""
    clusters = near_duplicate_clusters(rows["text"].to_list())
    names = np.random.default_rng(1).permutation(np.unique(clusters[flagged]))
    chosen: list[int] = []
    taken = np.zeros(rows.height, dtype=np.bool_)
    for name in names:
        if taken.sum() >= given:
            break
        chosen.append(int(name))
        taken |= (clusters == name) & flagged
    fps = rows.filter(pl.Series(taken))
    others = rows.filter(pl.Series(flagged & ~np.isin(clusters, chosen)))
    rest = rows.filter(pl.Series(~flagged & ~np.isin(clusters, chosen)))
    ood = read_corpus(corpus / "ood_dev.jsonl.gz").frame.filter(pl.col("source") != "bipia_code_test")
    seen = [("train", split.train), ("validation", split.validation), ("fps", fps)]
    held = split.held_out
    benign = {
        "held-out FPs": _some(others),
        "their sources, not flagged before": _some(rest),
        **{name: _some(held.filter(pl.col("source") == name)) for name in BENIGN_SOURCES},
        **{f"{OOD}: {name}": ood.filter((pl.col("source") == name) & (LABEL == "BENIGN")) for name in _sources(ood)},
        "over-defense suite": suites.over_defense_suite(),
    }
    attacks = {
        "test split": split.test.filter(LABEL == "MALICIOUS"),
        "tensortrust": _some(held.filter(pl.col("source").is_in(list(ATTACK_SOURCES)))),
        f"{OOD}: attacks": ood.filter(LABEL == "MALICIOUS"),
    }
    clean = {
        name: split_held_out(frame, seen).held_out for name, frame in {**benign, **attacks}.items() if frame.height
    }
    counts = {"harvested from": rows.height, "false positives": int(flagged.sum()), "given": fps.height}
    return World(
        session,
        split,
        fps,
        {name: frame for name, frame in clean.items() if name in benign and frame.height},
        {name: frame for name, frame in clean.items() if name in attacks and frame.height},
        counts,
    )


def _sources(ood: pl.DataFrame) -> list[str]:
    return ood.filter(LABEL == "BENIGN")["source"].unique().sort().to_list()


def _some(frame: pl.DataFrame) -> pl.DataFrame:
    order = np.random.default_rng(2).permutation(frame.height)[:MOST_ROWS]
    return frame[np.sort(order)]
