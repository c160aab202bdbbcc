"""Distillation's teachers: trained models whose verdicts a student learns from beside the labels (Hinton et al. 2015).

Takes model folders and tokenized rows, gives the rows with the mean of the teachers' margins, so that an ensemble comes
to be one model (arXiv 1503.02531, section 2). Only rows that a training will draw are scored, and only once: the
margins lie beside the checkpoints for a run that goes on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, atomic_path

from .batches import TokenRows
from .model import WEIGHTS, TrainedModel, read_meta, verify

TEACHERS = "teachers.parquet"
"""The teachers' mean margins by row id, beside the checkpoints."""


def teacher_hashes(folders: Sequence[Path]) -> tuple[str, ...]:
    """SHA-256 of the weights of each model folder, in hex, once its files have been checked.

    Raises:
        BadInput: There is no model folder at one of the paths.
        CorruptPackage: One holds a file that is not the one that was saved.
    """
    found = []
    for folder in folders:
        meta = read_meta(folder)
        verify(folder, meta)
        found.append(str(meta["sha256"][WEIGHTS]))
    return tuple(found)


def check_teachers(folders: Sequence[Path], distill: float) -> None:
    """Refuse teachers that nothing is learned from, and a lesson without teachers, as BadInput."""
    if distill and not folders:
        raise BadInput(f"fit: distill is {distill:g}, but there are no teachers; name trained model folders")
    if folders and not distill:
        raise BadInput(f"fit: there are {len(folders)} teachers, but distill is 0: nothing would be learned from them")


def drawn_rows(rows: TokenRows, *, epochs: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Positions, ascending, of the rows that any of so many epochs shows: all of them unless rows are drawn."""
    sampler = rows.sampler(batch_size, seed)
    shown = np.zeros(len(rows), dtype=np.bool_)
    for epoch in range(epochs if rows.draws is not None else 1):
        sampler.set_epoch(epoch)
        shown[np.fromiter(sampler, dtype=np.int64, count=len(sampler))] = True
    return np.flatnonzero(shown)


def mean_margins(folders: Sequence[Path], texts: Sequence[str]) -> NDArray[np.float32]:
    """Mean over the models of each text's margin (log odds of MALICIOUS, not calibrated), shape (n,).

    Raises:
        BadInput: One of them gives a margin that is no finite number; it is named.
    """
    total = np.zeros(len(texts), dtype=np.float64)
    for folder in folders:  # one in memory at a time
        margins = TrainedModel.load(folder).margins(texts)
        if not np.isfinite(margins).all():
            raise BadInput(f"{folder}: gives scores that are no numbers; it cannot teach")
        total += margins
    return (total / len(folders)).astype(np.float32)


def taught(
    rows: TokenRows,
    frame: pl.DataFrame,
    folders: Sequence[Path],
    *,
    at: NDArray[np.int64],
    kept: Path,
    log: Callable[[str], None],
) -> TokenRows:
    """The rows with the teachers' mean margins, NaN where a row is not scored.

    Args:
        rows: Training rows.
        frame: The same rows as text, in the same order.
        folders: The teachers.
        at: Positions of the rows to score, shape (k,).
        kept: Where the margins are kept; what lies there is taken if it is of these very rows in this order.
        log: Called with one line.
    """
    ids = frame["id"][at]
    margins = _read(kept, ids)
    if margins is None:
        began = time.perf_counter()
        margins = mean_margins(folders, frame["text"][at].to_list())
        with atomic_path(kept, force=True) as temporary:
            pl.DataFrame({"id": ids, "margin": margins}).write_parquet(temporary)
        log(f"teachers: {len(folders)} scored {len(at):,} rows each in {time.perf_counter() - began:.0f} s")
    else:
        log(f"teachers: {len(at):,} rows scored before, read back")
    found = np.full(len(rows), np.nan, dtype=np.float32)
    found[at] = margins
    return replace(rows, teacher_margins=found)


def _read(kept: Path, ids: pl.Series) -> NDArray[np.float32] | None:
    """The margins in a file, or None unless it is whole and of these rows."""
    if not kept.is_file():
        return None
    try:
        table = pl.read_parquet(kept)
    except (OSError, pl.exceptions.PolarsError):
        return None
    if table.schema != {"id": pl.String, "margin": pl.Float32} or table["id"].to_list() != ids.to_list():
        return None
    margins = table["margin"].to_numpy()
    return margins if np.isfinite(margins).all() else None
