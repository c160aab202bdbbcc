"""The incremental index: which known texts does a new one nearly repeat, without reading the known ones again.

It takes frames with ``id`` and ``text``, keeps folded texts and MinHash signatures behind a datasketch ``MinHashLSH``,
and gives for new texts the known ids and the exact Jaccard. At rest it is one file of plain arrays without pickles:
loading it sorts band keys and inserts nothing one by one.
"""

from __future__ import annotations

import json
import struct
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress, atomic_path

from .frames import need_columns
from .sketch import (
    NUM_PERM,
    SEED,
    SHINGLE,
    THRESHOLD,
    Floats,
    Ints,
    band_keys,
    band_weights,
    banding,
    check_threshold,
    fold,
    pair_jaccards,
    sign,
    sorted_words,
)

FORMAT = "crywolf near-duplicate index"
VERSION = 1
_ARRAYS = ("about", "ids", "id_ends", "texts", "text_ends", "signatures")
_SHELVE = 2048  # rows added one by one; more, and the sorted arrays are made anew
MATCHES = {"position": pl.Int64, "match_id": pl.String, "jaccard": pl.Float64}


class NearIndex:
    """A set of known texts that can be asked, added to, saved and loaded.

    Args:
        threshold: The least exact Jaccard of a near-duplicate.
        seed: Chooses the MinHash permutations.
    """

    def __init__(self, *, threshold: float = THRESHOLD, seed: int = SEED) -> None:
        check_threshold(threshold)
        self.threshold = threshold
        self.seed = seed
        self._rows: dict[str, int] = {}
        self._folded: list[str] = []
        self._signatures = np.empty((0, NUM_PERM), dtype=np.uint32)
        self._lsh = _lsh(self._signatures, threshold, seed)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._rows

    @property
    def ids(self) -> list[str]:
        """The ids of the known texts, in the order in which they came."""
        return list(self._rows)

    def add(self, frame: pl.DataFrame, *, progress: Progress | None = None) -> int:
        """Add the rows of a frame whose ids are not known yet; return how many there were.

        Raises:
            BadInput: the frame lacks an id or a text.
        """
        need_columns(frame, "the frame to index")
        new = frame.select("id", "text").unique("id", keep="first", maintain_order=True)
        new = new.filter(~pl.col("id").is_in(self.ids))
        if new.is_empty():
            return 0
        folded = [fold(text) for text in new["text"].to_list()]
        signatures = sign(folded, seed=self.seed, progress=progress)
        start = len(self)
        self._rows.update(zip(new["id"].to_list(), range(start, start + len(folded)), strict=True))
        self._folded += folded
        self._signatures = np.concatenate([self._signatures, signatures])
        if len(folded) > _SHELVE:
            self._lsh = _lsh(self._signatures, self.threshold, self.seed)
        else:
            for row, minhash in enumerate(_minhashes(signatures, self.seed), start):
                self._lsh.insert(row, minhash)
        return len(folded)

    def query(self, texts: Sequence[str]) -> pl.DataFrame:
        """Return every known text that each of the texts nearly repeats.

        Returns:
            ``position`` in texts, ``match_id``, ``jaccard`` (exact); the nearest first for each position, of equally
            near ones the one that has been known longer.
        """
        folded = [fold(text) for text in texts]
        asked, rows = self._candidates(folded)
        near: Floats = pair_jaccards(
            [folded[position] for position in asked.tolist()], [self._folded[row] for row in rows.tolist()]
        )
        hit = near >= self.threshold
        asked, rows, near = asked[hit], rows[hit], near[hit]
        order = np.lexsort((rows, -near, asked))
        ids = self.ids
        return pl.DataFrame(
            {
                "position": asked[order],
                "match_id": [ids[row] for row in rows[order].tolist()],
                "jaccard": near[order],
            },
            schema=MATCHES,
        )

    def _candidates(self, folded: Sequence[str]) -> tuple[Ints, Ints]:
        """Return (position, known row) of what the signatures put into one bucket."""
        if not len(self):
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        # One text after another: that is how datasketch's index is asked. Reports come in hundreds.
        found = [self._lsh.query(minhash) for minhash in _minhashes(sign(folded, seed=self.seed), self.seed)]
        asked = np.repeat(np.arange(len(found), dtype=np.int64), [len(rows) for rows in found])
        return asked, np.fromiter((row for rows in found for row in rows), dtype=np.int64, count=len(asked))

    # ------------------------------------------------------------------------------------------------------- at rest

    def save(self, path: Path | str) -> Path:
        """Write the index to one file in one step: a reader sees the old one or the new one, never a half.

        Raises:
            BadInput: the file cannot be written.
        """
        about = {
            "format": FORMAT,
            "version": VERSION,
            "scheme": "affine32",
            "shingle": SHINGLE,
            "num_perm": NUM_PERM,
            "seed": self.seed,
            "threshold": self.threshold,
            "rows": len(self),
        }
        ids, id_ends = _packed(self.ids)
        texts, text_ends = _packed(self._folded)
        arrays: dict[str, Any] = {
            "about": np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            "ids": ids,
            "id_ends": id_ends,
            "texts": texts,
            "text_ends": text_ends,
            "signatures": self._signatures,
        }
        with atomic_path(path, force=True) as target, target.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: Path | str) -> NearIndex:
        """Read an index that `save` wrote.

        Raises:
            BadInput: the file is missing, damaged, no such index, of another version, or made with other parameters.
        """
        path = Path(path)
        arrays = _read(path)
        about = _about(arrays["about"], path)
        try:
            index = cls(threshold=about["threshold"], seed=about["seed"])
            ids, folded = (_unpacked(arrays[name], arrays[ends]) for name, ends in _TEXTS)
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise BadInput(f"{path}: the near-duplicate index is damaged ({error}); {_AGAIN}") from error
        rows = dict(zip(ids, range(len(ids)), strict=True))
        signatures = arrays["signatures"]
        fits = signatures.dtype == np.uint32 and signatures.shape == (len(ids), NUM_PERM)
        if not (fits and len(rows) == len(ids) == len(folded) == about.get("rows")):
            raise BadInput(f"{path}: the near-duplicate index is damaged (its parts do not fit together); {_AGAIN}")
        index._rows, index._folded, index._signatures = rows, folded, signatures
        index._lsh = _lsh(signatures, index.threshold, index.seed)
        return index


_TEXTS = (("ids", "id_ends"), ("texts", "text_ends"))
_AGAIN = "delete it, and it is made again from the texts"


def _packed(texts: Sequence[str]) -> tuple[NDArray[np.uint8], Ints]:
    """Return texts as one array of bytes and the end of each."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def _unpacked(packed: NDArray[Any], ends: NDArray[Any]) -> list[str]:
    """Return the texts of `_packed`.

    Raises:
        ValueError: the ends do not fit the bytes, or these are no UTF-8.
    """
    if packed.dtype != np.uint8 or ends.dtype != np.int64 or packed.ndim != 1 or ends.ndim != 1:
        raise ValueError("its texts have another type")
    starts = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    if (np.diff(starts) < 0).any() or starts[-1] != len(packed):
        raise ValueError("its texts do not fit their lengths")
    data, cuts = packed.tobytes(), starts.tolist()
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(cuts)]


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file; the zip's checksums are held against every byte of them.

    Raises:
        BadInput: it cannot be read, or is no such file.
    """
    if not path.is_file():
        raise BadInput(f"{path}: there is no near-duplicate index")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename: entry for entry in archive.infolist()}
        # What is stored as it is cannot blow up in memory.
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in members.values()):
            raise ValueError("its parts are compressed")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: np.asarray(loaded[name]) for name in _ARRAYS}
    except (OSError, EOFError, ValueError, KeyError, SyntaxError, zipfile.BadZipFile, NotImplementedError) as error:
        raise BadInput(f"{path}: no near-duplicate index, or a damaged one ({error}); {_AGAIN}") from error


def _about(packed: NDArray[Any], path: Path) -> dict[str, Any]:
    """Return the parameters of a file.

    Raises:
        BadInput: they are not those that this version works with.
    """
    try:
        about = json.loads(packed.tobytes())
    except ValueError as error:
        raise BadInput(f"{path}: no near-duplicate index ({error}); {_AGAIN}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BadInput(f"{path}: no near-duplicate index")
    expected = {"version": VERSION, "scheme": "affine32", "shingle": SHINGLE, "num_perm": NUM_PERM}
    seed = about.get("seed")
    if not isinstance(seed, int) or not 0 <= seed < 1 << 32:
        raise BadInput(f"{path}: the near-duplicate index is damaged (seed {seed!r}); {_AGAIN}")
    for name, value in expected.items():
        if about.get(name) != value:
            raise BadInput(
                f"{path}: the near-duplicate index was made with {name} {about.get(name)!r}, this version needs "
                f"{value!r}; {_AGAIN}"
            )
    return about


# ----------------------------------------------------------------------------------------------------- datasketch's LSH


def _minhashes(signatures: NDArray[np.uint32], seed: int) -> list[Any]:
    """Return datasketch's objects of signatures."""
    from datasketch import MinHash

    permutations = MinHash(num_perm=NUM_PERM, seed=seed, scheme="affine32").permutations
    return [MinHash(seed=seed, hashvalues=row, permutations=permutations, scheme="affine32") for row in signatures]


def _lsh(signatures: NDArray[np.uint32], threshold: float, seed: int) -> Any:
    """Return a ``MinHashLSH`` of our banding that holds the rows of signatures under their numbers.

    Inserting 236,000 rows in 32 bands makes seven million sets, some gigabytes of them; here each band's table has
    these rows in two sorted arrays and only what is inserted later in datasketch's own dictionary.
    """
    from datasketch import MinHashLSH

    bands, rows = banding(threshold, NUM_PERM)
    lsh = MinHashLSH(num_perm=NUM_PERM, params=(bands, rows))
    if len(signatures):
        shelf = _shelf_class()
        keys = band_keys(np.ascontiguousarray(signatures.T), rows, seed)
        for band in range(bands):
            part = signatures[:, band * rows : (band + 1) * rows]
            lsh.hashtables[band] = shelf(keys[band], part, seed)
    return lsh


def _shelf_class() -> Any:
    """Return the class of a band's table; made here, since its base class is datasketch's."""
    from datasketch.storage import DictSetStorage

    class Shelf(DictSetStorage):
        """One band's buckets: rows at rest in sorted arrays, rows inserted later in datasketch's dictionary."""

        def __init__(self, keys: NDArray[np.uint32], values: NDArray[np.uint32], seed: int) -> None:
            super().__init__({"type": "dict"})
            words = sorted_words((keys.astype(np.uint64) << np.uint64(32)) | np.arange(len(keys), dtype=np.uint64))
            self._keys = (words >> np.uint64(32)).astype(np.uint32).data
            self._order = words.astype(np.uint32)
            self._values = values
            self._weights = band_weights(values.shape[1], seed).tolist()
            self._form = struct.Struct(f">{values.shape[1]}I")  # datasketch names a bucket by its values, big-endian

        def get(self, key: bytes) -> set[int]:
            """Return the rows whose band values are those of the key."""
            later: set[int] = super().get(key)
            wanted = self._form.unpack(key)
            # In plain integers, since a numpy call on four numbers takes longer than all of this.
            word = (sum(map(mul, wanted, self._weights)) & 0xFFFFFFFFFFFFFFFF) >> 32
            low = bisect_left(self._keys, word)
            if low == len(self._keys) or self._keys[low] != word:
                return later
            rows = self._order[low : bisect_right(self._keys, word, low)]
            return later.union(rows[(self._values[rows] == wanted).all(axis=1)].tolist())

    return Shelf
