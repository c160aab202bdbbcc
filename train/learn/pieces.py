"""What an epoch shows of its rows: most whole, some cut to a window, some joined with a benign neighbour.

Takes tokenized rows and two shares, gives a data set that holds every epoch's pieces one after the other. They are a
pure function of seed and epoch, so a resumed run sees the pieces that the interrupted one would. No text is kept
twice: a piece is one window or two into the rows.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import LengthGroupedSampler, TokenRows, shuffled

SHORTEST = 8
"""Tokens that a window has at least; a text of no more is left whole."""
_PIECES = 1
"""Tells the generator of the pieces from that of the order, which must not depend on them."""
Positions = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows into the rows' tokens, special ones not counted: columns of shape (n,); `stop` is 0 where none is."""

    row: Positions
    start: Positions
    stop: Positions

    @property
    def widths(self) -> Positions:
        """Tokens of each window."""
        return self.stop - self.start


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of all epochs; a map-style data set for torch.

    Attributes:
        rows: What is shown.
        epoch_size: Pieces of an epoch; those of epoch e are at e * epoch_size and on.
        shown: The rows in the order of the draw, each with its window.
        beside: The window of the benign neighbour that a row is joined with.
        beside_first: Whether the neighbour comes first, shape (n,).
    """

    rows: TokenRows
    epoch_size: int
    shown: Windows
    beside: Windows
    beside_first: NDArray[np.bool_]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each piece, special ones included."""
        edges = self.rows.edges
        joint = np.where(self.beside.stop > 0, len(edges.joint), 0)
        around = edges.before + edges.after
        return np.asarray(around + self.shown.widths + joint + self.beside.widths, dtype=np.int64)

    def sampler(self, batch_size: int, seed: int) -> LengthGroupedSampler:
        """Batches of pieces of like length, epoch by epoch."""
        return LengthGroupedSampler(self.lengths, batch_size, seed=seed, epoch_size=self.epoch_size)

    def __len__(self) -> int:
        return len(self.shown.row)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.rows[int(self.shown.row[index])]
        edges, whole = self.rows.edges, item["input_ids"]
        texts = [self._text(self.shown, index)]
        if self.beside.stop[index] > 0:
            texts.insert(0 if self.beside_first[index] else 1, self._text(self.beside, index))
            texts.insert(1, list(edges.joint))
        ids = [*whole[: edges.before], *(token for text in texts for token in text), *whole[len(whole) - edges.after :]]
        if "teacher_margins" in item and ids != whole:
            item["teacher_margins"] = math.nan  # they have read the whole text, not this one: its label stands
        return {**item, "input_ids": ids}

    def _text(self, windows: Windows, index: int) -> list[int]:
        before = self.rows.edges.before
        return self.rows.input_ids[windows.row[index]][before + windows.start[index] : before + windows.stop[index]]


def pieces(rows: TokenRows, *, crop: float, pack: float, epochs: int, seed: int) -> Pieces:
    """The pieces of so many epochs, of the very rows that `rows.sampler` would show.

    A cropped attack may be none, so only BENIGN rows are cut, and of these not those that are benign by their context
    alone (`rows.keep_whole`). A row of either label is joined with a BENIGN one drawn as an epoch draws them: benign
    text beside an attack leaves it an attack. It is the neighbour that is cut to what `max_length` leaves, never the
    row; and it is always a random window, of `SHORTEST` tokens to all that there is room for, so that a text that
    begins in the middle is to be found among the attacks too.

    Args:
        rows: Training rows.
        crop: Share of the BENIGN rows of an epoch that are cut, where they have more than `SHORTEST` tokens.
        pack: Share of all rows of an epoch that are joined, where `max_length` leaves room for `SHORTEST` tokens.
        epochs: How many epochs there are.
        seed: The training's.
    """
    texts = rows.lengths - rows.edges.before - rows.edges.after
    parts = [_of_epoch(rows, texts, crop, pack, (seed, epoch)) for epoch in range(epochs)]
    shown, beside, first = zip(*parts, strict=True)
    return Pieces(rows, len(first[0]), _concatenated(shown), _concatenated(beside), np.concatenate(first))


def _of_epoch(
    rows: TokenRows, texts: NDArray[np.int64], crop: float, pack: float, key: tuple[int, int]
) -> tuple[Windows, Windows, NDArray[np.bool_]]:
    order = shuffled(len(rows), rows.draws, np.random.default_rng(key))
    rng = np.random.default_rng((*key, _PIECES))
    may_be_cut = rows.labels == 0
    if rows.keep_whole is not None:
        may_be_cut &= ~rows.keep_whole
    n, stop = len(order), texts[order]
    start = np.zeros_like(stop)
    cut = (rng.random(n) < crop) & may_be_cut[order] & (stop > SHORTEST)
    start[cut], stop[cut] = _windows(stop[cut], stop[cut] - 1, rng)
    room = rows.edges.most - rows.edges.before - rows.edges.after - len(rows.edges.joint) - (stop - start)
    joined = (rng.random(n) < pack) & (room >= SHORTEST)
    beside = np.zeros((3, n), dtype=np.int64)
    chance = np.where(may_be_cut & (texts > 0), 1.0 if rows.draws is None else rows.draws, 0.0)
    if joined.any() and chance.sum() > 0:
        neighbours = rng.choice(len(rows), int(joined.sum()), p=chance / chance.sum())
        beside[:, joined] = neighbours, *_windows(texts[neighbours], room[joined], rng)
    return _as_windows(order, start, stop), _as_windows(*beside), rng.random(n) < 0.5


def _windows(
    texts: NDArray[np.int64], most: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and stop of a random window of each text: any width from `SHORTEST` to `most`, then any place."""
    widest = np.minimum(texts, most)
    width = rng.integers(np.minimum(SHORTEST, widest), widest, endpoint=True)
    start = rng.integers(0, texts - width, endpoint=True)
    return start, start + width


def _as_windows(*columns: NDArray[np.int64]) -> Windows:
    row, start, stop = (column.astype(np.int32) for column in columns)
    return Windows(row, start, stop)


def _concatenated(windows: tuple[Windows, ...]) -> Windows:
    return Windows(*(np.concatenate([getattr(part, name) for part in windows]) for name in ("row", "start", "stop")))
