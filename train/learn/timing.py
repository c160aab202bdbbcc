"""How long a training will take, said before it starts, and how dear that will be.

Takes a trainer that is ready to train, times a few of the very batches that it will be fed, short to long, and gives a
`TimeEstimate`. What is measured is a copy of the network, and the random state is put back: the weights of a run are
the same, bit for bit, whether it was measured or not.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .batches import TokenRows
from .recipes import Recipe

if TYPE_CHECKING:
    from .trainer import ClassifierTrainer

MIN_STEPS = 200
"""Runs of fewer steps are not measured: they are over before the measuring would have paid."""
TRAIN_AT = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Which training batches are timed, as quantiles of their sizes."""
VALIDATION_AT = (0.0, 0.5, 1.0)
"""Which validation batches are timed, as quantiles of their sizes."""
TAKES = 3
"""How often each of these batches is timed; the median counts, as the first of a length costs more than the rest."""


@dataclass(frozen=True)
class TimeEstimate:
    """What a training will take.

    Attributes:
        seconds: Wall time of the warm-up, of training, and of validation after each epoch, in seconds. Loading, the
            writing of checkpoints, calibration and export are not in it.
        epochs: Epochs still to train.
        rows: Training rows that these epochs show the model.
        may_stop: Whether early stopping may end the run sooner.
        batches: How many batches were timed.
        measuring: What the timing itself took, in seconds.
        warmup: How much of `seconds` goes by before the first epoch, in the steps that warm the encoder up.
    """

    seconds: float
    epochs: int
    rows: int
    may_stop: bool
    batches: int
    measuring: float
    warmup: float = 0.0

    @property
    def rows_per_second(self) -> float:
        """Training rows a second, validation included, the warm-up not."""
        epochs = self.seconds - self.warmup
        return self.rows / epochs if epochs else math.nan

    def cost(self, price_per_hour: float) -> float:
        """What the training costs, in the currency of the price."""
        return self.seconds / 3600 * price_per_hour

    def text(self, now: datetime, price_per_hour: float | None = None) -> str:
        """One line for people, for a training that starts now.

        Args:
            now: The time of the clock that `done about` refers to.
            price_per_hour: Of the machine, in any currency; None leaves the cost out.
        """
        end = now + timedelta(seconds=self.seconds)
        clock = f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"
        line = (
            f"{'at most ' if self.may_stop else ''}about {spoken(self.seconds)} for {epochs_text(self.epochs)} "
            f"({self.rows_per_second:,.0f} rows/s){self._warmup_text()}, done about {clock}"
        )
        return (
            line
            if price_per_hour is None
            else line + f"; {_money(self.cost(price_per_hour), price_per_hour, 'about ')}"
        )

    def _warmup_text(self) -> str:
        return f", {spoken(self.warmup)} of it for the warm-up" if self.warmup else ""

    def afterwards(self, seconds: float, epochs: int, price_per_hour: float | None = None) -> str:
        """One line for people, for a training that is over: what it took beside what was said.

        Args:
            seconds: What it took.
            epochs: Epochs trained; where early stopping ended it, the estimate is cut to as many.
            price_per_hour: As for `text`.
        """
        expected = self.warmup + (self.seconds - self.warmup) * epochs / self.epochs
        off = f" ({seconds / expected - 1:+.0%})" if expected else ""
        line = f"took {spoken(seconds)} for {epochs_text(epochs)}; the estimate was {spoken(expected)}{off}"
        if price_per_hour is None:
            return line
        return line + f"; {_money(seconds / 3600 * price_per_hour, price_per_hour)}"

    def to_dict(self) -> dict[str, Any]:
        """For machines; seconds are seconds."""
        return {
            "seconds": round(self.seconds, 1),
            "warmup_seconds": round(self.warmup, 1),
            "epochs": self.epochs,
            "rows_per_second": round(self.rows_per_second, 1),
            "batches": self.batches,
            "measuring_seconds": round(self.measuring, 2),
        }


def spoken(seconds: float) -> str:
    """A duration as people say it: `45 seconds`, `34 minutes`, `3.2 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
    return f"{seconds / 60:.0f} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def epochs_text(epochs: int) -> str:
    """`1 epoch`, `4 epochs`."""
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _money(cost: float, price_per_hour: float, about: str = "") -> str:
    amount = "less than 0.01" if 0 < cost < 0.005 else f"{about}{cost:,.2f}"
    return f"{amount} at {price_per_hour:g} an hour"


def estimate_time(
    trainer: "ClassifierTrainer", *, epochs_done: int = 0, warm_up: TokenRows | None = None
) -> TimeEstimate | None:
    """Time a few batches and extrapolate, by tokens, to all batches of the epochs to come and to validation.

    The batches are those of the sampler's own order, so that padding counts as it will; the step is whole: collating,
    forward, backward, clipping and the optimizer's. The random state and the trainer's network are left as they were.

    Args:
        trainer: Ready to train, with its data sets.
        epochs_done: Epochs trained already, by a run that is resumed.
        warm_up: The rows that a warm-up would learn from, to count in what the recipe wants of it. They are not drawn
            yet: batches of the lengths that training draws stand for them. None where there is none, or it is done.

    Returns:
        The estimate, or None where fewer than `MIN_STEPS` steps are left, those of the warm-up among them.
    """
    import torch

    began = time.perf_counter()
    rows: TokenRows = trainer.train_dataset  # type: ignore[assignment]  # a map-style data set of our own
    validation: TokenRows = trainer.eval_dataset  # type: ignore[assignment]
    epochs = math.ceil(trainer.args.num_train_epochs) - epochs_done
    orders = _orders(trainer, range(epochs_done, epochs_done + epochs))
    batches = [batch for order in orders for batch in _batches(order, trainer.args.train_batch_size)]
    learned, looked_at = ([], []) if warm_up is None else _warm_batches(trainer.losses.recipe, warm_up)
    if len(batches) + len(learned) < MIN_STEPS:
        return None
    checks = _batches(np.arange(len(validation)), trainer.args.eval_batch_size)
    with torch.random.fork_rng():
        network = copy.deepcopy(trainer.model)
        step, look = _training_step(trainer, network), _validation_step(trainer, network)
        train_seconds, timed = _extrapolate(batches, rows, step, TRAIN_AT)
        look_seconds, looked = _extrapolate(checks, validation, look, VALIDATION_AT)
        warming, warmed = 0.0, 0
        if warm_up is not None:
            for ahead, learn in ((learned, True), (looked_at, False)):
                pool = _pooling_step(trainer, network, learn=learn)
                took, times = _extrapolate(ahead, warm_up, pool, VALIDATION_AT, takes=1)
                warming, warmed = warming + took, warmed + times
        del network, step, look
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return TimeEstimate(
        seconds=warming + train_seconds + epochs * look_seconds,
        epochs=epochs,
        rows=sum(map(len, orders)),
        may_stop=bool(trainer.losses.recipe.patience),
        batches=timed + looked + warmed,
        measuring=time.perf_counter() - began,
        warmup=warming,
    )


def _orders(trainer: "ClassifierTrainer", epochs: range) -> list[NDArray[np.int64]]:
    """Row indices of each epoch, as a sampler of one's own gives them."""
    sampler: Any = trainer._get_train_sampler()
    orders = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        orders.append(np.fromiter(sampler, dtype=np.int64, count=len(sampler)))
    return orders


def _batches(order: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _extrapolate(
    batches: list[NDArray[np.int64]],
    rows: TokenRows,
    step: Callable[[list[dict[str, Any]]], None],
    quantiles: tuple[float, ...],
    takes: int = TAKES,
) -> tuple[float, int]:
    """Seconds for all batches, from those at the quantiles of size; and how many were timed."""
    if not batches:
        return 0.0, 0
    lengths = rows.lengths
    # Padding is computed as tokens are: a batch costs its rows times its longest row.
    tokens = np.array([len(batch) * lengths[batch].max() for batch in batches], dtype=np.float64)
    order = np.argsort(tokens, kind="stable")
    at = np.unique([order[round(quantile * (len(batches) - 1))] for quantile in quantiles])
    step([rows[int(row)] for row in batches[int(order[len(order) // 2])]])  # the first one pays for what is set up once
    seconds = []
    for index in at:
        batch = [rows[int(row)] for row in batches[int(index)]]
        times = []
        for _ in range(takes):
            began = time.perf_counter()
            step(batch)
            times.append(time.perf_counter() - began)
        seconds.append(float(np.median(times)))
    # Batches of one size are one point of the curve.
    sizes, which = np.unique(tokens[at], return_inverse=True)
    means = np.bincount(which, weights=seconds) / np.bincount(which)
    return float(np.interp(tokens, sizes, means).sum()), takes * len(at) + 1


def _training_step(trainer: "ClassifierTrainer", network: Any) -> Callable[[list[dict[str, Any]]], None]:
    import torch

    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args)
    optimizer = kind(parameters, **options)

    def step(batch: list[dict[str, Any]]) -> None:
        network.train()
        inputs: Any = trainer._prepare_inputs(trainer.data_collator(batch))
        with trainer.accelerator.autocast():
            loss = trainer.compute_loss(network, inputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        _finish_queued()

    return step


def _validation_step(trainer: "ClassifierTrainer", network: Any) -> Callable[[list[dict[str, Any]]], None]:
    import torch

    def step(batch: list[dict[str, Any]]) -> None:
        network.eval()
        inputs: Any = trainer._prepare_inputs(trainer.data_collator(batch))
        with torch.no_grad(), trainer.accelerator.autocast():
            trainer.compute_loss(network, inputs)
        _finish_queued()

    return step


def _warm_batches(recipe: Recipe, rows: TokenRows) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Batches as a warm-up learns from them and as it only looks at them, of the lengths that training draws."""
    from .warmup import BATCH, PRETRAIN_ROWS

    benign, attacks = (np.flatnonzero(rows.labels == label) for label in (0, 1))
    learned: list[NDArray[np.int64]] = []
    looked_at: list[NDArray[np.int64]] = []
    if recipe.pretrain:
        shown = recipe.pretrain_rows or min(PRETRAIN_ROWS, len(benign))
        size = min(BATCH, max(1, len(benign)))  # no batch holds a row twice
        learned += [np.tile(batch, 2) for batch in _batches(_spread(rows, benign, shown), size)]
    if recipe.contrastive_rows:
        each = 1 + recipe.contrastive_negatives
        shown = math.ceil(recipe.contrastive_rows / each)
        size = min(max(2, BATCH // each), max(1, len(attacks)))
        anchors = _batches(_spread(rows, attacks, shown), size)
        # The neighbours of attacks of one length are of many: each batch takes some of every length.
        near = _spread(rows, benign, recipe.contrastive_rows - shown)
        learned += [np.concatenate([batch, near[at :: len(anchors)]]) for at, batch in enumerate(anchors)]
        for part, most in ((benign, recipe.contrastive_pool), (attacks, min(recipe.contrastive_pool, shown))):
            looked_at += _batches(_spread(rows, part, min(most, len(part))), BATCH)
    return learned, looked_at


def _spread(rows: TokenRows, positions: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """So many of these positions by rising length, each length as often as training draws it."""
    ordered = positions[np.argsort(rows.lengths[positions], kind="stable")]
    often = (rows.row_weights if rows.draws is None else rows.draws)[ordered].astype(np.float64)
    if not often.sum() > 0:
        return ordered[:0]
    at = np.searchsorted(np.cumsum(often) / often.sum(), (np.arange(n) + 0.5) / n)
    return ordered[np.minimum(at, len(ordered) - 1)]


def _pooling_step(
    trainer: "ClassifierTrainer", network: Any, *, learn: bool = True
) -> Callable[[list[dict[str, Any]]], None]:
    """A step of a warm-up: the encoder alone. What its loss costs is nothing beside that."""
    import torch

    parameters = [parameter for parameter in network.encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters) if parameters else None

    def step(batch: list[dict[str, Any]]) -> None:
        network.train(learn)
        inputs: Any = trainer._prepare_inputs(trainer.data_collator(batch))
        with torch.set_grad_enabled(learn), trainer.accelerator.autocast():
            loss = network.pooled(inputs["input_ids"], inputs["attention_mask"]).float().square().mean()
        if learn and optimizer is not None:
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, trainer.args.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        _finish_queued()

    return step


def _finish_queued() -> None:
    """Wait for the accelerator: it works on while Python already reads the clock."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
