"""What the feedback loop has seen: every report and every row trained on, asked without reading them again.

Takes a store and gives the near-duplicate index that lies beside it, brought up to the store's reports. The index is
derived: lost or damaged, it is made again.
"""

from collections.abc import Container, Mapping
from pathlib import Path

import polars as pl

from crywolf.augment.dedup import THRESHOLD, NearIndex
from crywolf.data import BadInput

from .store import Store


def known_path(store: Store) -> Path:
    """Return where the index of a store lies."""
    return store.path.with_name(f"{store.path.name}.near.npz")


def open_known(store: Store) -> NearIndex:
    """Return the index of a store's reports and of what earlier rounds were trained on."""
    try:
        known = NearIndex.load(known_path(store))
    except BadInput:
        known = NearIndex()
    if known.threshold != THRESHOLD:
        known = NearIndex()
    if any(id_ not in known for id_ in store.statuses()):
        known.add(store.frame())
    return known


def nearest_of(known: NearIndex, frame: pl.DataFrame, among: Container[str]) -> pl.DataFrame:
    """Return the rows of a frame that are, or nearly repeat, a known text whose id is among those given.

    Returns:
        ``id``, ``match_id`` and ``jaccard`` of the nearest, one row for each row of the frame that has any.
    """
    found = known.query(frame["text"].to_list())
    ids = frame["id"].gather(found["position"]).alias("id")
    found = found.with_columns(ids)
    found = found.filter(pl.Series([match in among for match in found["match_id"].to_list()], dtype=pl.Boolean))
    return found.unique("position", keep="first", maintain_order=True).select("id", "match_id", "jaccard")


def repeats(known: NearIndex, statuses: Mapping[str, str], fresh: pl.DataFrame) -> pl.DataFrame:
    """Return the fresh reports that nearly repeat something known, with a column `note` that says what.

    Args:
        known: the index.
        statuses: of the store's reports, by id; what else the index knows was trained on.
        fresh: reports that the store does not have yet.
    """
    found = nearest_of(known, fresh, known)
    notes = [
        f"nearly repeats {_what(statuses.get(match))}: {match}, Jaccard {near:.2f}"
        for match, near in zip(found["match_id"].to_list(), found["jaccard"].to_list(), strict=True)
    ]
    return found.select("id").with_columns(note=pl.Series(notes, dtype=pl.String))


def _what(status: str | None) -> str:
    return "a row trained on" if status is None else f"a report that is {status}"
