"""The stages wired together: what `train`, `retrain`, `feedback round` and the demo are made of.

A `Session` holds a configuration, a workspace and the encoder; each stage takes frames and gives frames or a package
folder, and is done once per workspace. Side effects stay inside the workspace.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from crywolf.augment import GrowConfig, Growth, grow, near_duplicate_clusters, nearest_reference
from crywolf.data import BadInput, CorruptPackage, RunManifest, empty_corpus, file_hash, write_corpus
from crywolf.data.manifest import versions
from crywolf.mining import MineConfig, Mined, mine_hard_negatives, write_review
from crywolf.train import (
    BENIGN_TEST,
    Assembly,
    Evaluation,
    Split,
    Suite,
    assemble,
    evaluate,
    false_positives,
    held_out_suites,
    split_originals,
    standard_suites,
    suite_of,
)

from .inputs import HELD_OUT_SOURCES, TEST_BENIGN, Inputs, Named, Originals
from .keys import detector_digest, digest, embedded_digest
from .session import Session
from .workspace import load_rows, save_rows

TRAINING = "training.parquet"
GROWN_FPS = "grown_fps.parquet"
GROWN = "grown"
HARD_NEGATIVES = "hard_negatives"
RECALL_SLACK = 0.02
"""Recall that a new detector's threshold may lose on validation: what the regression gate allows."""
R = TypeVar("R")
_LABEL = pl.col("label").cast(pl.String)


def prepare(session: Session, originals: Originals) -> Split:
    """Split the originals and save the split; on a second run, load it."""
    config = session.config
    key = {
        "inputs": originals.hashes,
        "data": {"benign": config.data.benign_limit, "malicious": config.data.malicious_limit},
        "holdout_sources": config.data.holdout_sources,
        "seed": config.seed,
    }

    def make(folder: Path) -> RunManifest:
        manifest = RunManifest("split", key)
        held = config.data.holdout_sources
        with manifest.time("split"):
            split = split_originals(originals.frame, holdout_sources=held, rng=session.rng("split"))
        split.save(folder)
        for name, frame in split.frames.items():
            manifest.count(name, len(frame))
        return manifest

    folder, reused = session.workspace.step("splits", key, make)
    split = Split.load(folder)
    rows = [[row["fold"], row["label"], row["rows"]] for row in split.table.to_dicts()]
    session.console.table("split", f"Split{' (as saved)' if reused else ''}", ["fold", "label", "rows"], rows)
    return split


LEARNED_FROM = ("id", "label", "weight", "category", "threat_type", "source", "how", "origin_id")
"""Columns that a training depends on; the id stands for the text."""


def train_detector(
    session: Session,
    name: str,
    training: pl.DataFrame,
    split: Split,
    *,
    before: str | Path | None = None,
    calibration: pl.DataFrame | None = None,
    start: Path | None = None,
    renewed_by: Collection[str] = (),
) -> Path:
    """Fit on `training`, export, and return the package; a finished step is reused, a cut one resumed.

    Args:
        session: the run.
        name: of the step.
        training: contract rows.
        split: its validation fold decides on epoch, calibration and threshold, its test fold on parity.
        before: the detector that this one is to replace. If given, and `train.hold_recall` is on, the threshold loses
            at most `RECALL_SLACK` of its recall on validation, even where that costs the FP target.
        calibration: rows to calibrate and place the threshold on beside the validation fold.
        start: a model folder to go on from, instead of the encoder.
        renewed_by: parts of the step's key that may change without `force`; see `Workspace.step`.
    """
    from crywolf.export import export_package
    from crywolf.train import fit
    from crywolf.train.learn.teachers import teacher_hashes
    from crywolf.train.learn.tracking import attach

    tracking = session.config.tracking.where()
    recipe, teachers = session.recipe, session.config.train.teachers
    if before is not None and session.config.train.hold_recall and recipe.min_recall is None:
        recall = validation_recall(before, split)
        recipe = recipe if recall is None else replace(recipe, min_recall=max(recall - RECALL_SLACK, 0.0))
    key = {
        "training": digest(training, LEARNED_FROM),
        "validation": digest(split.validation, LEARNED_FROM),
        **({} if calibration is None or calibration.is_empty() else {"calibration": digest(calibration, LEARNED_FROM)}),
        "recipe": recipe.to_mapping(),
        "encoder": session.config.train.encoder if start is None else file_hash(start / "model.safetensors"),
        "seed": session.config.seed,
        **({"teachers": sorted(teacher_hashes(teachers))} if teachers else {}),
    }

    def make(folder: Path) -> RunManifest:
        manifest = RunManifest(f"train {name}", key)
        write_corpus(training, folder / TRAINING, force=True)
        with manifest.time("fit"), session.console.progress(f"training {name}") as progress:
            result = fit(
                training,
                split.validation,
                recipe=recipe,
                calibration=calibration,
                out=folder / "model",
                encoder=start or session.config.train.encoder,
                teachers=teachers,
                seed=session.config.seed,
                progress=progress,
                log=session.console.say,
                price_per_hour=session.config.tracking.price_per_hour,
                tracking=tracking,
            )
        with manifest.time("export"), session.console.progress("parity") as progress:
            exported = export_package(
                result.model_dir, folder / "package", parity=split.test, force=True, progress=progress
            )
        manifest.count("training", len(training))
        manifest.count("export", exported.to_dict())
        if result.estimate is not None:
            manifest.count("time_estimate", result.estimate.to_dict())
        (folder / "export.json").write_text(json.dumps(exported.to_dict(), indent=2) + "\n", encoding="utf-8")
        figures = [folder / "package" / "package.json", folder / "export.json"]
        attach(tracking, folder / "model", figures, warn=session.console.warn)
        return manifest

    session.console.say(f"{name}: training on {len(training):,} rows ({recipe.name} recipe)")
    folder, reused = session.workspace.step(name, key, make, resumable=True, renewed_by=renewed_by)
    if reused:
        session.console.say(f"{name}: done before, reused")
    return folder / "package"


def model_of(package: str) -> Path:
    """Return the model folder that a package was exported from.

    Raises:
        BadInput: the package stands alone, or is no package.
    """
    folder = Path(package).parent / "model" / "model"
    if not (folder / "crywolf.json").is_file():
        raise BadInput(
            f"{package}: there is no model folder beside it ({folder}); incremental training goes on from a run of "
            "`crywolf train`, a package alone holds no weights that can be trained"
        )
    return folder


def replayed(session: Session, originals: pl.DataFrame, new: int) -> pl.DataFrame:
    """Draw the old rows that an incremental training sees again: `train.replay` for each new row."""
    n = min(len(originals), round(session.config.train.replay * new))
    order = session.rng("replay").permutation(len(originals))[:n]
    return originals[np.sort(order)]


def validation_recall(spec: str | Path, split: Split) -> float | None:
    """Return a detector's recall on the validation fold at its own threshold; None where the fold has no attacks."""
    from crywolf.export import load_detector

    attacks = split.validation.filter(_LABEL == "MALICIOUS")["text"].to_list()
    if not attacks:
        return None
    detector = load_detector(str(spec))
    return float((np.asarray(detector.score(attacks)) >= detector.threshold).mean())


def score_suites(session: Session, spec: str | Path, suites: Sequence[Suite], name: str) -> Evaluation:
    """Measure a detector on suites."""
    from crywolf.export import load_detector

    detector = load_detector(str(spec))
    with session.console.progress(f"measuring {name}") as progress:
        return evaluate(
            detector.score,
            threshold=detector.threshold,
            suites=suites,
            threats=detector.threats,
            progress=progress,
            name=name,
        )


@dataclass(frozen=True)
class FpStock:
    """The false positives of a run, parted.

    Attributes:
        grow: those that are grown.
        kept: those kept out of growth, by cluster, to see what becomes of FPs that the model never met.
        reserved: those in, or near, validation, test and holdouts: never grown.
    """

    grow: pl.DataFrame
    kept: pl.DataFrame
    reserved: pl.DataFrame


def stock_fps(session: Session, fps: pl.DataFrame, holdouts: Sequence[Named], keep_share: float) -> FpStock:
    """Part false positives: reserved for evaluation, kept aside by cluster, to be grown."""
    texts = fps["text"].to_list()
    near = np.zeros(len(fps), dtype=np.bool_)
    for _, frame in holdouts:
        near |= nearest_reference(texts, frame["text"].to_list()) >= 0
    usable, reserved = fps.filter(pl.Series(~near)), fps.filter(pl.Series(near))
    clusters = near_duplicate_clusters(usable["text"].to_list())
    names = np.unique(clusters)
    chosen = session.rng("kept fps").permutation(names)[: round(keep_share * len(names))]
    aside = np.isin(clusters, chosen)
    return FpStock(usable.filter(pl.Series(~aside)), usable.filter(pl.Series(aside)), reserved)


def harvest(session: Session, evaluation: Evaluation, suite: str) -> pl.DataFrame:
    """Take a detector's own false positives on a suite, as contract rows."""
    fps = false_positives(evaluation, suite)
    session.console.say(f"harvested {len(fps):,} false positives of {evaluation.name} on {suite}")
    return fps


def grow_fps(
    session: Session,
    name: str,
    fps: pl.DataFrame,
    *,
    malicious: pl.DataFrame,
    against: Sequence[Named],
    holdouts: Sequence[Named],
    per_fp: int | None = None,
    detector: str | Path | None = None,
    renewed_by: Collection[str] = (),
) -> Growth:
    """Grow false positives under all guards and save them and the queue; a growth that is there already is reused.

    The detector, where it is given, is asked which words turn its verdicts on them. The rows come with their configured
    weight; those at rest are without it, so that another weight needs no other growth. `renewed_by`: see
    `Workspace.step`.
    """
    section = session.config.augment
    config = GrowConfig(
        per_fp=per_fp or section.per_fp,
        noise_share=section.noise_share,
        twins=section.twins,
        guard_margin=section.guard_margin,
        languages=section.languages,
    )
    key = {
        **vars(config),
        **_shared_key(session),
        "embedded": embedded_digest(),
        "fps": digest(fps, ["id", "text", "category"]),
        "malicious": digest(malicious),
        # Of these the engine looks at texts, which ids stand for, and labels.
        "against": {of: digest(frame, ["id", "label"]) for of, frame in against},
        "holdouts": {of: digest(frame, ["id"]) for of, frame in holdouts},
        "detector": detector_digest(detector),
    }

    def make(folder: Path) -> RunManifest:
        from crywolf.export import load_detector

        manifest = RunManifest(f"grow {name}", key)
        with manifest.time("grow"), session.console.progress("growing") as progress:
            result = grow(
                fps,
                config=config,
                encode=session.encode,
                malicious=malicious,
                against=against,
                holdouts=holdouts,
                rng=session.rng(name),
                detector=None if detector is None else load_detector(str(detector)),
                progress=progress,
            )
        for path in (
            write_corpus(fps, folder / GROWN_FPS, force=True),
            write_corpus(result.review, folder / "review.jsonl", force=True),
            *save_rows(folder, GROWN, result.frame, result.summary()),
        ):
            manifest.add_output(path)
        manifest.count("augment", result.summary())
        return manifest

    folder, reused = session.workspace.step(name, key, make, renewed_by=renewed_by)
    growth = _load(folder, GROWN, Growth.of)
    if reused:
        session.console.say(f"{name}: {len(growth.frame):,} rows grown before, reused")
    return replace(growth, frame=_weighted(growth.frame, session.config.train.grown_weight))


def mine(session: Session, name: str, benign: pl.DataFrame, malicious: pl.DataFrame, fps: pl.DataFrame) -> Mined:
    """Mine hard negatives and save them with their review queue; what is there already is reused."""
    per_anchor = session.config.mining.per_anchor
    config = MineConfig()
    if per_anchor is not None:
        config = MineConfig(neighbours=per_anchor, fp_neighbours=per_anchor, per_neighbourhood=per_anchor)
    frames = {"benign": benign, "malicious": malicious, "fps": fps}
    key = {
        "per_anchor": per_anchor,
        "rules": vars(MineConfig()),
        **_shared_key(session),
        **{of: digest(frame) for of, frame in frames.items()},
    }

    def make(folder: Path) -> RunManifest:
        manifest = RunManifest(f"mine {name}", {**key, "rules": vars(config)})
        with manifest.time("mine"):
            result = mine_hard_negatives(
                benign, malicious, fps=fps, encode=session.encode, config=config, rng=session.rng(name)
            )
        queue = write_review(result.review, folder / "review.jsonl", force=True)
        for path in (queue, *save_rows(folder, HARD_NEGATIVES, result.frame, result.summary())):
            manifest.add_output(path)
        manifest.count("hard_negatives", len(result.frame))
        manifest.count("review", len(result.review))
        return manifest

    folder, reused = session.workspace.step(name, key, make)
    mined = _load(folder, HARD_NEGATIVES, Mined.of)
    if reused:
        session.console.say(f"{name}: {len(mined.frame):,} hard negatives mined before, reused")
    return mined


def _shared_key(session: Session) -> dict[str, Any]:
    """What both growing and mining depend on. The encoder's precision is the machine's matter, and left out."""
    return {"seed": session.config.seed, "encoder": session.embedder.hash, "crywolf": versions().get("crywolf")}


def _load(folder: Path, name: str, of: Callable[[pl.DataFrame, Mapping[str, Any]], R]) -> R:
    frame, account = load_rows(folder, name)
    try:
        return of(frame, account)
    except (KeyError, TypeError) as error:
        raise CorruptPackage(
            f"{folder / name}.json: not readable ({error!r}); delete {folder} to have it made again"
        ) from error


def embedded_rows(session: Session) -> pl.DataFrame:
    """Return the rows that come with this package, where the configuration asks for them."""
    from crywolf.data.embedded import embedded_training

    return embedded_training() if session.config.data.embedded else empty_corpus()


def join_training(
    session: Session,
    originals: pl.DataFrame,
    grown: pl.DataFrame,
    mined: pl.DataFrame | None,
    holdouts: Sequence[Named],
) -> Assembly:
    """Assemble the training table: embedded rows beside the originals, hard negatives with their configured weight."""
    section = session.config.train
    embedded = embedded_rows(session).filter(~pl.col("id").is_in(originals["id"].implode()))
    return assemble(
        pl.concat([originals, embedded]),
        grown,
        None if mined is None else _weighted(mined, section.hard_weight),
        budget=section.grown_budget,
        holdouts=holdouts,
        rng=session.rng("assemble"),
    )


def _weighted(frame: pl.DataFrame, weight: float) -> pl.DataFrame:
    return frame.with_columns((pl.col("weight").fill_null(1.0) * weight).cast(pl.Float32))


def build_suites(
    split: Split, trained_on: Sequence[Named], *, tested: pl.DataFrame, extra: Sequence[Named] = ()
) -> list[Suite]:
    """Build the suites of a run: the handoff's four, the test split's halves, held-out sources, the user's own.

    Args:
        split: its test fold and held-out sources are measured on.
        trained_on: what the detectors were trained on, tuned with or grown from; every set but the split's own is
            cleaned of it, and where that takes rows away the whole set is reported apart.
        tested: the benign test set; where it is empty, the benign rows of the test split stand for it.
        extra: further named sets.
    """
    malicious, benign = (split.test.filter(label == _LABEL) for label in ("MALICIOUS", "BENIGN"))
    if tested.is_empty():
        # The gates need a benign test set: where the user has none, the test fold is one.
        suites = list(standard_suites(None, malicious, trained_on=trained_on))
        suites.insert(0, suite_of(BENIGN_TEST, benign, note="benign rows of the test split"))
    else:
        suites = list(standard_suites(tested, malicious, trained_on=trained_on))
        suites.append(suite_of(TEST_BENIGN, benign, note="benign rows of the test split"))
    if len(split.held_out):
        suites.append(suite_of(HELD_OUT_SOURCES, split.held_out, note="whole sources kept out of training"))
    for name, frame in extra:
        suites += held_out_suites(name, frame, trained_on) if len(frame) else ()
    return [suite for suite in suites if suite.rows]


def standing_holdouts(inputs: Inputs, split: Split) -> list[Named]:
    """Return everything that must stay out of training whatever is grown: folds, suites, the user's test sets."""
    from crywolf.data.embedded.suites import edge_case_suite, over_defense_suite, programming_suite

    frames = [
        ("validation", split.validation),
        ("test", split.test),
        ("held_out", split.held_out),
        ("programming suite", programming_suite()),
        ("edge-case suite", edge_case_suite()),
        ("over-defense suite", over_defense_suite()),
        ("benign test set", inputs.tested),
        ("calibration", inputs.calibration),
        *inputs.holdouts,
        *((f"suite {name}", frame) for name, frame in inputs.suites),
    ]
    return [(name, frame) for name, frame in frames if len(frame)]


def save_json(path: Path, content: dict[str, Any], manifest: RunManifest) -> None:
    """Write JSON and its manifest atomically, replacing what was there."""
    from crywolf.data import atomic_path

    with atomic_path(path, force=True) as target:
        target.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
    manifest.add_output(path)
    manifest.write(path)
