"""The stages wired together: what `train`, `retrain`, `feedback round` and the demo are made of.

A `Session` holds a configuration, a workspace and the encoder; each stage takes frames and gives frames or a package
folder, and is done once per workspace. Side effects stay inside the workspace.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.augment import GrowConfig, GrowResult, grow, near_duplicate_clusters, nearest_reference
from crywolf.data import BadInput, RunManifest, file_hash, write_corpus
from crywolf.mining import Embedder, MineConfig, MineResult, mine_hard_negatives, write_review
from crywolf.train import (
    Assembly,
    Evaluation,
    Recipe,
    Split,
    Suite,
    assemble,
    evaluate,
    false_positives,
    find_recipe,
    split_originals,
    standard_suites,
    suite_of,
)

from .config import Config
from .console import Console
from .reading import Reader
from .workspace import Workspace, fingerprint

Named = tuple[str, pl.DataFrame]
KEPT_FPS = "kept_fps"
TRAINING = "training.parquet"
GROWN_FPS = "grown_fps.parquet"


@dataclass(frozen=True)
class Originals:
    """The original data as it was read.

    Attributes:
        frame: benign and malicious rows to split.
        pool: benign rows that `benign_limit` left out; hard negatives may come from them.
        hashes: SHA-256 of each input file.
    """

    frame: pl.DataFrame
    pool: pl.DataFrame
    hashes: dict[str, str]


@dataclass
class Session:
    """One run: configuration, workspace, console, and the encoder that guards and mining share."""

    config: Config
    console: Console
    cache: Path
    force: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def workspace(self) -> Workspace:
        """The run's folder."""
        return Workspace(self.config.out, self.force)

    @cached_property
    def reader(self) -> Reader:
        """Reads the configured files and says which rows it left out."""
        return Reader(self.console, self.config.data.max_rejected)

    @cached_property
    def embedder(self) -> Embedder:
        """The sentence encoder of guards and mining, its vectors cached on disk."""
        return Embedder(cache_dir=self.cache)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to unit vectors, (n, d), with a progress bar."""
        with self.console.progress(f"embedding {len(texts):,} texts") as progress:
            return self.embedder(texts, progress=progress)

    def rng(self, stage: str) -> np.random.Generator:
        """Return a stage's own generator: what another stage draws does not move it."""
        return np.random.default_rng([self.config.seed, *stage.encode()])

    @property
    def recipe(self) -> Recipe:
        """The configured recipe with the configuration's changes."""
        section = self.config.train.model_dump(exclude_none=True)
        for key in ("recipe", "encoder", "grown_weight", "hard_weight", "grown_budget", "hold_recall"):
            section.pop(key, None)
        return Recipe.from_mapping(section, base=find_recipe(self.config.train.recipe))


def read_originals(session: Session) -> Originals:
    """Read the configured benign and malicious files and draw the configured number of rows."""
    data = session.config.data
    rng = session.rng("originals")
    benign = _read_all(session, data.benign, "BENIGN")
    malicious = _read_all(session, data.malicious, "MALICIOUS")
    benign, pool = _draw(benign, data.benign_limit, data.holdout_sources, rng)
    malicious, _ = _draw(malicious, data.malicious_limit, data.holdout_sources, rng)
    hashes = {str(path): file_hash(path) for path in (*data.benign, *data.malicious)}
    return Originals(pl.concat([benign, malicious]), pool, hashes)


def _read_all(session: Session, paths: Sequence[Path], label: str) -> pl.DataFrame:
    frames = [session.reader.corpus(path, label=label) for path in paths]
    # A file that has labels of its own may hold both classes; each list takes its class.
    frame = pl.concat(frames).filter(pl.col("label").cast(pl.String) == label)
    if frame.is_empty():
        raise BadInput(f"{', '.join(str(path) for path in paths)}: no {label} rows")
    return frame.unique("id", keep="first", maintain_order=True)


def _draw(
    frame: pl.DataFrame, limit: int | None, held: Sequence[str], rng: np.random.Generator
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Draw `limit` rows by chance; rows of sources that are held out whole all stay and do not count."""
    if limit is None:
        return frame, frame.head(0)
    aside = frame.filter(pl.col("source").is_in(list(held)))
    rest = frame.filter(~pl.col("source").is_in(list(held)))
    order = rng.permutation(len(rest))
    drawn = rest[np.sort(order[:limit])]
    return pl.concat([drawn, aside]), rest[np.sort(order[limit:])]


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
        sources = set(originals.frame["source"].unique().to_list())
        held = [source for source in config.data.holdout_sources if source in sources]
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


def train_detector(
    session: Session, name: str, training: pl.DataFrame, split: Split, *, before: str | Path | None = None
) -> Path:
    """Fit on `training`, export, and return the package; a finished step is reused, a cut one resumed.

    Args:
        session: the run.
        name: of the step.
        training: contract rows.
        split: its validation fold decides on epoch, calibration and threshold, its test fold on parity.
        before: the detector that this one is to replace. If given, and `train.hold_recall` is on, the threshold keeps
            at least its recall on validation, even where that costs the FP target.
    """
    from crywolf.export import export_package
    from crywolf.train import fit

    recipe = session.recipe
    if before is not None and session.config.train.hold_recall and recipe.min_recall is None:
        recipe = replace(recipe, min_recall=validation_recall(before, split))
    key = {
        "training": fingerprint({"rows": training.select("id", "label", "weight").rows()}),
        "validation": fingerprint({"rows": split.validation.select("id", "label").rows()}),
        "recipe": recipe.to_mapping(),
        "encoder": session.config.train.encoder,
        "seed": session.config.seed,
    }

    def make(folder: Path) -> RunManifest:
        manifest = RunManifest(f"train {name}", key)
        write_corpus(training, folder / TRAINING, force=True)
        with manifest.time("fit"), session.console.progress(f"training {name}") as progress:
            result = fit(
                training,
                split.validation,
                recipe=recipe,
                out=folder / "model",
                encoder=session.config.train.encoder,
                seed=session.config.seed,
                progress=progress,
                log=session.console.say,
            )
        with manifest.time("export"), session.console.progress("parity") as progress:
            exported = export_package(
                result.model_dir, folder / "package", parity=split.test, force=True, progress=progress
            )
        manifest.count("training", len(training))
        manifest.count("export", exported.to_dict())
        (folder / "export.json").write_text(json.dumps(exported.to_dict(), indent=2) + "\n", encoding="utf-8")
        return manifest

    session.console.say(f"{name}: training on {len(training):,} rows ({recipe.name} recipe)")
    folder, reused = session.workspace.step(name, key, make, resumable=True)
    if reused:
        session.console.say(f"{name}: done before, reused")
    return folder / "package"


def validation_recall(spec: str | Path, split: Split) -> float | None:
    """Return a detector's recall on the validation fold at its own threshold; None where the fold has no attacks."""
    from crywolf.export import load_detector

    attacks = split.validation.filter(pl.col("label").cast(pl.String) == "MALICIOUS")["text"].to_list()
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


def configured_fps(session: Session) -> pl.DataFrame | None:
    """Read the configured file of false positives; None where there is none."""
    data = session.config.data
    if data.fps is None:
        return None
    read = session.reader.fps(data.fps, prompts=data.prompts)
    session.console.result(
        "fps",
        {"read": len(read.frame), "cut_joined": read.cut_joined, "cut_left_out": read.cut_left_out},
        f"{data.fps}: {len(read.frame):,} false positives, {read.cut_joined:,} cut prompts made whole, "
        f"{read.cut_left_out:,} cut and left out",
    )
    return read.frame


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
) -> GrowResult:
    """Grow false positives under all guards, give the rows their configured weight, and save them and the queue."""
    section = session.config.augment
    config = GrowConfig(
        per_fp=per_fp or section.per_fp,
        noise_share=section.noise_share,
        twins=section.twins,
        guard_margin=section.guard_margin,
    )
    with session.console.progress("growing") as progress:
        result = grow(
            fps,
            config=config,
            encode=session.encode,
            malicious=malicious,
            against=against,
            holdouts=holdouts,
            rng=session.rng(name),
            progress=progress,
        )
    result = replace(result, frame=_weighted(result.frame, session.config.train.grown_weight))
    folder = session.config.out / name
    write_corpus(fps, folder / GROWN_FPS, force=True)
    write_corpus(result.frame, folder / "grown.jsonl.gz", force=True)
    if len(result.review):
        write_corpus(result.review, folder / "review.jsonl", force=True)
    return result


def mine(session: Session, name: str, benign: pl.DataFrame, malicious: pl.DataFrame, fps: pl.DataFrame) -> MineResult:
    """Mine hard negatives and save them with their review queue."""
    per_anchor = session.config.mining.per_anchor
    config = MineConfig() if per_anchor is None else MineConfig(neighbours=per_anchor, fp_neighbours=per_anchor)
    result = mine_hard_negatives(
        benign, malicious, fps=fps, encode=session.encode, config=config, rng=session.rng(name)
    )
    folder = session.config.out / name
    write_corpus(result.frame, folder / "hard_negatives.jsonl.gz", force=True)
    write_review(result.review, folder / "review.jsonl", force=True)
    return result


def join_training(
    session: Session,
    originals: pl.DataFrame,
    grown: pl.DataFrame,
    mined: pl.DataFrame | None,
    holdouts: Sequence[Named],
) -> Assembly:
    """Assemble the training table, hard negatives with their configured weight."""
    section = session.config.train
    return assemble(
        originals,
        grown,
        None if mined is None else _weighted(mined, section.hard_weight),
        budget=section.grown_budget,
        holdouts=holdouts,
        rng=session.rng("assemble"),
    )


def _weighted(frame: pl.DataFrame, weight: float) -> pl.DataFrame:
    return frame.with_columns(pl.lit(weight, pl.Float32).alias("weight"))


def build_suites(
    session: Session,
    split: Split,
    trained_on: Sequence[Named],
    *,
    benign_test: pl.DataFrame | None = None,
    extra: Sequence[Named] = (),
) -> list[Suite]:
    """Build the suites of a run: the handoff's four, the test split's halves, held-out sources, the user's own."""
    label = pl.col("label").cast(pl.String)
    malicious = split.test.filter(label == "MALICIOUS")
    suites = list(standard_suites(benign_test, malicious, trained_on=trained_on))
    suites.append(suite_of("test_benign", split.test.filter(label == "BENIGN"), note="benign rows of the test split"))
    if len(split.held_out):
        suites.append(suite_of("held_out_sources", split.held_out, note="whole sources kept out of training"))
    suites += [suite_of(name, frame) for name, frame in extra if len(frame)]
    return [suite for suite in suites if suite.rows]


def user_suites(session: Session) -> list[Named]:
    """Read the user's further suites, named by their files."""
    return [(path.name.split(".")[0], session.reader.corpus(path)) for path in session.config.evaluate.suites]


def user_holdouts(session: Session) -> list[Named]:
    """Read the user's holdouts, named by their files."""
    return [(path.name, session.reader.corpus(path, label="BENIGN")) for path in session.config.data.holdouts]


def standing_holdouts(session: Session, split: Split) -> list[Named]:
    """Return everything that must stay out of training whatever is grown: folds, embedded suites, the user's own."""
    from crywolf.data.embedded.suites import edge_case_suite, programming_suite

    frames = [
        ("validation", split.validation),
        ("test", split.test),
        ("held_out", split.held_out),
        ("programming suite", programming_suite()),
        ("edge-case suite", edge_case_suite()),
        *user_holdouts(session),
        *user_suites(session),
    ]
    return [(name, frame) for name, frame in frames if len(frame)]


def save_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically, replacing what was there."""
    from crywolf.data import atomic_path

    with atomic_path(path, force=True) as target:
        target.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
