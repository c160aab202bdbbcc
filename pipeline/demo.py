"""The demo: the whole loop on the embedded data, each step with the command that would do the same by hand.

Takes a folder, fills it with data, a crywolf.yaml, three detectors and a report. The embedded benign prompts play
traffic: false positives are harvested from a first part, a second is the next quarter's, the third is held out.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from crywolf.augment import near_duplicate_clusters
from crywolf.data import read_corpus, read_fps, write_corpus
from crywolf.data.embedded import (
    benign_prompts_path,
    benign_seeds,
    fps_path,
    malicious_seeds,
)
from crywolf.feedback import NothingNewError, RoundResult, Store, ingest
from crywolf.train import (
    BENIGN_TEST,
    EDGE_CASES,
    PROGRAMMING,
    Evaluation,
    Rate,
    Table,
    check_gates,
    suite_of,
    write_harness,
)

from . import stages
from .config import load_config
from .console import Console
from .loop import BASE, Retrained, Trained, next_round, run_retrain, run_train
from .origin import Origin
from .reporting import export_figures, latency, retrain_report
from .session import Session

MARK = ".crywolf-demo"
"""The file that says a folder is the demo's to empty."""
PARTS = {"this_quarter": 0.45, "next_quarter": 0.20, BENIGN_TEST: 0.35}
_QUARTER_START = datetime(2026, 7, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Attributes:
        trained: the detector before.
        retrained: the one after, and everything on the way.
        round: the feedback round; None where the new detector raised no false positive to learn from.
        final: evaluation of the newest detector on the held-out suites.
        report: the HTML file.
        seconds: wall time.
    """

    trained: Trained
    retrained: Retrained
    round: RoundResult | None
    final: Evaluation
    report: Path
    seconds: float


def run_demo(folder: Path, console: Console, *, seed: int = 0) -> Demo:
    """Run the loop in `folder` (emptied by the caller where that is wanted)."""
    start = time.perf_counter()
    parts = write_inputs(folder, seed)
    file = folder / "crywolf.yaml"
    config = load_config(file)
    session = Session(config, console, folder / "cache", force=True, origin=Origin(file, config))
    console.say(f"1. A detector from the seeds alone      crywolf train --config {folder}/crywolf.yaml")
    trained = run_train(session)
    console.say(
        "2. Its own false positives             crywolf evaluate DETECTOR --suite benign_test=... --fps-out ..."
    )
    fps = gather_fps(session, trained, parts["this_quarter"], folder)
    console.say(f"3. Grow, mine, retrain, compare         crywolf retrain --config {folder}/crywolf.yaml")
    retrained = run_retrain(session, fps=fps, extra_suites=[("next_quarter", parts["next_quarter"])])
    console.say(
        "4. The next quarter's false positives  crywolf feedback ingest LOG && crywolf feedback round --config ..."
    )
    round_ = feedback_round(session, retrained, parts["next_quarter"], folder)
    final = retrained.after if round_ is None else _final(session, retrained, round_)
    report = retrain_report(
        session,
        retrained,
        folder / "report.html",
        show_prompts=True,
        title="crywolf demo",
        extra_tables=[final_table(retrained, final, round_)],
        notes=["The embedded data is small and written for the demo: read its intervals, not its rates."],
    )
    return Demo(trained, retrained, round_, final, report, time.perf_counter() - start)


def write_inputs(folder: Path, seed: int) -> dict[str, pl.DataFrame]:
    """Write the embedded data as a user would have it, and crywolf.yaml; return the parts of the traffic."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text("made by `crywolf demo`, which empties this folder when it is run with --force\n")
    write_corpus(benign_seeds(), data / "benign.jsonl", force=True)
    write_corpus(malicious_seeds(), data / "malicious.jsonl", force=True)
    traffic = read_corpus(benign_prompts_path(), label="BENIGN", source="traffic").frame
    parts = part_traffic(traffic, np.random.default_rng(seed))
    for name, frame in parts.items():
        write_corpus(frame, data / f"{name}.jsonl", force=True)
    config = {
        "out": "run",
        "seed": seed,
        "data": {
            "benign": ["data/benign.jsonl"],
            "malicious": ["data/malicious.jsonl"],
            "fps": "data/benign_test_results.json",
            "prompts": "data/this_quarter.jsonl",
        },
        # The quick recipe is for tens of thousands of rows: these 2,271 need smaller batches and larger steps.
        "train": {"recipe": "quick", "batch_size": 16, "learning_rate": 2e-4},
        "evaluate": {"benign_test": f"data/{BENIGN_TEST}.jsonl"},
    }
    (folder / "crywolf.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return parts


def part_traffic(traffic: pl.DataFrame, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """Part the traffic by near-duplicate cluster, so that no part holds a sibling of another's rows."""
    clusters = near_duplicate_clusters(traffic["text"].to_list())
    names = rng.permutation(np.unique(clusters))
    edges = np.cumsum([round(share * len(names)) for share in PARTS.values()])[:-1]
    chosen = np.split(names, edges)
    return {part: traffic.filter(pl.Series(np.isin(clusters, ids))) for part, ids in zip(PARTS, chosen, strict=True)}


def gather_fps(session: Session, trained: Trained, traffic: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Harvest the first detector's false positives on this quarter's traffic, and add the embedded file's.

    The embedded file stands for what an earlier detector was handed in for; its cut prompts are made whole by id.
    """
    measured = stages.score_suites(session, trained.package, [suite_of(BENIGN_TEST, traffic)], BASE)
    own = stages.harvest(session, measured, BENIGN_TEST)
    write_harness(measured, folder / "data" / "benign_test_results.json", force=True)
    handed = read_fps(fps_path(), prompts=benign_prompts_path()).frame
    handed = handed.filter(pl.col("id").is_in(traffic["id"].to_list()))
    session.console.say(f"{len(handed):,} more from the embedded FP file, cut prompts made whole")
    return pl.concat([own, handed]).unique("id", keep="first", maintain_order=True)


def feedback_round(session: Session, retrained: Retrained, traffic: pl.DataFrame, folder: Path) -> RoundResult | None:
    """Play the next quarter: the new detector judges the traffic, users report what was flagged wrongly."""
    measured = stages.score_suites(session, retrained.package, [suite_of("next_quarter", traffic)], "after")
    log = folder / "data" / "production_log.jsonl"
    write_log(measured, retrained.split.train, log)
    store = Store.open(session.config.feedback.store)
    counts = ingest(log, store, since=_QUARTER_START.isoformat()).counts
    session.console.table("ingest", "Feedback", ["what", "rows"], [[key, n] for key, n in counts.items()])
    try:
        return next_round(session, store)
    except NothingNewError as nothing:
        session.console.say(f"no round: {nothing}")
        return None


def write_log(measured: Evaluation, known: pl.DataFrame, path: Path) -> None:
    """Write a production log of the traffic, and in it two attacks that somebody reported as false positives."""
    rows: list[dict[str, Any]] = []
    for i, row in enumerate(measured.rows.select("text", "category", "score", "flagged", "taken_for").to_dicts()):
        rows.append(
            {
                "text": row["text"],
                "category": row["category"],
                "flagged_as_threat": row["flagged"],
                "user_reported_fp": row["flagged"],
                "confidence": round(row["score"], 4),
                "threat_type": row["taken_for"],
                "timestamp": (_QUARTER_START + timedelta(hours=3 * i)).isoformat(),
            }
        )
    attacks = known.filter(pl.col("label").cast(pl.String) == "MALICIOUS")["text"].head(2).to_list()
    poison = {"flagged_as_threat": True, "user_reported_fp": True, "timestamp": _QUARTER_START.isoformat()}
    rows += [{"text": f"{text} Thanks!", **poison} for text in attacks]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _final(session: Session, retrained: Retrained, round_: RoundResult) -> Evaluation:
    """Measure the round's detector on the rows that neither training saw."""
    held = [info.name for info in retrained.after.suites if info.held_out and info.name != "next_quarter"]
    scored = ("suite", "score", "flagged", "taken_for", "l2_saw")
    suites = [suite_of(name, retrained.after.select(name).drop(scored)) for name in held]
    return stages.score_suites(session, round_.package, suites, f"round {round_.number}")


_EQUAL = (BENIGN_TEST, PROGRAMMING, EDGE_CASES)


def final_table(retrained: Retrained, final: Evaluation, round_: RoundResult | None) -> Table:
    """The demo's last table: each slice before, after retraining, after the round, with n and intervals."""
    rows: list[tuple[Any, ...]] = []
    for row in retrained.comparison.table("suite").to_dicts():
        false_alarms, n = row["measure"] == "fp_rate", row["n"]
        cells = [Rate(row[f"k_{when}"], n) for when in ("before", "after")]
        later = None
        if round_ is not None and final.suite(row["suite"]) is not None:
            later = (final.fp_rate if false_alarms else final.recall)(row["suite"])
        rows.append((row["suite"], "FP" if false_alarms else "recall", n, *cells, later))
    for name, recall, old, new in retrained.comparison.at_equal_recall():
        if name not in _EQUAL:
            continue
        later = final.fp_rate_at_recall(recall, name) if round_ is not None and final.suite(name) is not None else None
        rows.append((name, f"FP at R{100 * recall:g}", old.n, old, new, later))
    return Table(
        "FP rate and recall in percent, with 95% intervals (Wilson)",
        ("slice", "measure", "n", "before", "retrained", "after round 1"),
        tuple(rows),
        "next_quarter is empty after the round: its reports came from it. FP at R90: each detector at the "
        "threshold that catches 90% of malicious_held_out, so that no chance in choosing thresholds plays a part",
    )


def _interval(rate: Rate) -> str:
    return f"{100 * rate.value:.2f} ({100 * rate.low:.1f}-{100 * rate.high:.1f})" if rate.n else "no rows"


def show_demo(console: Console, demo: Demo) -> None:
    """Show the last table, sizes, latency, verdicts and where to look next."""
    table = final_table(demo.retrained, demo.final, demo.round)
    rows = [[_interval(cell) if isinstance(cell, Rate) else cell for cell in row] for row in table.rows]
    console.table("result", table.caption, table.columns, rows)
    package = demo.retrained.package if demo.round is None else demo.round.package
    figures = export_figures(package)
    speed = latency(package, demo.retrained.after.rows["text"].to_list())
    console.table(
        "package",
        "The newest detector",
        ["figure", "value"],
        [
            ["INT8 model, MB", round(figures["bytes_int8"] / 1e6, 1)],
            ["times smaller than float32", round(figures["ratio"], 2)],
            ["median latency, ms", round(speed["p50_ms"], 2)],
            ["95th percentile, ms", round(speed["p95_ms"], 2)],
        ],
    )
    gates = demo.retrained.gates if demo.round is None else check_gates(demo.final)
    console.result("verdict", gates.summary, f"Gates of the newest detector: {gates.summary}")
    if not gates.passed:
        console.say("A release with this verdict would end with exit code 1; the demo shows it and ends with 0.")
    console.result("report", str(demo.report), f"{demo.report}: open it in a browser")
    console.result("seconds", round(demo.seconds, 1), f"{demo.seconds / 60:.1f} minutes")
