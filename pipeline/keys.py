"""What the key of a step is made of: short digests that stand for frames, detectors, and the data in this package.

A digest is the same on every machine and says nothing of what a prompt holds.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl

from crywolf.data import file_hash
from crywolf.data.embedded.templates import FOLDER

_NOT_GROWN_FROM = ("breadth", "demo", "suites")
"""Embedded data that no growth draws on: it is trained on, played with, measured on."""
_BLOCK = 20_000


def digest(frame: pl.DataFrame, columns: Sequence[str] | None = None) -> str:
    """Return 16 hex digits over the values of a frame's columns (all if not given), in the order of its rows."""
    made = hashlib.blake2b(digest_size=8)
    chosen = frame if columns is None else frame.select(columns)
    for block in chosen.iter_slices(_BLOCK):  # a corpus as text in one piece would double the memory
        made.update(block.write_ndjson().encode())
    return made.hexdigest()


def detector_digest(spec: str | Path | None) -> str | None:
    """Return what a DETECTOR is known by: the hash of a package's manifest, of an ensemble's file, or its name.

    An ensemble's is followed by those of the packages in it. A URL and a function are not looked into; None where there
    is no detector.

    Raises:
        BadInput: an ensemble's file cannot be read.
    """
    from crywolf.export.package import MANIFEST
    from crywolf.export.voting import member_packages

    if spec is None:
        return None
    if members := member_packages(spec):
        return " ".join([file_hash(spec), *(file_hash(folder / MANIFEST) for _, folder in members)])
    for path in (Path(spec) / MANIFEST, Path(spec)):
        if path.is_file():
            return file_hash(path)
    return str(spec)


@cache
def embedded_digest() -> str:
    """Return 16 hex digits over the data that comes with this package and that growth draws on."""
    folder = FOLDER.parent
    made = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.yaml")):
        place = path.relative_to(folder)
        if place.parts[0] not in _NOT_GROWN_FROM:
            made.update(f"{place.as_posix()}\0{file_hash(path)}\n".encode())
    return made.hexdigest()
