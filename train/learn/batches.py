"""Rows to batches: tokenizing, padding and the order of training.

Takes a contract frame and a tokenizer and gives a torch data set, a collator and a sampler that groups prompts of like
length. The order is a pure function of seed and epoch, so a resumed run sees the rows that the interrupted one would.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import LABELS

from ..rows.mix import Mix, drawn, draws, part_of
from .losses import IGNORE


@dataclass(frozen=True)
class Edges:
    """What a tokenizer puts around a text and between two, and how much it lets through.

    Attributes:
        before: Special tokens before a text.
        after: Special tokens after it.
        joint: Tokens of a line break between two texts; none where the tokenizer drops white space.
        most: The most tokens of a row, special ones included.
    """

    before: int
    after: int
    joint: tuple[int, ...]
    most: int

    @classmethod
    def of(cls, tokenizer: Any) -> "Edges":
        """Those of a `tokenizers.Tokenizer` with truncation set."""
        special = tokenizer.encode("a").special_tokens_mask
        joint = tuple(tokenizer.encode("\n", add_special_tokens=False).ids)
        return cls(special.index(0), special[::-1].index(0), joint, int(tokenizer.truncation["max_length"]))


@dataclass(frozen=True)
class TokenRows:
    """Tokenized rows; a map-style data set for torch."""

    input_ids: list[list[int]]
    labels: NDArray[np.int64]
    threat_labels: NDArray[np.int64]
    row_weights: NDArray[np.float32]
    draws: NDArray[np.float64] | None = None
    """Expected draws an epoch, where rows are drawn by a mix: a weight then says how often, not how dear."""
    edges: Edges = field(default=Edges(0, 0, (), 0), kw_only=True)
    keep_whole: NDArray[np.bool_] | None = field(default=None, kw_only=True)
    """Hard negatives: often an attack quoted, and benign by the text around it alone."""
    teacher_margins: NDArray[np.float32] | None = field(default=None, kw_only=True)
    """What the teachers of a distillation say of each row, as log odds; NaN where a row has its label alone."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.fromiter((len(ids) for ids in self.input_ids), dtype=np.int64, count=len(self.input_ids))

    def sampler(self, batch_size: int, seed: int) -> "LengthGroupedSampler":
        """Batches of rows of like length, epoch by epoch."""
        return LengthGroupedSampler(self.lengths, batch_size, seed=seed, draws=self.draws)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {
            "input_ids": self.input_ids[index],
            "labels": int(self.labels[index]),
            "threat_labels": int(self.threat_labels[index]),
            "row_weights": float(self.row_weights[index]),
        }
        if self.teacher_margins is not None:
            item["teacher_margins"] = float(self.teacher_margins[index])
        return item


def tokenize_rows(
    frame: pl.DataFrame,
    tokenizer: Any,
    threat_types: Sequence[str],
    *,
    mix: Mix | None = None,
    epoch_rows: int | None = None,
) -> TokenRows:
    """Token ids, labels, threat-type targets and weights of a contract frame, in its order.

    Args:
        frame: Contract rows.
        tokenizer: A `tokenizers.Tokenizer` with truncation set and padding off.
        threat_types: The types of the threat head, in its order.
        mix: Draw the rows of an epoch by these shares; None takes every row once.
        epoch_rows: How many rows a drawn epoch has; None as many as there are.
    """
    encoded = tokenizer.encode_batch(frame["text"].to_list())
    label = frame["label"].cast(pl.String)
    types = {name: index for index, name in enumerate(threat_types)}
    threat = frame["threat_type"].cast(pl.String).replace_strict(types, default=IGNORE, return_dtype=pl.Int64)
    labels = (label == LABELS[1]).cast(pl.Int64).to_numpy()
    return TokenRows(
        input_ids=[item.ids for item in encoded],
        labels=labels,
        # An FP carries the type it was taken for; it is benign, and teaches the threat head nothing.
        threat_labels=np.where(labels == 1, threat.fill_null(IGNORE).to_numpy(), IGNORE),
        row_weights=(
            frame["weight"].cast(pl.Float32).fill_null(1.0).to_numpy()
            if mix is None
            else np.ones(frame.height, dtype=np.float32)
        ),
        draws=None if mix is None else draws(frame, mix, epoch_rows or frame.height),
        edges=Edges.of(tokenizer),
        keep_whole=frame.select(part_of() == "hard").to_series().to_numpy(),
    )


@dataclass(frozen=True)
class Collator:
    """Pads a list of rows to the longest of them."""

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Tensors of a batch."""
        import torch

        ids, mask = pad([row["input_ids"] for row in rows], self.pad_id)
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.int64),
            "threat_labels": torch.tensor([row["threat_labels"] for row in rows], dtype=torch.int64),
            "row_weights": torch.tensor([row["row_weights"] for row in rows], dtype=torch.float32),
        }
        if "teacher_margins" in rows[0]:
            margins = [row["teacher_margins"] for row in rows]
            batch["teacher_margins"] = torch.tensor(margins, dtype=torch.float32)
        return batch


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids padded on the right to the longest row, and the attention mask."""
    width = max((len(row) for row in rows), default=1) or 1
    ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for index, row in enumerate(rows):  # rows are ragged: there is no array to slice
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def shuffled(rows: int, draws: NDArray[np.float64] | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """The rows of an epoch in random order: drawn as often as expected, or each of them once."""
    return rng.permutation(rows if draws is None else drawn(draws, round(float(draws.sum())), rng))


class LengthGroupedSampler:
    """Row indices such that each slice of `batch_size` holds prompts of like length, the slices in random order.

    With `draws` an epoch is drawn by them anew each time; else it is every row once, or, with `epoch_size`, the next so
    many of them: `lengths` then holds all epochs one after the other. Rows are shuffled, cut into pools of
    `pool_batches` batches, sorted by length within each pool, and the batches of all pools are shuffled again: sorted
    order alone would show the model all long prompts first, and attacks are long.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        batch_size: int,
        *,
        seed: int,
        pool_batches: int = 50,
        draws: NDArray[np.float64] | None = None,
        epoch_size: int | None = None,
    ) -> None:
        self.lengths = lengths
        self.draws = draws
        self.epoch_size = epoch_size
        self.batch_size = batch_size
        self.seed = seed
        self.pool_batches = pool_batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch; called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.draws is not None:
            return round(float(self.draws.sum()))
        return self.epoch_size or len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch))
        n, size = len(self), self.batch_size
        # Small sets get at least four pools, or every epoch would have the same batches.
        pool = size * max(1, min(self.pool_batches, n // (size * 4)))
        order = shuffled(n, self.draws, rng) + (self.epoch_size or 0) * self.epoch
        pooled = [order[start : start + pool] for start in range(0, n, pool)]
        ordered = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in pooled])
        full = n // size
        batches = [ordered[start * size : (start + 1) * size] for start in rng.permutation(full)]
        # The short last batch stays last: a short one in the middle would shift every slice behind it.
        return iter(np.concatenate([*batches, ordered[full * size :]]).tolist())
