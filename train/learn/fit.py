"""Training from first row to finished model folder, resumable at any moment.

Takes a training and a validation frame and a recipe, gives a model folder with calibrated scores and a threshold. The
output folder carries a fingerprint of everything that the result depends on: the same command there goes on where it
was killed, or returns at once if it was done; another command is refused.
"""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from crywolf.data import LABELS, BadInput, atomic_path, check_corpus
from crywolf.data.types import Progress

from .batches import TokenRows, tokenize_rows
from .calibrate import Platt, Threshold, calibration_fields, choose_threshold, fit_platt, malicious_mask
from .losses import IGNORE
from .model import (
    KNOWN_THREATS,
    META,
    WEIGHTS,
    TrainedModel,
    load_tokenizer,
    load_weights,
    read_meta,
    save_weights,
    verify,
    versions,
    write_model,
)
from .operating import operating_points
from .recipes import FULL, Recipe
from .target import Target
from .teachers import TEACHERS, check_teachers, drawn_rows, taught, teacher_hashes
from .timing import TimeEstimate, estimate_time
from .tracking import Tracker, Tracking, open_tracker, tracked

if TYPE_CHECKING:
    from .network import ThreatClassifier

RUN_FILE = "run.json"
HISTORY_FILE = "history.json"
MODEL = "model"
CHECKPOINTS = "checkpoints"
WARMED = "warmed.safetensors"
"""The network after its warm-up, beside the checkpoints while it trains: a run that goes on does not repeat it."""


@dataclass(frozen=True)
class FitResult:
    """A finished training.

    Attributes:
        model_dir: The model folder, for `TrainedModel.load` and export.
        history: One dict an epoch: epoch, step, loss, validation_loss, fp_rate, recall, precision, f1, seconds,
            fp_at_recall. The rates are those at even odds of the uncalibrated scores; fp_at_recall is the FP rate at
            the threshold that keeps the recipe's `select_recall` of the validation attacks.
        best_epoch: The epoch (from 1) whose weights the model has.
        resumed_from: How many epochs were already trained when this call began; None if it began at the first.
        platt: The calibration.
        threshold: The threshold and its rates on the calibration rows.
        notes: What a reader should know: capped warm-up, too few rows, and the like.
        seconds: Wall time of this call.
        estimate: What was said of the training's time before it began; None where it was too short to measure.
    """

    model_dir: Path
    history: list[dict[str, Any]]
    best_epoch: int
    resumed_from: int | None
    platt: Platt
    threshold: Threshold
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    estimate: TimeEstimate | None = None


@dataclass(frozen=True)
class _Watched:
    """Who looks on while a run trains; none of it changes the result."""

    tracker: Tracker
    report_to: tuple[str, ...]
    price_per_hour: float | None
    on_epoch: Callable[[dict[str, Any]], None] | None

    def epoch(self, entry: dict[str, Any]) -> None:
        """Hand an epoch on."""
        self.tracker.epoch(entry)
        if self.on_epoch is not None:
            self.on_epoch(entry)


@dataclass(frozen=True)
class _Run:
    """What one call of `fit` works with, resolved and checked."""

    train: pl.DataFrame
    validation: pl.DataFrame
    calibration: pl.DataFrame
    placing: pl.DataFrame
    recipe: Recipe
    encoder: str
    encoder_name: str
    seed: int
    out: Path
    fingerprint: dict[str, str]
    progress: Progress | None
    log: Callable[[str], None]
    teachers: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a note for the result and log it."""
        if text not in self.notes:
            self.notes.append(text)
            self.log(text)


def fit(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    *,
    recipe: Recipe = FULL,
    out: str | os.PathLike[str],
    encoder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    calibration: pl.DataFrame | None = None,
    teachers: Sequence[str | os.PathLike[str]] = (),
    resume: bool = True,
    force: bool = False,
    keep_checkpoints: bool = False,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
    price_per_hour: float | None = None,
    tracking: Tracking | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train a classifier, calibrate it, choose its threshold, and write the model folder `out/model`.

    A run that was killed goes on from its last whole epoch and ends with the very weights it would have ended with
    (on the same machine, with the same number of threads). Checkpoints, one an epoch, are removed at the end.

    Args:
        train: Contract rows to learn from, grown ones included. Their order does not matter.
        validation: Original rows in natural proportions, for early stopping, calibration and the threshold.
        recipe: All hyperparameters.
        out: The run's folder: run.json, history.json, model/, and checkpoints/ while it trains.
        encoder: Name, hub id or folder of an encoder; None is all-MiniLM-L6-v2 as it was installed.
        seed: Of the new heads, dropout and the order of rows.
        calibration: More rows, best of sources that are not trained on; added to validation for calibration. Where
            they hold both labels, thresholds are placed on them alone: validation resembles training, traffic may not.
        teachers: Model folders of this package that the recipe's `distill` learns from; they score the rows that will
            be drawn. One that was trained elsewhere may have seen this training's evaluation rows, and hands on what it
            learned of them: nothing here can tell.
        resume: Go on from the checkpoints in `out`, if they are of this very run.
        force: Replace another run in `out` instead of refusing; with `resume=False` also this one.
        keep_checkpoints: Do not remove them at the end.
        progress: Called with (steps done, steps in all).
        log: Called with one line an epoch, with every note, and, where there are 200 steps or more, with the time that
            the training will take before it starts and with the time that it took.
        price_per_hour: Of this machine, in any currency: the time is also told as a cost.
        tracking: Where to record the training beside its folder; see `tracking.Tracking`.
        on_epoch: Called with each entry of the history as it comes; what it raises ends the training there.

    Raises:
        MissingExtra: What `tracking` needs is not installed.
        BadInput: Rows or options that cannot be trained on; validation rows that are grown or also in training; an
            `out` that holds something else; teachers without `distill` in the recipe, or the other way round.
        CorruptPackage: A teacher's files are not those that were saved.
    """
    began = time.perf_counter()
    if price_per_hour is not None and not (math.isfinite(price_per_hour) and price_per_hour >= 0):
        raise BadInput(f"fit: a price of {price_per_hour} an hour; give a number from 0")
    if tracking is not None:
        tracking.check()
    folders = tuple(Path(folder).resolve() for folder in teachers)
    run = _prepare(train, validation, calibration, recipe, encoder, seed, Path(out).resolve(), folders, progress, log)
    run.out.mkdir(parents=True, exist_ok=True)
    with _locked(run.out):
        if _claim(run, resume=resume, force=force):
            run.log(f"{run.out.name}: already trained with these rows and this recipe; nothing to do")
            return _finished(run, began)
        tracker = open_tracker(tracking, run.out, key=json.dumps(run.fingerprint, sort_keys=True), warn=run.log)
        report_to = () if tracking is None else tracking.report_to
        watched = _Watched(tracker, report_to, price_per_hour, on_epoch)
        with tracked(tracker, lambda: _parameters(run)):
            history, resumed_from, estimate = _train(run, watched)
            platt, threshold = _finish(run, history)
            tracker.metrics(_final_figures(platt, threshold, time.perf_counter() - began))
            tracker.files([run.out / RUN_FILE, run.out / HISTORY_FILE, run.out / MODEL / META])
        if not keep_checkpoints:
            shutil.rmtree(run.out / CHECKPOINTS, ignore_errors=True)
    from .trainer import best_epoch

    return FitResult(
        model_dir=run.out / MODEL,
        history=history,
        best_epoch=best_epoch(history, recipe.select_by),
        resumed_from=resumed_from,
        platt=platt,
        threshold=threshold,
        notes=tuple(run.notes),
        seconds=time.perf_counter() - began,
        estimate=estimate,
    )


def _parameters(run: _Run) -> dict[str, Any]:
    """What a tracked run is found by: settings, hashes and counts, no rows."""
    frames = {"training": run.train, "validation": run.validation, "calibration": run.calibration}
    return {
        "recipe": run.recipe.to_mapping(),
        "seed": run.seed,
        "encoder": {"name": run.encoder_name, "hash": run.fingerprint["encoder"]},
        "data": {
            name: {"rows": frame.height, "sha256": run.fingerprint[f"{name} rows"]} for name, frame in frames.items()
        },
        "versions": versions(),
    }


def _final_figures(platt: Platt, threshold: Threshold, seconds: float) -> dict[str, float]:
    """The finished model on the calibration rows, at its threshold; `training_seconds` is all that `fit` took."""
    either = threshold.precision + threshold.recall
    return {
        "threshold": threshold.value,
        "final_fp_rate": threshold.fp_rate,
        "final_recall": threshold.recall,
        "final_precision": threshold.precision,
        "final_f1": 2 * threshold.precision * threshold.recall / either if either else math.nan,
        "calibration_scale": platt.scale,
        "calibration_bias": platt.bias,
        "training_seconds": seconds,
    }


def _prepare(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    calibration: pl.DataFrame | None,
    recipe: Recipe,
    encoder: str | os.PathLike[str] | None,
    seed: int,
    out: Path,
    teachers: tuple[Path, ...],
    progress: Progress | None,
    log: Callable[[str], None] | None,
) -> _Run:
    from crywolf.mining.encoder import DEFAULT_NAME, encoder_hash, fetch_encoder

    check_teachers(teachers, recipe.distill)
    # One order for every order that rows may come in, so that the result depends on the rows alone.
    order = ("id", "label", "threat_type", "weight")
    train = check_corpus(train).sort(order, maintain_order=True)
    validation = check_corpus(validation).sort(order, maintain_order=True)
    extra = validation.clear() if calibration is None else check_corpus(calibration)
    _check_rows(train, validation, extra)
    rows = pl.concat([validation, extra]).unique("id", keep="first", maintain_order=True).sort("id")
    folder = fetch_encoder(None if encoder is None else os.fspath(encoder))
    name = DEFAULT_NAME if encoder is None else os.fspath(encoder)
    fingerprint = {
        "training rows": _rows_hash(train),
        "validation rows": _rows_hash(validation),
        "calibration rows": _rows_hash(rows),
        "recipe": _recipe_hash(recipe.to_mapping()),
        "seed": str(seed),
        "encoder": encoder_hash(folder),
        # None, none: a run of an earlier version has no such entry.
        **({"teachers": " ".join(sorted(teacher_hashes(teachers)))} if teachers else {}),
    }
    # A path says something about a machine and nothing about the encoder: its last part will do.
    shown = Path(name).name if Path(name).is_dir() else name
    return _Run(
        train=train,
        validation=validation,
        calibration=rows,
        placing=extra if extra["label"].n_unique() == len(LABELS) else rows,
        recipe=recipe,
        encoder=str(folder),
        encoder_name=shown,
        seed=seed,
        out=out,
        fingerprint=fingerprint,
        progress=progress,
        log=log or _silent,
        teachers=teachers,
    )


def _silent(_: str) -> None:
    return None


def _check_rows(train: pl.DataFrame, validation: pl.DataFrame, calibration: pl.DataFrame) -> None:
    for name, frame in (("training", train), ("validation", validation)):
        if not frame.height:
            raise BadInput(f"fit: there are no {name} rows")
    for label in LABELS:
        if not train.filter(pl.col("label").cast(pl.String) == label).height:
            raise BadInput(f"fit: no {label} rows among the {train.height} training rows; both labels are needed")
    if float(train["weight"].min() or 0) < 0 or not float(train["weight"].sum()) > 0:  # type: ignore[arg-type]
        raise BadInput("fit: training weights must not be negative, nor all 0")
    grown = validation.filter(pl.col("origin_id").is_not_null())
    if grown.height:
        raise BadInput(
            f"fit: {grown.height} validation rows are grown (the first: {grown['id'][0]}); "
            "validation holds original rows only, grown ones live in training"
        )
    for name, frame in (("validation", validation), ("calibration", calibration)):
        shared = frame.filter(pl.col("id").is_in(train["id"].implode()))
        if shared.height:
            raise BadInput(
                f"fit: {shared.height} {name} rows are also training rows (the first: {shared['id'][0]}); split first"
            )


def _claim(run: _Run, *, resume: bool, force: bool) -> bool:
    """Take the folder for this run; True if the run is there already, done and whole.

    Raises:
        BadInput: If the folder holds another run or anything else, and `force` is not set.
    """
    for leftover in run.out.glob(f".{MODEL}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    recorded = _read_run(run.out)
    objection = _objection(run, recorded, resume=resume)
    if objection and not force:
        raise BadInput(f"{run.out}: {objection}")
    if recorded is not None and not objection:
        if recorded.get("state") == "finished" and _is_whole(run.out / MODEL):
            return True
    else:
        for name in (MODEL, CHECKPOINTS):
            shutil.rmtree(run.out / name, ignore_errors=True)
        for name in (HISTORY_FILE, RUN_FILE):
            (run.out / name).unlink(missing_ok=True)
    _write_run(run, "training")
    return False


def _objection(run: _Run, recorded: dict[str, Any] | None, *, resume: bool) -> str | None:
    """Why this run may not simply go on in its folder, or None."""
    if recorded is None:
        others = sorted(path.name for path in run.out.iterdir() if path.name != _LOCK)
        return f"holds other files ({others[0]}) but no training run; choose an empty folder" if others else None
    changed = _changes(recorded, run.fingerprint)
    if changed:
        return (
            f"holds another training run (it differs in: {', '.join(changed)}); "
            "choose another folder, or use force to replace it"
        )
    return None if resume else "holds this training run already; resume it, choose another folder, or use force"


def _changes(recorded: dict[str, Any], fingerprint: dict[str, str]) -> list[str]:
    before = recorded.get("fingerprint")
    if not isinstance(before, dict):
        return list(fingerprint)
    return [
        name
        for name, value in fingerprint.items()
        if before.get(name) != value and not (name == "recipe" and _recorded_recipe_hash(recorded) == value)
    ]


def _recorded_recipe_hash(recorded: dict[str, Any]) -> str | None:
    """What an earlier version's recipe hashes to in this one, in which options that it lacks are off.

    None if it cannot be read: it uses an option that is gone, or is a later version's.
    """
    recipe = recorded.get("recipe")
    try:
        return _recipe_hash(Recipe.from_mapping(recipe).to_mapping()) if isinstance(recipe, dict) else None
    except BadInput:
        return None


def _recipe_hash(recipe: Mapping[str, Any]) -> str:
    return _text_hash(json.dumps(dict(recipe), sort_keys=True))


def _is_whole(model_dir: Path) -> bool:
    from crywolf.data import CrywolfError

    try:
        verify(model_dir, read_meta(model_dir))
    except CrywolfError:
        return False
    return True


def _train(run: _Run, watched: _Watched) -> tuple[list[dict[str, Any]], int | None, TimeEstimate | None]:
    """Train to the end, from the last whole checkpoint if there is one.

    Returns:
        The history, the epochs done before, and what the rest was expected to take.
    """
    from .network import freeze, max_positions, pretrained_classifier
    from .trainer import checkpoint_history, make_trainer, native_bf16, out_of_patience, sound_checkpoints

    recipe = run.recipe
    checkpoints = run.out / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    with _own_randomness(run.seed), _quiet_transformers():
        network = pretrained_classifier(run.encoder, n_threats=len(KNOWN_THREATS), dropout=recipe.dropout)
        freeze(network, embeddings=recipe.freeze_embeddings, layers=recipe.freeze_layers)
        length = _allowed_length(run, max_positions(network.encoder))
        _save_parts(run, network, length)
        done = sound_checkpoints(checkpoints)
        history = checkpoint_history(done[-1]) if done else []
        resumed_from = len(history) or None
        steps = math.ceil(recipe.rows_an_epoch(run.train.height) / recipe.batch_size)
        _, capped = recipe.warmup(steps * recipe.epochs)
        if capped:
            run.note(capped)
        if resumed_from:
            run.log(f"resumed after epoch {resumed_from} of {recipe.epochs}")
        tokenizer = load_tokenizer(run.out / _PARTS, length)
        rows = _tokens(run, run.train, tokenizer, "training")
        if len(history) >= recipe.epochs or out_of_patience(history, recipe):
            return history, resumed_from, None
        bf16 = recipe.precision == "bf16" or (recipe.precision == "auto" and native_bf16())
        trainer = make_trainer(
            network,
            _taught(run, rows),
            # Of like length in a batch, or every batch would be as wide as the longest prompt.
            tokenize_rows(run.validation.sort(pl.col("text").str.len_bytes()), tokenizer, KNOWN_THREATS),
            recipe=recipe,
            checkpoints=checkpoints,
            pad_id=_pad_id(run.out / _PARTS),
            seed=run.seed,
            bf16=bf16,
            progress=run.progress,
            log=run.log,
            on_epoch=watched.epoch,
            report_to=watched.report_to,
        )
        warmed = bool(done) or (checkpoints / WARMED).is_file()
        estimate = estimate_time(trainer, epochs_done=len(history), warm_up=None if warmed else rows)
        if estimate is not None:
            run.log(estimate.text(datetime.now(), watched.price_per_hour))
        began = time.perf_counter()
        if not done:  # else the checkpoint holds what came of it
            _warm_up(run, network, rows, bf16=bf16)
        trainer.train(resume_from_checkpoint=str(done[-1]) if done else None)
        seconds = time.perf_counter() - began
    trained = checkpoint_history(sound_checkpoints(checkpoints)[-1])
    if estimate is not None:
        run.log(estimate.afterwards(seconds, len(trained) - len(history), watched.price_per_hour))
    return trained, resumed_from, estimate


def _warm_up(run: _Run, network: "ThreatClassifier", rows: TokenRows, *, bf16: bool) -> None:
    """Warm the encoder up if the recipe wants it, once: what an interrupted run has finished of it is read back."""
    recipe = run.recipe
    if not (recipe.pretrain or recipe.contrastive_rows):
        return
    from .warmup import warm_up

    kept = run.out / CHECKPOINTS / WARMED
    if kept.is_file():
        load_weights(network, kept)
        run.log("warm-up: done before, read back")
        return
    pad_id = _pad_id(run.out / _PARTS)
    warm_up(network, run.train, rows, recipe=recipe, pad_id=pad_id, seed=run.seed, bf16=bf16, log=run.log)
    with atomic_path(kept) as temporary:
        save_weights(network, Path(temporary))


def _taught(run: _Run, rows: TokenRows) -> TokenRows:
    """The rows with what the run's teachers say of those that it will draw."""
    if not run.teachers:
        return rows
    recipe = run.recipe
    at = drawn_rows(rows, epochs=recipe.epochs, batch_size=recipe.batch_size, seed=run.seed)
    return taught(rows, run.train, run.teachers, at=at, kept=run.out / CHECKPOINTS / TEACHERS, log=run.log)


def _tokens(run: _Run, frame: pl.DataFrame, tokenizer: Any, what: str) -> TokenRows:
    rows = tokenize_rows(frame, tokenizer, KNOWN_THREATS, mix=run.recipe.mix, epoch_rows=run.recipe.epoch_rows)
    cut = int((rows.lengths >= tokenizer.truncation["max_length"]).sum())
    if cut:
        limit = tokenizer.truncation["max_length"]
        run.note(f"{cut:,} of {frame.height:,} {what} rows reach {limit} tokens and are cut there")
    if not (rows.threat_labels != IGNORE).any():
        run.note("no training row has a known threat type: the threat-type head stays untrained and answers unknown")
    return rows


def _finish(run: _Run, history: list[dict[str, Any]]) -> tuple[Platt, Threshold]:
    """Best weights to the model folder, calibrated; history and run.json beside it."""
    from .trainer import best_epoch

    best = best_epoch(history, run.recipe.select_by)
    parts = run.out / _PARTS
    weights = parts / WEIGHTS
    average_weights(_chosen(run, history, best), weights)

    def write_files(folder: Path) -> None:
        for part in parts.iterdir():
            if part.name != _PAD_FILE:  # the weights lie among the parts
                shutil.copyfile(part, folder / part.name)

    meta = _meta(run, parts, best)
    model = _in_memory(weights, parts, meta)
    margins = model.margins(run.calibration["text"].to_list())
    labels, balanced = malicious_mask(run.calibration), run.recipe.balanced
    target = Target("fp", bound=run.recipe.fp_target) if balanced is None else Target.parse(balanced)
    platt = fit_platt(margins, labels)
    placed = run.calibration["id"].is_in(run.placing["id"].implode()).to_numpy()
    scores, labels = platt.calibration(margins[placed]), labels[placed]
    threshold = choose_threshold(
        scores, labels, bound=run.recipe.threshold_bound, min_recall=run.recipe.min_recall, target=target
    )
    points = operating_points(
        scores,
        labels,
        threshold,
        strict=Target.parse(run.recipe.strict),
        balanced=target,
        lenient=Target.parse(run.recipe.lenient),
        bound=run.recipe.threshold_bound,
    )
    for text in (*platt.notes, *threshold.notes):
        run.note(text)
    run.log(
        f"threshold {threshold.value:.4f}: FP rate {threshold.fp_rate:.2%} of {threshold.n_benign:,} benign rows, "
        f"recall {threshold.recall:.2%} of {threshold.n_malicious:,} malicious rows"
    )
    for point in points:
        run.log(f"operating point {point.name} ({point.target}): threshold {point.threshold:.4f}, FP {point.fp.text}")
    fields = calibration_fields(platt, threshold, points)
    write_model(run.out / MODEL, meta={**meta, **fields, "notes": run.notes}, write_files=write_files, force=True)
    with atomic_path(run.out / HISTORY_FILE, force=True) as temporary:
        Path(temporary).write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")
    _write_run(run, "finished", best_epoch=best, notes=run.notes)
    shutil.rmtree(parts, ignore_errors=True)
    return platt, threshold


def _meta(run: _Run, parts: Path, best: int) -> dict[str, Any]:
    known = run.train.filter(
        (pl.col("label").cast(pl.String) == LABELS[1]) & pl.col("threat_type").cast(pl.String).is_in(KNOWN_THREATS)
    )
    details = json.loads((parts / _PAD_FILE).read_text(encoding="utf-8"))
    return {
        "labels": list(LABELS),
        "threat_types": list(KNOWN_THREATS),
        "threat_head_trained": bool(known.height) and run.recipe.threat_weight > 0,
        "max_length": details["max_length"],
        "pad_id": details["pad_id"],
        "calibration": {"scale": 1.0, "bias": 0.0},
        "threshold": 0.5,
        "encoder": {"name": run.encoder_name, "hash": run.fingerprint["encoder"]},
        "recipe": run.recipe.to_mapping(),
        "seed": run.seed,
        "best_epoch": best,
        "rows": {"train": run.train.height, "validation": run.validation.height, "calibration": run.calibration.height},
        "fingerprint": run.fingerprint,
        "versions": versions(),
    }


def _chosen(run: _Run, history: list[dict[str, Any]], best: int) -> list[Path]:
    """Weights of the best epoch, or of the last ones where they are to be averaged."""
    epochs = history[-run.recipe.average :] if run.recipe.average else [history[best - 1]]
    return [run.out / CHECKPOINTS / f"checkpoint-{entry['step']}" / WEIGHTS for entry in epochs]


def average_weights(files: Sequence[Path], target: Path) -> None:
    """Write the mean of safetensors files of one network; of a single file, a copy."""
    if len(files) == 1:
        shutil.copyfile(files[0], target)
        return
    from safetensors.torch import load_file, save_file

    mean = load_file(files[0])
    for file in files[1:]:
        for name, tensor in load_file(file).items():
            mean[name] = mean[name] + tensor
    save_file({name: tensor / len(files) for name, tensor in mean.items()}, target, metadata={"format": "pt"})


def _in_memory(weights: Path, parts: Path, meta: dict[str, Any]) -> TrainedModel:
    """The model before it has a folder of its own."""
    import torch

    from .network import empty_classifier

    network = empty_classifier(parts, n_threats=len(KNOWN_THREATS), dropout=0.0)
    load_weights(network, weights)
    network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return TrainedModel(parts, network, load_tokenizer(parts, int(meta["max_length"])), meta)


_PARTS = ".parts"
_PAD_FILE = "tokens.json"
_LOCK = ".lock"


def _allowed_length(run: _Run, positions: int | None) -> int:
    if positions is None or positions >= run.recipe.max_length:
        return run.recipe.max_length
    run.note(f"max_length cut from {run.recipe.max_length} to {positions} tokens: the encoder knows no more positions")
    return positions


def _save_parts(run: _Run, network: "ThreatClassifier", length: int) -> None:
    """Config and tokenizer as the model folder will have them, into a hidden folder beside it."""
    from transformers import AutoTokenizer

    folder = run.out / _PARTS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(run.encoder)
        backend = tokenizer.backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"encoder {run.encoder}: has no fast tokenizer (tokenizer.json) that can be loaded") from error
    if tokenizer.pad_token_id is None:
        raise BadInput(f"encoder {run.encoder}: its tokenizer has no padding token; batches cannot be made")
    tokenizer.model_max_length = length
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(str(folder))
    backend.no_padding()
    backend.enable_truncation(max_length=length)
    backend.save(str(folder / "tokenizer.json"))
    network.encoder.config.name_or_path = ""  # type: ignore[union-attr]  # a HF config; no machine's paths in a package
    network.encoder.config.save_pretrained(str(folder))  # type: ignore[operator,union-attr]
    details = {"pad_id": int(tokenizer.pad_token_id), "max_length": length}
    (folder / _PAD_FILE).write_text(json.dumps(details), encoding="utf-8")


def _pad_id(parts: Path) -> int:
    return int(json.loads((parts / _PAD_FILE).read_text(encoding="utf-8"))["pad_id"])


def _finished(run: _Run, began: float) -> FitResult:
    meta = read_meta(run.out / MODEL)
    history = json.loads((run.out / HISTORY_FILE).read_text(encoding="utf-8"))
    numbers: dict[str, Any] = {
        key: math.nan if value is None else value for key, value in meta["threshold_on_validation"].items()
    }
    threshold = Threshold(**numbers, notes=tuple(meta["threshold_notes"]))
    scaled = meta["calibration"]
    return FitResult(
        model_dir=run.out / MODEL,
        history=history,
        best_epoch=int(meta["best_epoch"]),
        resumed_from=len(history),
        platt=Platt(
            scaled["scale"],
            scaled["bias"],
            threshold.n_benign,
            threshold.n_malicious,
            tuple(meta["calibration_notes"]),
        ),
        threshold=threshold,
        notes=tuple(meta["notes"]),
        seconds=time.perf_counter() - began,
    )


def _read_run(out: Path) -> dict[str, Any] | None:
    path = out / RUN_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _write_run(run: _Run, state: str, **more: Any) -> None:
    content = {"format": 1, "state": state, "fingerprint": run.fingerprint, "recipe": run.recipe.to_mapping(), **more}
    with atomic_path(run.out / RUN_FILE, force=True) as temporary:
        Path(temporary).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _rows_hash(frame: pl.DataFrame) -> str:
    """What training sees of the rows: the id stands for the text, source and category for the part of a mix."""
    columns = frame.select(
        "id", pl.col("label", "threat_type", "category", "source").cast(pl.String), pl.col("weight").cast(pl.Float64)
    )
    return _text_hash(columns.write_csv())


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@contextlib.contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators that torch and transformers use, and give the caller's back afterwards."""
    import random

    import numpy as np
    import torch
    from transformers import set_seed

    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002  # the global one
    set_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.random.set_rng_state(before[2])


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and warnings of the library's own: this room reports through `progress` and `log`."""
    from transformers.utils import logging as typed

    logging: Any = typed  # the library annotates none of these functions
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock dies with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system: go without
        yield
        return
    with (out / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{out}: another process is training there; wait for it or choose another folder") from error
        yield
