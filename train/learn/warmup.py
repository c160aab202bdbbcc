"""What the encoder learns before the classifier is trained; both steps are off unless the recipe asks for them.

`pretrain` goes on training it on the user's own benign text, without labels; `contrast` draws attacks together and
apart from the benign rows that look most like them. Both take the tokenized training rows and change the network's
encoder in place, by one small loop.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import LABELS, BadInput, CrywolfError

from ..rows.mix import EMBEDDED, GROWN, part_of
from .batches import LengthGroupedSampler, TokenRows, pad
from .losses import ranking_loss, supervised_contrastive_loss
from .recipes import Recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .network import ThreatClassifier

Positions: TypeAlias = NDArray[np.int64]
LossOf: TypeAlias = "Callable[[Tensor, Positions], Tensor]"
"""Pooled vectors of a batch (n, d) and its rows' positions (n,) to a loss."""

BATCH = 64
"""Rows a step, of both steps: what the unsupervised SimCSE of a BERT was trained with."""
TECHNICAL = ("programming", "technical_docs")
"""Categories whose benign rows are the slice `technical`."""
PRETRAIN_ROWS = 10_000
"""Rows that `pretrain` shows at most where the recipe does not say how many."""
PRETRAIN_TEMPERATURE = 0.05
PRETRAIN_DROPOUT = 0.1


@dataclass(frozen=True)
class Warmed:
    """What a step did.

    Attributes:
        name: Of the step.
        rows: Rows shown, each as often as it was.
        losses: The loss of each step, (steps,).
        seconds: Wall time, mining included.
    """

    name: str
    rows: int
    losses: NDArray[np.float64]
    seconds: float

    @property
    def text(self) -> str:
        """One line of log: the losses are means over the first and the last tenth of the steps."""
        tenth = max(1, len(self.losses) // 10)
        first, last = self.losses[:tenth].mean(), self.losses[-tenth:].mean()
        return (
            f"{self.name}: {self.rows:,} rows in {len(self.losses):,} steps, loss {first:.4f} at first, {last:.4f} at "
            f"last, {self.seconds:.0f} s"
        )


@dataclass(frozen=True)
class _Loop:
    """What both steps share."""

    network: "ThreatClassifier"
    rows: TokenRows
    pad_id: int
    bf16: bool
    max_grad_norm: float

    def vectors(self, batch: Positions) -> "Tensor":
        """The pooled vectors that the heads see, (n, d), with a gradient."""
        import torch

        ids, mask = pad([self.rows.input_ids[at] for at in batch], self.pad_id)
        device = next(self.network.parameters()).device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.network.pooled(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)).float()

    def learn(self, batches: Sequence[Positions], loss_of: LossOf, *, learning_rate: float) -> NDArray[np.float64]:
        """Train what is not frozen of the encoder, the learning rate falling in a line to 0; the loss of each step."""
        import torch

        weights = [weight for weight in self.network.encoder.parameters() if weight.requires_grad]
        if not weights:
            raise BadInput("recipe: the whole encoder is frozen, a warm-up has nothing to train; lower freeze_layers")
        optimizer = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / len(batches))
        losses = np.zeros(len(batches))
        self.network.train()
        for step, batch in enumerate(batches):
            loss = loss_of(self.vectors(batch), batch)
            losses[step] = loss.item()
            if not math.isfinite(losses[step]):
                raise CrywolfError(
                    f"the warm-up diverged: the loss is {losses[step]} at step {step + 1}; lower its learning rate or "
                    "set precision to fp32 in the recipe"
                )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(weights, self.max_grad_norm)
            optimizer.step()
            schedule.step()
        optimizer.zero_grad()  # or the classifier's optimiser would start with the last gradient
        return losses


def warm_up(
    network: "ThreatClassifier",
    frame: pl.DataFrame,
    rows: TokenRows,
    *,
    recipe: Recipe,
    pad_id: int,
    seed: int,
    bf16: bool,
    log: Callable[[str], None],
) -> list[Warmed]:
    """Do the steps that a recipe asks for, on an accelerator if there is one; heads and frozen layers stay as they are.

    The caller's random state is left alone: what comes after does not depend on whether this was done or loaded.

    Args:
        network: The classifier, its layers frozen as the recipe wants; changed in place.
        frame: The training rows.
        rows: The same rows tokenized, in the same order; they are drawn as the recipe's epochs draw them.
        recipe: What to do, and how much of it.
        pad_id: The tokenizer's padding token.
        seed: Of what is drawn, of the order, and of dropout.
        bf16: Compute in bfloat16 where that is safe, as training does.
        log: Called with one line a step.

    Raises:
        BadInput: No rows for a step, or an encoder that it cannot train.
        CrywolfError: A loss that is no number.
    """
    import torch

    network.to("cuda" if torch.cuda.is_available() else "cpu")
    loop = _Loop(network, rows, pad_id, bf16, recipe.max_grad_norm)
    steps: dict[str, Callable[..., Warmed]] = {}
    if recipe.pretrain:
        steps["pretrain"] = pretrain
    if recipe.contrastive_rows:
        steps["contrast"] = contrast
    done: list[Warmed] = []
    with torch.random.fork_rng():
        for name, step in steps.items():
            rng = np.random.default_rng([seed, *name.encode()])
            torch.manual_seed(int(rng.integers(2**63 - 1)))
            done.append(step(loop, frame, recipe, rng))
            log(done[-1].text)
    return done


def pretrain(loop: _Loop, frame: pl.DataFrame, recipe: Recipe, rng: np.random.Generator) -> Warmed:
    """Unsupervised SimCSE (Gao et al. 2021) on the user's benign rows: two passes of a row agree, those of two do not.

    Grown rows are left out: the siblings in a batch would count as strangers. So are those that come with the package.
    """
    began = time.perf_counter()
    found = np.flatnonzero(frame.select(_slice(str(recipe.pretrain))).to_series().to_numpy())
    chosen = _draw(found, _often(loop.rows), recipe.pretrain_rows or PRETRAIN_ROWS, rng)
    if len(chosen) < 2:
        known = ", ".join(sorted(frame["category"].drop_nulls().unique())) or "none"
        raise BadInput(
            f"recipe: pretrain {recipe.pretrain!r} finds {len(chosen)} benign rows of your own to train on; "
            f"`technical` takes the categories {' and '.join(TECHNICAL)} (there are: {known}), `benign` takes all"
        )
    shown = recipe.pretrain_rows or len(chosen)
    batches = [chosen[batch] for batch in _batches(loop.rows.lengths[chosen], BATCH, shown, rng)]

    def loss_of(vectors: "Tensor", _: Positions) -> "Tensor":
        once, again = vectors.chunk(2)
        return ranking_loss(once, again, temperature=PRETRAIN_TEMPERATURE)

    # Both passes in one: each row of a batch has a dropout of its own.
    twice = [np.concatenate([batch, batch]) for batch in batches]
    with _dropping(loop.network.encoder, PRETRAIN_DROPOUT):
        losses = loop.learn(twice, loss_of, learning_rate=recipe.pretrain_learning_rate)
    rows = sum(map(len, batches))
    return Warmed(f"pretraining on {recipe.pretrain} text", rows, losses, time.perf_counter() - began)


def contrast(loop: _Loop, frame: pl.DataFrame, recipe: Recipe, rng: np.random.Generator) -> Warmed:
    """Supervised contrastive learning (Khosla et al. 2020) with the hard negatives of each attack in its batch.

    A batch holds attacks of like length and, for each, `contrastive_negatives` benign rows near it, so that these and
    not easy rows are what it must be told from. Rows of one label are each other's positives.
    """
    import torch

    began = time.perf_counter()
    most = recipe.contrastive_pool
    each = 1 + recipe.contrastive_negatives
    shown = math.ceil(recipe.contrastive_rows / each)
    attacks = _draw(np.flatnonzero(loop.rows.labels == 1), _often(loop.rows), min(most, shown), rng)
    pool, marked = _benign_pool(loop.rows, is_hard(frame), most, rng)
    for label, rows in zip(LABELS, (pool, attacks), strict=True):
        if not len(rows):
            raise BadInput(f"recipe: contrastive_rows finds no {label} rows that training would draw")
    near = hard_negatives(_unit_vectors(loop, attacks), _unit_vectors(loop, pool), marked, recipe.contrastive_negatives)
    anchors = _batches(loop.rows.lengths[attacks], max(2, BATCH // each), shown, rng)
    # Attacks may share a neighbour; a row that is its own positive would teach nothing.
    batches = [np.unique(np.concatenate([attacks[batch], pool[near[batch].ravel()]])) for batch in anchors]

    def loss_of(vectors: "Tensor", batch: Positions) -> "Tensor":
        labels = torch.from_numpy(loop.rows.labels[batch]).to(vectors.device)
        return supervised_contrastive_loss(vectors, labels, temperature=recipe.contrastive_temperature)

    losses = loop.learn(batches, loss_of, learning_rate=recipe.contrastive_learning_rate)
    return Warmed("contrastive warm-up", sum(map(len, batches)), losses, time.perf_counter() - began)


def is_hard(frame: pl.DataFrame) -> NDArray[np.bool_]:
    """Which rows, (n,), say of themselves that they are hard negatives: mined ones, and twins of attacks."""
    mined = pl.col("how").str.starts_with("mined:").fill_null(value=False) & _BENIGN
    return np.asarray(frame.select((part_of() == "hard") | mined).to_series().to_numpy(), dtype=np.bool_)


def hard_negatives(
    attacks: NDArray[np.float32], benign: NDArray[np.float32], marked: NDArray[np.bool_], k: int
) -> Positions:
    """The k benign rows, fewer if there are fewer, that stand for what each attack must be told from.

    Half of them, rounded up, are the nearest of those that are marked as hard negatives, the others the nearest of the
    rest: marked rows alone would leave an attack without the neighbours that nobody has mined yet.

    Args:
        attacks: Unit vectors, (n, d).
        benign: Unit vectors, (m, d).
        marked: Which benign rows are known hard negatives, (m,).
        k: How many each attack gets.

    Returns:
        Row numbers of `benign`, (n, min(k, m)), no row twice for one attack.
    """
    from crywolf.mining.index import build_index

    index = build_index(benign)
    known, others = int(marked.sum()), int((~marked).sum())
    rest = min(others, k - min(known, math.ceil(k / 2)))
    return np.hstack([index.search(attacks, k - rest, marked)[1], index.search(attacks, rest, ~marked)[1]])


def pooled_vectors(
    network: "ThreatClassifier", rows: TokenRows, positions: Positions, *, pad_id: int, bf16: bool = False
) -> NDArray[np.float32]:
    """Unit vectors, (n, d), of the rows at these positions: the pooled vector that the heads see, without dropout."""
    return _unit_vectors(_Loop(network, rows, pad_id, bf16, math.inf), positions)


def _unit_vectors(loop: _Loop, positions: Positions) -> NDArray[np.float32]:
    import torch

    order = np.argsort(loop.rows.lengths[positions], kind="stable")
    found: NDArray[np.float32] | None = None
    loop.network.eval()
    with torch.no_grad():
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            part = torch.nn.functional.normalize(loop.vectors(positions[batch]), dim=-1).cpu().numpy()
            if found is None:
                found = np.empty((len(order), part.shape[1]), dtype=np.float32)
            found[batch] = part
    return np.empty((0, 0), dtype=np.float32) if found is None else found


_BENIGN = pl.col("label").cast(pl.String) == LABELS[0]


def _slice(name: str) -> pl.Expr:
    """Which rows a slice of the user's benign text holds."""
    own = ~pl.col("source").is_in([*EMBEDDED, GROWN]).fill_null(value=False) & pl.col("origin_id").is_null()
    benign = _BENIGN & own
    technical = pl.col("category").cast(pl.String).is_in(list(TECHNICAL)).fill_null(value=False)
    return benign & technical if name == "technical" else benign


def _often(rows: TokenRows) -> NDArray[np.float64]:
    """How often an epoch draws each row, up to a factor: weights do what copies would."""
    return rows.row_weights.astype(np.float64) if rows.draws is None else rows.draws


def _draw(positions: Positions, often: NDArray[np.float64], most: int, rng: np.random.Generator) -> Positions:
    """At most so many of the rows that training would draw, each once, the likelier the more often it would."""
    usable = positions[often[positions] > 0]
    if len(usable) <= most:
        return usable
    share = often[usable] / often[usable].sum()
    return np.sort(rng.choice(usable, most, replace=False, p=share))


def _benign_pool(
    rows: TokenRows, hard: NDArray[np.bool_], most: int, rng: np.random.Generator
) -> tuple[Positions, NDArray[np.bool_]]:
    """Benign rows to look for neighbours among, and which are marked; at most half are, if there are others."""
    benign, often = rows.labels == 0, _often(rows)
    others = int((benign & ~hard & (often > 0)).sum())
    known = _draw(np.flatnonzero(benign & hard), often, max(most // 2, most - others), rng)
    rest = _draw(np.flatnonzero(benign & ~hard), often, most - len(known), rng)
    return np.concatenate([known, rest]), np.arange(len(known) + len(rest)) < len(known)


def _batches(lengths: Positions, size: int, rows: int, rng: np.random.Generator) -> list[Positions]:
    """Batches of like length, pass after pass, until so many rows were shown."""
    sampler = LengthGroupedSampler(lengths, size, seed=int(rng.integers(2**32)))
    batches: list[Positions] = []
    for at in range(math.ceil(rows / len(lengths))):
        sampler.set_epoch(at)
        order = np.fromiter(sampler, dtype=np.int64, count=len(lengths))
        batches += [order[start : start + size] for start in range(0, len(order), size)]
    shown = np.cumsum([len(batch) for batch in batches])
    return batches[: int(np.searchsorted(shown, rows)) + 1]


@contextlib.contextmanager
def _dropping(encoder: "nn.Module", share: float) -> Iterator[None]:
    """Another dropout for a while: it alone makes two passes differ, and a recipe may have turned it off."""
    from torch import nn

    layers: list[Any] = [module for module in encoder.modules() if isinstance(module, nn.Dropout)]
    if not layers:
        raise BadInput(f"recipe: pretrain needs dropout, and a {type(encoder).__name__} has none; leave pretrain out")
    before = [layer.p for layer in layers]
    for layer in layers:
        layer.p = share
    try:
        yield
    finally:
        for layer, p in zip(layers, before, strict=True):
            layer.p = p
