"""Training speed: rows a second of crywolf's fit and of transformers' Trainer, and what both detectors are then worth.

`make bench-fit` runs it. All arms train the same encoder on the same rows of the pools in `--corpus` (of the embedded
seeds without one), a third of them attacks, with the same batch size, learning rate, schedule and seeds. Speed is
measured on a few optimizer steps that stand for an arm's whole epoch, the arms in turn, again and again; then each arm
trains one epoch and is measured on rows held out by near-duplicate cluster. It writes docs/bench/fit.json and fit.md.
"""

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from document import machine, write
from numpy.typing import NDArray
from scipy.special import expit
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback

from crywolf.data import read_corpus
from crywolf.train import FULL, KNOWN_THREATS, Rate, Recipe, Split, TrainedModel, fit, split_originals
from crywolf.train.measure.intervals import paired_difference
from crywolf.train.measure.metrics import auroc

ROOT = Path(__file__).resolve().parent.parent
BATCH = 32
ATTACKS = 1 / 3
"""Share of attacks, about that of the handoff's training set."""
CALIBRATION = 200
"""Rows that crywolf calibrates on; no arm learns from them or is measured on them."""
RECALL = 0.95
LABEL = pl.col("label").cast(pl.String)
VERSIONS = ("crywolf", "torch", "transformers", "accelerate", "numpy")
QUICK = {"rows": 160, "held": 90, "steps": 2, "warmup": 1, "repeats": 1, "lengths": [32], "train_length": 32}
FULL_SIZE = {"rows": 1800, "held": 1500, "steps": 5, "warmup": 1, "repeats": 3, "lengths": [128, 256]} | {
    "train_length": 128
}


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        shown: Its name on the page.
        ours: Whether crywolf trains, or transformers' Trainer alone.
        tuned: Of the Trainer: bfloat16 (where the machine has it) and batches of like length, which crywolf always has.
        frozen: Of crywolf: the embeddings and the two lowest layers are kept as they came, as the recipe `broad` does.
        judged: Whether it trains a whole epoch too and is measured on the rows held out.
    """

    shown: str
    ours: bool
    tuned: bool = False
    frozen: bool = False
    judged: bool = True


ARMS = {
    "trainer": Arm("Trainer", ours=False),
    "trainer-tuned": Arm("Trainer, bf16 and group_by_length", ours=False, tuned=True, judged=False),
    "crywolf": Arm("crywolf", ours=True),
    "crywolf-frozen": Arm("crywolf, embeddings and 2 layers frozen", ours=True, frozen=True),
}
BASE = "trainer"


@dataclass(frozen=True)
class World:
    """Rows and settings that all arms share; `held` is sorted by length, so that batches of it are of like length."""

    train: pl.DataFrame
    calibration: pl.DataFrame
    held: pl.DataFrame
    encoder: Path
    learning_rate: float
    bf16: bool

    @property
    def attacks(self) -> NDArray[np.bool_]:
        """Which of the rows held out are attacks."""
        return (self.held.select(LABEL).to_series() == "MALICIOUS").to_numpy()


# ---------------------------------------------------------------------------------------------------------------- rows


def read_pools(corpus: Path | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Benign rows and attacks of the pools, or the embedded ones."""
    if corpus is None:
        from crywolf.data.embedded import benign_seeds, malicious_seeds

        return benign_seeds(), malicious_seeds()
    files = {"BENIGN": "benign_pool.jsonl.gz", "MALICIOUS": "malicious_pool.jsonl.gz"}
    benign, malicious = (read_corpus(corpus / name, label=label).frame for label, name in files.items())
    return benign, malicious


def draw(benign: pl.DataFrame, malicious: pl.DataFrame, sizes: Sequence[int], rng: np.random.Generator) -> Split:
    """About as many training, calibration (`validation`) and held-out (`test`) rows: clusters stay whole."""
    wanted = sum(sizes)
    counts = {"benign": wanted - round(wanted * ATTACKS), "malicious": round(wanted * ATTACKS)}
    parts = []
    for (name, count), frame in zip(counts.items(), (benign, malicious), strict=True):
        if count > frame.height:
            raise SystemExit(f"{count:,} {name} rows are wanted and {frame.height:,} there: lower --rows or --held")
        parts.append(frame[rng.permutation(frame.height)[:count]])
    train, calibration, held = (size / wanted for size in sizes)
    return split_originals(pl.concat(parts).unique("id"), fractions=(train, calibration, held), rng=rng)


def make_world(chosen: argparse.Namespace) -> World:
    """Rows drawn and split, the encoder found."""
    from crywolf.mining import default_encoder
    from crywolf.train.learn.trainer import native_bf16

    sizes = (chosen.rows, min(CALIBRATION, chosen.rows // 4), chosen.held)
    split = draw(*read_pools(chosen.corpus), sizes, np.random.default_rng(chosen.seed))
    held = split.test.sort(pl.col("text").str.len_bytes(), "id")
    return World(split.train, split.validation, held, Path(default_encoder()), chosen.learning_rate, native_bf16())


# ------------------------------------------------------------------------------------------------------------ trainers


class Clock(TrainerCallback):
    """The time at each step's end; what an epoch ends with (validation, a checkpoint) is left out."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time."""
        self.marks.append(time.perf_counter())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for nothing after the last step."""
        control.should_evaluate = control.should_save = False


def recipe_of(arm: Arm, world: World, length: int) -> Recipe:
    """The recipe `full`, cut to one epoch at the learning rate of all arms."""
    return replace(
        FULL,
        name="bench-fit",
        epochs=1,
        batch_size=BATCH,
        learning_rate=world.learning_rate,
        max_length=length,
        freeze_embeddings=arm.frozen,
        freeze_layers=2 if arm.frozen else 0,
    )


def their_rows(frame: pl.DataFrame, world: World, length: int) -> list[dict[str, Any]]:
    """What a user feeds to the Trainer: token ids without padding, and a label."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(world.encoder)
    ids = tokenizer(frame["text"].to_list(), truncation=True, max_length=length)["input_ids"]
    labels = (frame.select(LABEL).to_series() == "MALICIOUS").cast(pl.Int64).to_list()
    return [
        {"input_ids": row, "attention_mask": [1] * len(row), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]


def their_trainer(arm: Arm, world: World, *, length: int, seed: int, folder: Path) -> Any:
    """The loop of transformers' manual: a classification head on the encoder, rows padded to the longest of a batch."""
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(world.encoder, num_labels=2, dtype=torch.float32)
    steps = math.ceil(world.train.height / BATCH)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=64,
        learning_rate=world.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=recipe_of(arm, world, length).warmup(steps)[0],
        weight_decay=FULL.weight_decay,
        max_grad_norm=FULL.max_grad_norm,
        bf16=arm.tuned and world.bf16,
        train_sampling_strategy="group_by_length" if arm.tuned else "random",
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=their_rows(world.train, world, length),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(world.encoder)),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def our_trainer(arm: Arm, world: World, *, length: int, seed: int, folder: Path) -> Any:
    """The trainer that `fit` makes, with the network that it makes."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, set_seed

    from crywolf.train.learn.batches import tokenize_rows
    from crywolf.train.learn.network import freeze, pretrained_classifier
    from crywolf.train.learn.trainer import make_trainer

    set_seed(seed)
    recipe = recipe_of(arm, world, length)
    network = pretrained_classifier(str(world.encoder), n_threats=len(KNOWN_THREATS), dropout=recipe.dropout)
    freeze(network, embeddings=recipe.freeze_embeddings, layers=recipe.freeze_layers)
    tokenizer = Tokenizer.from_file(str(world.encoder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    train, calibration = (tokenize_rows(frame, tokenizer, KNOWN_THREATS) for frame in (world.train, world.calibration))
    return make_trainer(
        network,
        train,
        calibration,
        recipe=recipe,
        checkpoints=folder,
        pad_id=int(AutoConfig.from_pretrained(world.encoder).pad_token_id),
        seed=seed,
        bf16=world.bf16,
        progress=None,
        log=None,
    )


# --------------------------------------------------------------------------------------------------------------- speed


def epoch_batches(trainer: Any, seed: int) -> list[NDArray[np.int64]]:
    """The full batches of an epoch, rows by number, as the trainer's own sampler orders them."""
    from transformers import set_seed

    set_seed(seed)
    order = np.fromiter(trainer._get_train_sampler(), dtype=np.int64)
    return [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]


def representative(widths: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Batches that stand for all of an epoch's, by number, and for how many each stands.

    Sorted by width and cut into `count` parts, of each part the batch is taken that is nearest to its mean. A few
    batches drawn at random would not do: where batches are of like length the widest take ten times as long as the
    narrowest.
    """
    parts = np.array_split(np.argsort(widths, kind="stable"), min(count, len(widths)))
    nearest = [part[np.argmin(np.abs(widths[part] - widths[part].mean()))] for part in parts]
    return np.array(nearest), np.array([len(part) for part in parts])


def timed_steps(arm: Arm, world: World, chosen: argparse.Namespace, *, length: int, seed: int) -> dict[str, float]:
    """Rows a second over the steps that stand for an epoch, after warm-up steps; and tokens a row, padding included."""
    with tempfile.TemporaryDirectory() as folder:
        make = our_trainer if arm.ours else their_trainer
        trainer = make(arm, world, length=length, seed=seed, folder=Path(folder))
        batches = epoch_batches(trainer, seed)
        lengths = np.array([len(trainer.train_dataset[row]["input_ids"]) for row in range(len(trainer.train_dataset))])
        widths = np.array([lengths[batch].max() for batch in batches])
        rng = np.random.default_rng(seed)
        stand, weights = representative(widths, chosen.steps)
        shuffled = rng.permutation(len(stand))
        stand, weights = stand[shuffled], weights[shuffled]
        warm = rng.choice(stand, chosen.warmup)
        order = np.concatenate([batches[index] for index in (*warm, *stand)]).tolist()
        trainer._get_train_sampler = lambda *_, **__: order
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()
    seconds = np.diff(clock.marks[chosen.warmup - 1 :])
    return {
        "rows_per_second": float(BATCH * weights.sum() / (weights @ seconds)),
        "tokens_a_row": float(widths.mean()),
        "timed_tokens_a_row": float(np.average(widths[stand], weights=weights)),
    }


def measure_speed(world: World, arms: Sequence[str], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians over the repeats, the arms in turn: a busy moment of the machine does not hit one alone."""
    runs: dict[tuple[int, str], list[dict[str, float]]] = {}
    for repeat in range(chosen.repeats):
        for length in chosen.lengths:
            for name in arms:
                run = timed_steps(ARMS[name], world, chosen, length=length, seed=chosen.seed + repeat)
                runs.setdefault((length, name), []).append(run)
                print(f"{length} tokens, {name}, {repeat + 1}: {run['rows_per_second']:.1f} rows/s", flush=True)
    rows = []
    for (length, name), found in sorted(runs.items(), key=lambda item: item[0][0]):
        rates = [run["rows_per_second"] for run in found]
        base = [run["rows_per_second"] for run in runs.get((length, BASE), [])]
        rows.append(
            {
                "max_length": length,
                "arm": name,
                "precision": precision(ARMS[name], world),
                "rows_per_second": round(statistics.median(rates), 2),
                "repeats": [round(rate, 2) for rate in rates],
                "times": round(statistics.median(rates) / statistics.median(base), 2) if base else None,
                "tokens_a_row": round(statistics.mean(run["tokens_a_row"] for run in found), 1),
                "timed_tokens_a_row": round(statistics.mean(run["timed_tokens_a_row"] for run in found), 1),
            }
        )
    return rows


def precision(arm: Arm, world: World) -> str:
    """What an arm computes in."""
    return "bf16" if world.bf16 and (arm.ours or arm.tuned) else "fp32"


# --------------------------------------------------------------------------------------------------------------- worth


@dataclass(frozen=True)
class Trained:
    """An arm after its epoch: seconds of all steps but the first, and the margins of the rows held out."""

    seconds: float
    margins: NDArray[np.float64] = field(repr=False)


def train_theirs(arm: Arm, world: World, *, length: int, seed: int, folder: Path) -> Trained:
    """Train by the Trainer, score by it."""
    from crywolf.train.learn.model import margins_of

    trainer, clock = their_trainer(arm, world, length=length, seed=seed, folder=folder), Clock()
    trainer.add_callback(clock)
    trainer.train()
    found = trainer.predict(their_rows(world.held, world, length)).predictions
    return Trained(clock.marks[-1] - clock.marks[0], margins_of(np.asarray(found, dtype=np.float32)))


def train_ours(arm: Arm, world: World, *, length: int, seed: int, folder: Path) -> Trained:
    """Train by `fit`, from rows to a calibrated model folder; score by that model."""
    marks: list[float] = []
    result = fit(
        world.train,
        world.calibration,
        recipe=recipe_of(arm, world, length),
        out=folder / "run",
        seed=seed,
        progress=lambda _done, _of: marks.append(time.perf_counter()),
    )
    margins = TrainedModel.load(result.model_dir).margins(world.held["text"].to_list())
    return Trained(marks[-1] - marks[0], margins)


def flagged_at_recall(margins: NDArray[np.float64], attacks: NDArray[np.bool_], recall: float) -> NDArray[np.bool_]:
    """Which benign rows lie at or above the highest threshold that catches this share of the attacks."""
    caught = np.sort(margins[attacks])[::-1]
    threshold = caught[max(math.ceil(recall * len(caught) - 1e-9), 1) - 1]
    return np.asarray(margins[~attacks] >= threshold)


def hits(margins: NDArray[np.float64], attacks: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """What rates are counted from: rows judged right at even odds, benign rows flagged at the fixed recall."""
    return {
        "accuracy": (margins >= 0) == attacks,
        "fp_at_recall": flagged_at_recall(margins, attacks, RECALL),
    }


def change(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    """The change of a rate on the same rows, with its 95% interval."""
    cells = ((before & after), (before & ~after), (~before & after), (~before & ~after))
    found = paired_difference(*(int(cell.sum()) for cell in cells))
    return {"value": found.value, "low": found.low, "high": found.high, "text": found.points}


def measure_worth(world: World, arms: Sequence[str], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """One epoch of each arm on the same rows, and its rates on the rows held out."""
    trained = {}
    for name in arms:
        with tempfile.TemporaryDirectory() as folder:
            train = train_ours if ARMS[name].ours else train_theirs
            options = {"length": chosen.train_length, "seed": chosen.seed, "folder": Path(folder)}
            trained[name] = train(ARMS[name], world, **options)
        print(f"{name}: one epoch in {trained[name].seconds:.0f} s", flush=True)
    attacks, base = world.attacks, trained.get(BASE)
    rows = []
    for name, found in trained.items():
        row = {
            "arm": name,
            "rows_per_second": round((world.train.height - BATCH) / found.seconds, 2),
            "times": round(base.seconds / found.seconds, 2) if base else None,
            "auroc": round(auroc(expit(found.margins), attacks), 4),
        }
        for kind, hit in hits(found.margins, attacks).items():
            row[kind] = Rate(int(hit.sum()), len(hit)).to_dict()
            compared = base is not None and name != BASE
            row[f"{kind}_change"] = change(hits(base.margins, attacks)[kind], hit) if compared and base else None
        rows.append(row)
    return rows


# ---------------------------------------------------------------------------------------------------------------- page


def page(document: dict[str, Any]) -> str:
    """docs/bench/fit.md."""
    about = document["about"]
    lines = [
        "# Speed of the fit",
        "",
        f"`make bench-fit`{', --quick: a smoke test, not a result' if about['quick'] else ''}; {about['threads']} "
        f"threads, {about['machine']}, torch {about['versions']['torch']}, transformers "
        f"{about['versions']['transformers']}; {about['minutes']} minutes. {about['train_rows']:,} training rows "
        f"{about['origin']}, a third of them attacks, in batches of {BATCH}; encoder, learning rate "
        f"({about['learning_rate']:g}), schedule and seeds are the same for all. crywolf is the recipe `full`, with "
        "nothing frozen or with what `broad` freezes.",
        "",
        "## Rows a second",
        "",
        f"Medians of {about['repeats']} (least to most), the arms in turn, each over {about['steps']} optimizer steps "
        f"after {about['warmup']} of warm-up. The steps are batches of the arm's own epoch, each weighed by how many "
        "of like width it stands for; tokens a row, padding included, are told of the whole epoch and of these.",
        "",
        "| at most | arm | precision | rows/s | times | tokens a row | of them timed |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for row in document["speed"]:
        low, high = min(row["repeats"]), max(row["repeats"])
        lines.append(
            f"| {row['max_length']} | {ARMS[row['arm']].shown} | {row['precision']} | {row['rows_per_second']:.1f} "
            f"({low:.1f} to {high:.1f}) | {times(row)} | {row['tokens_a_row']:.0f} | {row['timed_tokens_a_row']:.0f} |"
        )
    lines += [
        "",
        f"## The same epoch, {about['train_length']} tokens at most",
        "",
        f"All {about['train_rows']:,} rows once, then measured on {about['held_rows']:,} others that share no "
        "near-duplicate with them. Accuracy at even odds of the scores as they are; FP at the threshold that catches "
        f"{RECALL:.0%} of the attacks held out. Changes are against the first line, on the same rows.",
        "",
        "| arm | rows/s | times | accuracy | change | FP | change | AUROC |",
        "|---|---:|---:|---|---|---|---|---:|",
    ]
    for row in document["trainings"]:
        cells = [cell for kind in ("accuracy", "fp_at_recall") for cell in (rate(row[kind]), changed(row, kind))]
        lines.append(
            f"| {ARMS[row['arm']].shown} | {row['rows_per_second']:.1f} | {times(row)} | {' | '.join(cells)} | "
            f"{row['auroc']:.4f} |"
        )
    return "\n".join(lines) + "\n"


def times(row: dict[str, Any]) -> str:
    """How many times as fast as the plain Trainer."""
    return "" if row["times"] is None else f"{row['times']:.2f}"


def rate(found: dict[str, Any]) -> str:
    return Rate.from_dict(found).text


def changed(row: dict[str, Any], kind: str) -> str:
    """The change of a rate against the plain Trainer."""
    found = row[f"{kind}_change"]
    return "" if found is None else str(found["text"])


# ---------------------------------------------------------------------------------------------------------------- main


def arguments() -> argparse.Namespace:
    """The command line's options; what is not given is of the full or of the quick size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="folder with benign_pool.jsonl.gz and malicious_pool.jsonl.gz")
    parser.add_argument("--rows", type=int, help=f"training rows [{FULL_SIZE['rows']:,}]")
    parser.add_argument("--held", type=int, help=f"rows held out [{FULL_SIZE['held']:,}]")
    parser.add_argument("--lengths", type=int, nargs="+", help="tokens at most, for the speed [128 256]")
    parser.add_argument("--train-length", type=int, help="tokens at most, for the whole epoch [128]")
    parser.add_argument("--steps", type=int, help=f"timed steps of a repeat [{FULL_SIZE['steps']}]")
    parser.add_argument("--warmup", type=int, help=f"steps before them, 1 at least [{FULL_SIZE['warmup']}]")
    parser.add_argument("--repeats", type=int, help=f"[{FULL_SIZE['repeats']}]")
    parser.add_argument("--only", nargs="+", choices=list(ARMS), help="these arms alone")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of all arms [1e-4]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a smoke test of under a minute")
    parser.add_argument("--out", type=Path, help="[docs/bench/fit.json; quick: build/bench/fit.json]")
    chosen = parser.parse_args()
    for name, value in (QUICK if chosen.quick else FULL_SIZE).items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)
    if min(chosen.steps, chosen.warmup, chosen.repeats, chosen.threads) < 1:
        parser.error("--steps, --warmup, --repeats and --threads must be 1 at least")
    chosen.out = chosen.out or ROOT / ("build" if chosen.quick else "docs") / "bench" / "fit.json"
    return chosen


def begin(world: World, chosen: argparse.Namespace) -> dict[str, Any]:
    """The document before anything is measured."""
    about = {
        "quick": chosen.quick,
        "origin": "of the pools" if chosen.corpus else "of the embedded seeds",
        "train_rows": world.train.height,
        "calibration_rows": world.calibration.height,
        "held_rows": world.held.height,
        "batch_size": BATCH,
        "learning_rate": chosen.learning_rate,
        "train_length": chosen.train_length,
        "steps": chosen.steps,
        "warmup": chosen.warmup,
        "repeats": chosen.repeats,
        "recall": RECALL,
        "seed": chosen.seed,
        "threads": chosen.threads,
        "machine": machine(),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS},
        "minutes": 0.0,
    }
    return {"about": about, "speed": [], "trainings": []}


def main() -> None:
    """Draw the rows, measure speed and worth, write."""
    chosen = arguments()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: the arms are compared on the processor
    import torch
    from transformers.utils import logging

    torch.set_num_threads(chosen.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    began = time.perf_counter()
    world = make_world(chosen)
    document = begin(world, chosen)
    arms = [name for name in ARMS if not chosen.only or name in chosen.only]
    document["speed"] = measure_speed(world, arms, chosen)
    document["trainings"] = measure_worth(world, [name for name in arms if ARMS[name].judged], chosen)
    document["about"]["minutes"] = round((time.perf_counter() - began) / 60, 1)
    write(document, page(document), chosen.out)
    print(page(document))


if __name__ == "__main__":
    main()
