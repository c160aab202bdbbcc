"""The honest loop on real corpora: does growing a detector's own false positives help on sources that it never saw?

A base detector is trained without the sources that false positives will come from. A fifth of those sources' rows, by
near-duplicate cluster, is laid aside; the base's own FPs among the other four fifths are grown. Three arms on the same
originals: no growth, the FPs merely repeated, the FPs grown, the last two with the same number of added rows. Run it
with `make bench-loop`; it resumes, and writes docs/bench/loop.json and loop.md.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crywolf import stages
from crywolf.augment import near_duplicate_clusters
from crywolf.config import Config
from crywolf.console import Console
from crywolf.data import read_corpus
from crywolf.export import Detector
from crywolf.inputs import Named, read_originals
from crywolf.session import Session
from crywolf.train import Rate, Split, split_held_out
from crywolf.workspace import fingerprint

HELD_SOURCES = ("nl2bash", "clinc150")
LABEL = pl.col("label").cast(pl.String)


def main() -> None:
    """Run all arms and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with benign_pool, malicious_pool, ood_dev")
    parser.add_argument("--out", type=Path, default=Path("work/loop"), help="where models and vectors are kept")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="where the tables go")
    parser.add_argument("--benign", type=int, default=6000, help="benign originals drawn by chance")
    parser.add_argument("--malicious", type=int, default=3000, help="attacks drawn by chance")
    parser.add_argument("--added", type=int, default=4000, help="rows that each arm adds")
    parser.add_argument("--per-fp", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    session = Session(configuration(arguments), Console(), arguments.out / "cache", force=True)
    result = run(session, arguments)
    result["minutes"] = round((time.perf_counter() - start) / 60, 1)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    (arguments.docs / "loop.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (arguments.docs / "loop.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


def configuration(arguments: argparse.Namespace) -> Config:
    """The run's configuration; the corpora's folder stays out of the results."""
    return Config.model_validate(
        {
            "out": arguments.out,
            "seed": arguments.seed,
            "data": {
                "benign": [arguments.corpus / "benign_pool.jsonl.gz"],
                "malicious": [arguments.corpus / "malicious_pool.jsonl.gz"],
                "holdout_sources": list(HELD_SOURCES),
                "benign_limit": arguments.benign,
                "malicious_limit": arguments.malicious,
            },
            "augment": {"per_fp": arguments.per_fp},
            "train": {"recipe": "quick"},
        }
    )


def run(session: Session, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train the base, harvest, train the arms, measure."""
    split = stages.prepare(session, read_originals(session))
    base = stages.train_detector(session, "base", split.train, split)
    held = split.held_out.filter(LABEL == "BENIGN")
    flagged = pl.Series(scores_of(session, base, held, "held sources") >= Detector.load(base).threshold)
    aside = laid_aside(session, held)
    fps = held.filter(flagged & ~aside)
    ood = read_corpus(arguments.corpus / "ood_dev.jsonl.gz").frame
    holdouts = [("validation", split.validation), ("test", split.test), ("ood_dev", ood), ("aside", held.filter(aside))]
    stock = stages.stock_fps(session, fps, holdouts, 0.0)
    arms = {"no growth": base} | added_arms(session, split, stock.grow, holdouts, arguments.added)
    grown_from = [("grown", stock.grow)]
    others = held.filter(~flagged & ~aside)
    slices = {
        "FPs laid aside": split_held_out(held.filter(flagged & aside), grown_from).held_out,
        "the fifth laid aside, whole": split_held_out(held.filter(aside), grown_from).held_out,
        "other four fifths, not flagged by the base": split_held_out(others, grown_from).held_out,
        "test split, benign": split.test.filter(LABEL == "BENIGN"),
        "test split, attacks": split.test.filter(LABEL == "MALICIOUS"),
        "ood_dev, benign": ood.filter(LABEL == "BENIGN"),
        "ood_dev, attacks": ood.filter((LABEL == "MALICIOUS") & (pl.col("source") != "bipia_code_test")),
        "ood_dev, attacks by place (bipia)": ood.filter(pl.col("source") == "bipia_code_test"),
    }
    floor = recall_at(session, base, split, Detector.load(base).threshold)
    measured = {name: measure(session, package, split, slices, floor) for name, package in arms.items()}
    return {
        "seed": session.config.seed,
        "originals": {name: len(frame) for name, frame in split.frames.items()},
        "harvest": {
            "rows": len(held),
            "rows_aside": int(aside.sum()),
            "false_positives": int(flagged.sum()),
            "aside": int((flagged & aside).sum()),
            "grown_from": len(stock.grow),
            "reserved": len(stock.reserved),
        },
        "added_rows": arguments.added,
        "arms": measured,
    }


def laid_aside(session: Session, held: pl.DataFrame) -> pl.Series:
    """Return which rows are kept from growth: a fifth of the near-duplicate clusters, flagged or not."""
    clusters = near_duplicate_clusters(held["text"].to_list())
    names = np.unique(clusters)
    chosen = session.rng("aside").permutation(names)[: round(0.2 * len(names))]
    return pl.Series(np.isin(clusters, chosen))


def added_arms(
    session: Session, split: Split, fps: pl.DataFrame, holdouts: Sequence[Named], added: int
) -> dict[str, Path]:
    """Train the arms that add rows, both as many."""
    attacks = split.train.filter(LABEL == "MALICIOUS")
    grown = stages.grow_fps(
        session, "grown", fps, malicious=attacks, against=[("train", split.train)], holdouts=holdouts
    ).frame
    rng = session.rng("added")
    # The FPs themselves are in both arms; what differs is what the other rows are.
    own = fps.head(0) if len(fps) >= added else fps
    more = grown[np.sort(rng.permutation(len(grown))[: added - len(own)])]
    times = (added // max(len(fps), 1)) + 1
    repeated = pl.concat([fps] * times)[:added]
    return {
        "FPs repeated": stages.train_detector(session, "repeated", pl.concat([split.train, repeated]), split),
        "FPs grown": stages.train_detector(session, "grown-arm", pl.concat([split.train, own, more]), split),
    }


def scores_of(session: Session, package: Path, frame: pl.DataFrame, name: str) -> np.ndarray:
    """Score a frame with a package, kept on disk by package and rows so that a second run need not."""
    detector = Detector.load(package)
    key = fingerprint({"package": detector.version, "ids": frame["id"].to_list()})
    path = session.config.out / "scores" / f"{key}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    session.console.say(f"scoring {len(frame):,} rows: {name}")
    scores = detector.score(frame["text"].to_list())
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, scores, allow_pickle=False)
    return scores


def recall_at(session: Session, package: Path, split: Split, threshold: float) -> float:
    """Recall on validation at a threshold."""
    attacks = split.validation.filter(LABEL == "MALICIOUS")
    return float((scores_of(session, package, attacks, "validation attacks") >= threshold).mean())


def measure(
    session: Session, package: Path, split: Split, slices: dict[str, pl.DataFrame], floor: float
) -> dict[str, Any]:
    """Flagged rows of each slice, at the arm's own threshold and at the one that keeps the base's recall."""
    attacks = scores_of(session, package, split.validation.filter(LABEL == "MALICIOUS"), "validation attacks")
    own = Detector.load(package).threshold
    # The highest threshold that still catches as large a share of the validation attacks as the base does.
    matched = float(np.sort(attacks)[::-1][max(int(np.ceil(floor * len(attacks))) - 1, 0)])
    table = {}
    for name, frame in slices.items():
        scores = scores_of(session, package, frame, name)
        table[name] = {
            "n": len(frame),
            "own": int((scores >= own).sum()),
            "matched": int((scores >= matched).sum()),
        }
    return {"threshold_own": own, "threshold_matched": matched, "flagged": table}


def markdown(result: dict[str, Any]) -> str:
    """The result as a page of tables."""
    harvest = result["harvest"]
    lines = [
        "# The honest loop",
        "",
        f"Seed {result['seed']}; originals {result['originals']}; the base flags {harvest['false_positives']:,} of "
        f"{harvest['rows']:,} rows of {' and '.join(HELD_SOURCES)}. {harvest['rows_aside']:,} rows are laid aside with "
        f"{harvest['aside']:,} of these FPs; {harvest['grown_from']:,} others are grown from, {harvest['reserved']:,} "
        f"left alone as near evaluation rows. The two arms add {result['added_rows']:,} rows each. {result['minutes']} "
        "minutes for this run; steps done before are reused.",
    ]
    for kind, title in (("matched", "At the base's recall on validation"), ("own", "At each arm's own threshold")):
        lines += ["", f"## {title}", "", "| flagged, of | n | " + " | ".join(result["arms"]) + " |"]
        lines.append("|---|---:|" + "---:|" * len(result["arms"]))
        first = next(iter(result["arms"].values()))["flagged"]
        for name, entry in first.items():
            cells = []
            for arm in result["arms"].values():
                rate = Rate(arm["flagged"][name][kind], entry["n"])
                cells.append(f"{rate.value:.2%} ({rate.k}; {rate.low:.2%} to {rate.high:.2%})")
            lines.append(f"| {name} | {entry['n']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
