"""The loop: train a first detector, retrain it on its grown false positives, run rounds of feedback.

Takes a `Session`, gives what each turn of the loop found; the commands and the demo only show it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.augment import Growth
from crywolf.data import BadInput, RunManifest, empty_corpus, read_corpus
from crywolf.feedback import Before, RoundResult, Store, run_round
from crywolf.mining import Mined
from crywolf.train import (
    BENIGN_TEST,
    INCREMENTAL,
    Assembly,
    Comparison,
    Evaluation,
    GateReport,
    Split,
    check_gates,
    compare,
    split_held_out,
    suite_of,
)
from crywolf.train.measure.robustness import RobustnessChange

from . import stages
from .disturbed import disturb, robustness_document
from .inputs import KEPT_FPS, Named, read_inputs
from .session import Session
from .stages import FpStock

BASE = "base"
RETRAINED = "retrained"
EVALUATION = "evaluation.json"
_LABEL = pl.col("label").cast(pl.String)


@dataclass(frozen=True)
class Trained:
    """What `train` made: the split, the package, and how it measures."""

    split: Split
    package: Path
    evaluation: Evaluation
    gates: GateReport


@dataclass(frozen=True)
class Retrained:
    """What `retrain` made.

    Attributes:
        split: the saved split.
        fps: the false positives, parted.
        growth: what was grown from them.
        mining: hard negatives; None where mining is off.
        assembly: the training table and how it was put together.
        before_package: the detector before: a package folder or another DETECTOR.
        package: the new one.
        before: evaluation of the detector before.
        after: evaluation of the new one, on the same rows.
        comparison: row by row.
        gates: the verdict.
        robustness: both detectors on changed texts, or the reason why that was not measured.
    """

    split: Split
    fps: FpStock
    growth: Growth
    mining: Mined | None
    assembly: Assembly
    before_package: str
    package: Path
    before: Evaluation
    after: Evaluation
    comparison: Comparison
    gates: GateReport
    robustness: RobustnessChange | str


def run_train(session: Session) -> Trained:
    """Split the originals, train on the training fold alone, export, and measure."""
    if session.config.train.recipe == INCREMENTAL.name:
        raise BadInput("recipe incremental goes on from a trained model: it is for `crywolf retrain`, not for `train`")
    inputs = read_inputs(session, fps_may_come_later=True)
    split = stages.prepare(session, inputs.originals)
    holdouts = stages.standing_holdouts(inputs, split)
    training = stages.join_training(session, split.train, empty_corpus(), None, holdouts).frame
    package = stages.train_detector(session, BASE, training, split, calibration=inputs.calibration)
    trained_on = [("train", training), ("validation", split.validation)]
    suites = stages.build_suites(split, trained_on, tested=inputs.tested, extra=inputs.suites)
    evaluation = stages.score_suites(session, package, suites, BASE)
    gates = check_gates(evaluation)
    # For the report of `retrain`, which says how to make both detectors again.
    command = None if session.origin is None else session.origin.command("train")
    _save(session, BASE, EVALUATION, {**evaluation.to_dict(), "gates": gates.to_dict(), "command": command})
    return Trained(split, package, evaluation, gates)


def _save(session: Session, step: str, name: str, content: dict[str, Any]) -> None:
    manifest = RunManifest(f"evaluate {step}", {"seed": session.config.seed})
    stages.save_json(session.config.out / step / name, content, manifest)


def run_retrain(session: Session, *, fps: pl.DataFrame | None = None, extra_suites: Sequence[Named] = ()) -> Retrained:
    """Grow the false positives, mine hard negatives, retrain in full, and compare with the detector before.

    Args:
        session: the run.
        fps: false positives to grow; by default those of `data.fps`, or those that the detector before raises on the
            part of `evaluate.benign_test` that is not only measured on.
        extra_suites: further named rows to measure both detectors on; kept out of training.

    Raises:
        BadInput: there is no detector before, or there are no false positives to grow.
    """
    config = session.config
    inputs = read_inputs(session, fps=fps)
    own = config.out / BASE / "package"
    before_package = config.evaluate.baseline or str(own)
    if config.evaluate.baseline is None and not own.is_dir():
        raise BadInput(f"{before_package}: no detector before; run `crywolf train` first or set evaluate.baseline")
    split = stages.prepare(session, inputs.originals)
    holdouts = [*stages.standing_holdouts(inputs, split), *extra_suites]
    found = _harvest(session, before_package, inputs.harvested) if inputs.fps is None else inputs.fps
    stock = stages.stock_fps(session, found, holdouts, config.data.kept_fps)
    session.console.say(
        f"{len(stock.grow):,} false positives to grow, {len(stock.kept):,} kept aside, "
        f"{len(stock.reserved):,} left alone because evaluation rows are like them"
    )
    if stock.grow.is_empty():
        raise BadInput("no false positive is left to grow: all are near evaluation rows, or kept aside (data.kept_fps)")
    holdouts.append((KEPT_FPS, stock.kept))
    attacks = split.train.filter(_LABEL == "MALICIOUS")
    growth = stages.grow_fps(
        session,
        RETRAINED + "-grown",
        stock.grow,
        malicious=attacks,
        against=[("train", split.train)],
        holdouts=holdouts,
        detector=before_package,
    )
    mining = None
    if config.mining.enabled:
        benign = pl.concat([split.train.filter(_LABEL == "BENIGN"), _clean(inputs.originals.pool, holdouts)])
        mining = stages.mine(session, RETRAINED + "-mined", benign, attacks, stock.grow)
    # The mined rows hold the false positives themselves; without mining they are the only hard negatives.
    hard = stock.grow if mining is None else mining.frame
    start, originals = None, split.train
    if session.config.train.recipe == INCREMENTAL.name:
        start = stages.model_of(before_package)
        originals = stages.replayed(session, split.train, len(growth.frame) + len(hard))
    assembly = stages.join_training(session, originals, growth.frame, hard, holdouts)
    package = stages.train_detector(
        session, RETRAINED, assembly.frame, split, before=before_package, calibration=inputs.calibration, start=start
    )
    suites = stages.build_suites(
        split,
        [("train", assembly.frame), ("validation", split.validation), ("fps", stock.grow)],
        tested=inputs.tested,
        extra=[(KEPT_FPS, stock.kept), *extra_suites, *inputs.suites],
    )
    before = stages.score_suites(session, before_package, suites, "before")
    after = stages.score_suites(session, package, suites, "after")
    comparison = compare(before, after)
    gates = check_gates(after, comparison)
    robustness = disturb(session, split, before_package, str(package))
    judged = {"gates": gates.to_dict(), "robustness": robustness_document(robustness)}
    _save(session, RETRAINED, "comparison.json", {**comparison.to_dict(), **judged})
    return Retrained(
        split=split,
        fps=stock,
        growth=growth,
        mining=mining,
        assembly=assembly,
        before_package=before_package,
        package=package,
        before=before,
        after=after,
        comparison=comparison,
        gates=gates,
        robustness=robustness,
    )


def _harvest(session: Session, package: str, benign: pl.DataFrame) -> pl.DataFrame:
    if benign.is_empty():
        raise BadInput("no false positives: set data.fps, or evaluate.benign_test to harvest the detector's own")
    evaluation = stages.score_suites(session, package, [suite_of(BENIGN_TEST, benign)], "before")
    fps = stages.harvest(session, evaluation, BENIGN_TEST)
    if fps.is_empty():
        raise BadInput(f"{package} raises no false positive on evaluate.benign_test: there is nothing to grow")
    return fps


def _clean(pool: pl.DataFrame, holdouts: Sequence[Named]) -> pl.DataFrame:
    """Rows of a pool that are nowhere near a holdout."""
    return pool if pool.is_empty() else split_held_out(pool, holdouts).held_out


def next_round(session: Session, store: Store, *, extra_suites: Sequence[Named] = ()) -> RoundResult:
    """Run the next round of feedback on top of the newest detector of the run: the last round's, else `retrain`'s.

    Raises:
        BadInput: the run holds no detector to build on, or the newest recorded one is gone.
    """
    out = session.config.out
    # A store may serve several runs; a round of another one was trained with another split.
    rounds = [Path(entry["folder"]) / "detector" for entry in store.rounds()]
    own = [folder for folder in rounds if folder.resolve().is_relative_to(out.resolve())]
    if own and not _complete(own[-1]):
        raise BadInput(f"{own[-1]}: the last round's detector is gone; bring it back, or start another `out`")
    newest = next((folder for folder in [*own[-1:], out / RETRAINED, out / BASE] if _complete(folder)), None)
    if newest is None:
        raise BadInput(f"{out}: no detector to build on; run `crywolf train` and `crywolf retrain` first")
    grown = [read_corpus(path).frame for path in sorted(out.rglob(stages.GROWN_FPS))]
    return run_feedback_round(
        session,
        store,
        training=read_corpus(newest / stages.TRAINING).frame,
        split=Split.load(out / "splits"),
        package=newest / "package",
        fps_before=pl.concat([empty_corpus(), *grown]),
        extra_suites=extra_suites,
    )


def _complete(folder: Path) -> bool:
    return (folder / "package").is_dir() and (folder / stages.TRAINING).is_file()


def run_feedback_round(
    session: Session,
    store: Store,
    *,
    training: pl.DataFrame,
    split: Split,
    package: Path,
    fps_before: pl.DataFrame,
    extra_suites: Sequence[Named] = (),
) -> RoundResult:
    """Run the next round on the store's new false positives.

    Args:
        session: the run.
        store: the feedback store.
        training: what the current detector was trained on.
        split: the run's split.
        package: the current detector, which the new one is compared with.
        fps_before: false positives grown earlier; they are no held-out rows.
        extra_suites: further named rows to measure on; kept out of training.
    """
    inputs = read_inputs(session)
    holdouts = [*stages.standing_holdouts(inputs, split), *extra_suites]
    attacks = split.train.filter(_LABEL == "MALICIOUS")
    number = len(store.rounds()) + 1
    name = f"rounds/{number}"
    seen: dict[str, pl.DataFrame] = {}

    def grow(fps: pl.DataFrame) -> Growth:
        seen["fps"] = fps
        return stages.grow_fps(
            session,
            f"{name}-grown",
            fps,
            malicious=attacks,
            against=[("training", training)],
            holdouts=holdouts,
            per_fp=session.config.feedback.per_fp,
            detector=package,
            # Reports may have come in, or been judged, since a round was cut off: that is no change of settings.
            renewed_by=["fps"],
        )

    def retrain(rows: pl.DataFrame, _folder: Path) -> Path:
        seen["training"] = rows
        return stages.train_detector(
            session,
            f"{name}/detector",
            rows,
            split,
            before=package,
            calibration=inputs.calibration,
            start=stages.model_of(str(package)) if session.config.train.recipe == INCREMENTAL.name else None,
            renewed_by=["training"],
        )

    def judge(new: Path) -> dict[str, Any]:
        trained_on = [
            ("train", seen["training"]),
            ("validation", split.validation),
            ("fps", pl.concat([fps_before, seen["fps"]])),
        ]
        suites = stages.build_suites(split, trained_on, tested=inputs.tested, extra=[*extra_suites, *inputs.suites])
        before = stages.score_suites(session, package, suites, "before")
        after = stages.score_suites(session, new, suites, f"round {number}")
        comparison = compare(before, after)
        return {
            "package_before": str(package),
            "package_after": str(new),
            "gates_before": check_gates(before).to_dict(),
            "gates_after": check_gates(after, comparison).to_dict(),
            "comparison": comparison.to_dict(),
        }

    result = run_round(
        store,
        session.config.out / "rounds",
        Before(training, attacks, tuple(holdouts)),
        encode=session.encode,
        grow=grow,
        retrain=retrain,
        judge=judge,
        say=session.console.say,
    )
    manifest = RunManifest(f"feedback round {result.number}", {"seed": session.config.seed})
    for what, rows in result.counts.items():
        manifest.count(what, rows)
    manifest.write(result.folder)
    return result
