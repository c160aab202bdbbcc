"""The transformers Trainer, bent where this project needs it: loss, order of rows, what a checkpoint holds.

Takes tokenized rows and a recipe and trains the network. Like `network` it imports torch when it is loaded, so `fit`
imports it from inside a function. A checkpoint holds safetensors and tensor-only state, and counts only once a marker
with the hashes of its files has been written: a process may be killed at any moment.
"""

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from crywolf.data import CrywolfError
from crywolf.data.types import Progress

from ..measure.metrics import fp_rate_at_recall
from .batches import Collator, TokenRows
from .losses import focal_loss, mean_training_weight, threat_loss
from .model import WEIGHTS, load_weights, margins_of, save_weights, sha256
from .pieces import pieces
from .recipes import Recipe, SelectBy

MARKER = "complete.json"
STATE = "trainer_state.json"


@dataclass(frozen=True)
class Losses:
    """The loss of a recipe on a training set."""

    recipe: Recipe
    class_weights: Tensor
    mean_weight: float

    @classmethod
    def of(cls, recipe: Recipe, rows: TokenRows) -> "Losses":
        """Class weights and the mean weight that the losses are divided by."""
        weights = torch.tensor(recipe.class_weights, dtype=torch.float32)
        labels, row_weights = torch.from_numpy(rows.labels.copy()), torch.from_numpy(rows.row_weights.copy())
        return cls(recipe, weights, mean_training_weight(labels, row_weights, weights))

    def __call__(self, inputs: dict[str, Tensor], logits: Tensor, threat_logits: Tensor) -> Tensor:
        """Focal loss of the binary head plus the share of the threat-type head's."""
        loss = focal_loss(
            logits,
            inputs["labels"],
            class_weights=self.class_weights.to(logits.device),
            row_weights=inputs["row_weights"],
            gamma=self.recipe.focal_gamma,
            smoothing=self.recipe.label_smoothing,
            mean_weight=self.mean_weight,
            # Validation rows have none: what epochs are compared by stays the labels' loss.
            teacher_margins=inputs.get("teacher_margins"),
            distill=self.recipe.distill,
            temperature=self.recipe.distill_temperature,
        )
        if not self.recipe.threat_weight:
            return loss
        threat = threat_loss(threat_logits, inputs["threat_labels"], row_weights=inputs["row_weights"])
        return loss + self.recipe.threat_weight * threat


class ClassifierTrainer(Trainer):
    """Trainer for `ThreatClassifier`: two heads, grouping by length that a resumed run repeats, safe checkpoints."""

    def __init__(self, *, losses: Losses, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.losses = losses
        self.order_seed = seed

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a batch, and the logits of both heads if asked for."""
        logits, threat_logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = self.losses(inputs, logits, threat_logits)
        return (loss, {"logits": logits, "threat_logits": threat_logits}) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        # Trainer's own grouped sampler draws from the global generator and feeds each pool longest first.
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        # DataLoader takes any sized iterable.
        return rows.sampler(self.args.train_batch_size, self.order_seed)  # type: ignore[no-any-return]

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        return SequentialSampler(eval_dataset)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Trainer's own would add training_args.bin, a pickle.
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.accelerator.unwrap_model(self.model), folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # Strict: Trainer's own only logs missing weights.
        load_weights(model or self.model, Path(resume_from_checkpoint) / WEIGHTS)  # type: ignore[arg-type]


class EpochWatch(TrainerCallback):
    """Measures, reports and ends epochs; marks checkpoints as complete.

    It keeps nothing that a resumed run would miss: when to stop is read from the trainer's own log, which every
    checkpoint holds.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        progress: Progress | None,
        log: Callable[[str], None] | None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.progress = progress
        self.log = log
        self.on_epoch = on_epoch
        self._began = time.perf_counter()

    def measure(self, prediction: Any) -> dict[str, Any]:
        """The rates at even odds, the FP rate at the recipe's recall, and the seconds since the epoch began."""
        margins = margins_of(np.asarray(prediction.predictions[0], dtype=np.float32))
        malicious = np.asarray(prediction.label_ids) == 1
        return {
            **rates(margins >= 0, malicious),
            "fp_at_recall": fp_at_recall(margins, malicious, self.recipe.select_recall),
            "seconds": round(time.perf_counter() - self._began, 3),
        }

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report progress."""
        if self.progress:
            self.progress(state.global_step, state.max_steps)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop a run whose loss is no number."""
        loss = state.log_history[-1].get("loss", 0.0) if state.log_history else 0.0
        if not math.isfinite(loss):
            raise CrywolfError(
                f"training diverged: the loss is {loss} after epoch {state.epoch:.0f}; "
                "lower learning_rate or set precision to fp32 in the recipe"
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Log the epoch, hand it on, and stop when patience is at its end."""
        history = history_of(state.log_history)
        if self.log:
            self.log(epoch_line(history[-1], self.recipe))
        if self.on_epoch:
            self.on_epoch(history[-1])
        if out_of_patience(history, self.recipe):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Mark the checkpoint as whole."""
        mark_complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def rates(flagged: Any, malicious: Any) -> dict[str, float | None]:
    """fp_rate, recall, precision and f1; None where the denominator is 0 (f1 is 0 then, so that it can be compared)."""
    true, false = int((flagged & malicious).sum()), int((flagged & ~malicious).sum())
    n_malicious = int(malicious.sum())
    n_benign = len(malicious) - n_malicious
    either = true + false + n_malicious
    return {
        "fp_rate": false / n_benign if n_benign else None,
        "recall": true / n_malicious if n_malicious else None,
        "precision": true / (true + false) if true + false else None,
        "f1": 2 * true / either if either else 0.0,
    }


def fp_at_recall(margins: Any, malicious: Any, recall: float) -> float | None:
    """FP rate at the highest threshold that keeps this share of the attacks; None where either label is missing."""
    if not malicious.any() or malicious.all():
        return None
    return fp_rate_at_recall(margins[~malicious], margins[malicious], recall).value


def history_of(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One dict an epoch from the trainer's log: as in `FitResult`."""
    epochs: list[dict[str, Any]] = []
    loss: float | None = None
    for entry in log_history:
        loss = entry.get("loss", loss)
        if "eval_f1" not in entry:
            continue
        measured = {name: entry[f"eval_{name}"] for name in ("fp_rate", "recall", "precision", "f1", "seconds")}
        epochs.append(
            {
                "epoch": len(epochs) + 1,
                "step": int(entry["step"]),
                "loss": loss,
                "validation_loss": entry["eval_loss"],
                **measured,
                "fp_at_recall": entry.get("eval_fp_at_recall"),
            }
        )
    return epochs


def best_epoch(history: list[dict[str, Any]], select_by: SelectBy = "f1") -> int:
    """The best epoch, from 1.

    By `f1` the one with the highest F1, by `fp_at_recall` the one with the lowest FP rate at the recipe's recall, then
    the highest F1; among equals the one with the lowest validation loss, then the first.
    """

    def rank(entry: dict[str, Any]) -> tuple[float, float, float, int]:
        return (_badness(entry, select_by), -round(entry["f1"], 9), entry["validation_loss"], entry["epoch"])

    return int(min(history, key=rank)["epoch"])


def out_of_patience(history: list[dict[str, Any]], recipe: Recipe) -> bool:
    """True if the last epochs, as many as the recipe's patience, brought no better one."""
    if not recipe.patience or not history:
        return False
    found = [_badness(entry, recipe.select_by) for entry in history]
    return len(found) - 1 - found.index(min(found)) >= recipe.patience


def _badness(entry: dict[str, Any], select_by: SelectBy) -> float:
    """What an epoch is chosen by, the lower the better; F1 where validation lacks a label."""
    value = entry.get("fp_at_recall") if select_by == "fp_at_recall" else None
    return -round(entry["f1"], 9) if value is None else float(value)


def epoch_line(entry: dict[str, Any], recipe: Recipe) -> str:
    """One line of log for an epoch."""

    def share(name: str) -> str:
        value = entry[name]
        return "-" if value is None else f"{value:.2%}"

    loss = "-" if entry["loss"] is None else f"{entry['loss']:.4f}"
    return (
        f"epoch {entry['epoch']}/{recipe.epochs}: loss {loss}, validation loss {entry['validation_loss']:.4f}, "
        f"FP rate {share('fp_rate')}, recall {share('recall')}, precision {share('precision')}, "
        f"F1 {entry['f1']:.4f}, FP at {recipe.select_recall:.0%} recall {share('fp_at_recall')}, "
        f"{entry['seconds']:.0f} s"
    )


def training_arguments(
    recipe: Recipe,
    checkpoints: Path,
    *,
    steps_per_epoch: int,
    seed: int,
    bf16: bool,
    report_to: Sequence[str] = (),
) -> TrainingArguments:
    """What the recipe means in transformers' terms."""
    warmup, _ = recipe.warmup(steps_per_epoch * recipe.epochs)
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=max(recipe.batch_size, 64),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.scheduler,
        warmup_steps=warmup,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=list(report_to) or "none",
        disable_tqdm=True,
        log_level="error",
    )


def make_trainer(
    network: nn.Module,
    train: TokenRows,
    validation: TokenRows,
    *,
    recipe: Recipe,
    checkpoints: Path,
    pad_id: int,
    seed: int,
    bf16: bool,
    progress: Progress | None,
    log: Callable[[str], None] | None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    report_to: Sequence[str] = (),
) -> ClassifierTrainer:
    """A trainer for these rows, ready to train or to resume."""
    from transformers.trainer_callback import PrinterCallback

    watch = EpochWatch(recipe, progress=progress, log=log, on_epoch=on_epoch)
    steps = math.ceil(recipe.rows_an_epoch(len(train)) / recipe.batch_size)
    trainer = ClassifierTrainer(
        losses=Losses.of(recipe, train),
        seed=seed,
        model=network,
        args=training_arguments(recipe, checkpoints, steps_per_epoch=steps, seed=seed, bf16=bf16, report_to=report_to),
        data_collator=Collator(pad_id),
        train_dataset=_shown(train, recipe, seed),
        eval_dataset=validation,
        compute_metrics=watch.measure,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _shown(rows: TokenRows, recipe: Recipe, seed: int) -> Any:
    """The rows, or their pieces if the recipe cuts or joins any."""
    if not (recipe.crop or recipe.pack):
        return rows
    return pieces(rows, crop=recipe.crop, pack=recipe.pack, epochs=recipe.epochs, seed=seed)


def mark_complete(checkpoint: Path) -> None:
    """Record the hashes of a checkpoint's files; without this record it is not resumed from."""
    hashes = {file.name: sha256(file) for file in sorted(checkpoint.iterdir()) if file.name != MARKER}
    temporary = checkpoint / f"{MARKER}.tmp"
    temporary.write_text(json.dumps(hashes, indent=2), encoding="utf-8")
    temporary.replace(checkpoint / MARKER)


def is_complete(checkpoint: Path) -> bool:
    """True if every file of the checkpoint is there and is what was written."""
    try:
        hashes = json.loads((checkpoint / MARKER).read_text(encoding="utf-8"))
        return {WEIGHTS, STATE} <= set(hashes) and all(sha256(checkpoint / name) == sha for name, sha in hashes.items())
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def sound_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of the first, second, ... epoch, up to the first that is missing or torn.

    A kill in the middle of writing leaves a torn one. It is removed with all that follow it: the best epoch's weights
    may be any epoch's, so a run goes on only from where it has them all.
    """
    paths = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    paths.sort(key=lambda path: int(path.name.partition("-")[2]))
    sound: list[Path] = []
    for path in paths:
        if not is_complete(path) or len(checkpoint_history(path)) != len(sound) + 1:
            break
        sound.append(path)
    for path in paths[len(sound) :]:
        shutil.rmtree(path, ignore_errors=True)
    return sound


def checkpoint_history(checkpoint: Path) -> list[dict[str, Any]]:
    """The epochs that a checkpoint remembers."""
    state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    return history_of(state["log_history"])


def native_bf16() -> bool:
    """True if this machine multiplies bfloat16 natively; emulating it is slower than float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
