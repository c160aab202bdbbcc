"""From texts to what is compared: shingle hashes, datasketch's MinHash signatures, band keys; all columnar.

It takes folded texts and hashes every shingle of many texts at once, in pieces that stay in the cache, then runs each
permutation over a whole piece. The signatures are those of datasketch's ``MinHash(scheme="affine32")`` to the bit, so
its indexes take them; the exact Jaccard of pairs comes from the same hashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import BadInput, Progress

SHINGLE = 5  # characters in a shingle; a shorter text is its own only shingle
THRESHOLD = 0.8
NUM_PERM = 128
SEED = 1
_TARGET_RECALL = 0.999999  # of pairs exactly at the threshold; above it the miss rate falls steeply
_FILTER_SIGMAS = 6.0  # a signature this many standard deviations under the threshold is not worth an exact check
_PIECE = 1 << 16  # characters hashed and signed at once: a permutation's work stays in the second-level cache
_PAIRS = 1 << 16  # pairs of signatures compared at once, to bound memory
_LOCAL = 256  # pairs compared exactly together: a pair's number takes the 8 bits of a word that a 56-bit hash leaves
_HASH_BITS = np.uint64(56)
_ONE = np.uint64(1)
_FEW = 4096  # words that are sorted before polars has begun

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Hashes = NDArray[np.uint64]


def fold(text: str) -> str:
    """Return the text as shingling sees it: lower case, every run of white space one blank, none at the ends."""
    return " ".join(text.lower().split())


def shingles(text: str) -> frozenset[str]:
    """Return the distinct 5-grams of the folded text; a folded text shorter than 5 characters is its own shingle."""
    folded = fold(text)
    if len(folded) < SHINGLE:
        return frozenset((folded,))
    return frozenset(folded[i : i + SHINGLE] for i in range(len(folded) - SHINGLE + 1))


def jaccard(a: str, b: str) -> float:
    """Return the exact Jaccard similarity of two texts' shingles: the definition that everything here is held to."""
    left, right = shingles(a), shingles(b)
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


@lru_cache(maxsize=32)
def banding(threshold: float, num_perm: int = NUM_PERM) -> tuple[int, int]:
    """Return (bands, rows per band): the most selective that lose at most a millionth of the pairs at the threshold.

    At 0.8 and 128 permutations that is 32 bands of 4 rows, which miss a pair at 0.8 about 5 times in 100 million. A
    threshold too low for that gets one-row bands, the best there is.
    """
    for rows in range(num_perm // 2, 1, -1):
        bands = num_perm // rows
        if 1.0 - (1.0 - threshold**rows) ** bands >= _TARGET_RECALL:
            return bands, rows
    return num_perm, 1


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is no Jaccard similarity above 0.

    Raises:
        BadInput: it is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise BadInput(f"dedup threshold {threshold}: must be above 0 and at most 1 (0.8 is this project's meaning)")


def unique(folded: Sequence[str]) -> tuple[list[str], Ints]:
    """Return the distinct texts in order of first appearance, and each text's number among them."""
    numbers: dict[str, int] = {}
    inverse = np.fromiter((numbers.setdefault(text, len(numbers)) for text in folded), np.int64, count=len(folded))
    return list(numbers), inverse


def sorted_words(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return 64-bit words ascending.

    By polars: numpy sorts with AVX-512 where the processor has it, which on AMD's is several times slower.
    """
    if len(words) < _FEW:
        return np.sort(words)
    return pl.Series(words).sort(multithreaded=False).to_numpy()


# ------------------------------------------------------------------------------------------------------------ shingles


@lru_cache(maxsize=1)
def _multipliers() -> Hashes:
    """Return fixed odd 64-bit multipliers: one for each character of a shingle, then one salt for each short length."""
    generator = np.random.Generator(np.random.PCG64(0x5EED))
    return generator.integers(0, 1 << 63, size=2 * SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


def _lengths(folded: Sequence[str]) -> Ints:
    return np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))


def _pieces(sizes: Ints, budget: int, most: int | None = None) -> Iterator[slice]:
    """Cut rows into slices of about `budget` in total size and at most `most` rows; a larger row is alone."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + budget, side="right")), start + 1)
        if most is not None:
            stop = min(stop, start + most)
        yield slice(start, stop)
        start = stop


def _hash_piece(folded: Sequence[str], lengths: Ints) -> tuple[Hashes, Ints]:
    """Hash all shingles of some texts at once: (56-bit hashes one text after another, row offsets).

    The hash is a random linear form over the five code points, so two different shingles collide about once in 2**55;
    texts under five characters are padded and salted by their length, so that they equal only themselves.
    """
    padded = np.maximum(lengths, SHINGLE)
    short = np.flatnonzero(lengths < SHINGLE)
    joined = "".join(text.ljust(SHINGLE, "\0") for text in folded) if len(short) else "".join(folded)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    multipliers = _multipliers()
    windows = max(len(points) - SHINGLE + 1, 0)
    hashes = points[:windows] * multipliers[0]
    term = np.empty_like(hashes)
    for offset in range(1, SHINGLE):
        np.multiply(points[offset : offset + windows], multipliers[offset], out=term)
        hashes += term
    # The four windows behind a text's last one reach over its end.
    ends = np.cumsum(padded)
    within = np.ones(windows, dtype=bool)
    for behind in range(1, SHINGLE):
        within[(ends - behind)[:-1]] = False
    hashes = hashes[within]
    indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(padded - SHINGLE + 1)])
    hashes[indptr[short]] += multipliers[SHINGLE + lengths[short]]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    hashes >>= np.uint64(8)
    return hashes, indptr


def hash_shingles(folded: Sequence[str]) -> tuple[Hashes, Ints]:
    """Return the 56-bit hashes of every shingle of every folded text, repeats included, and the row offsets."""
    lengths = _lengths(folded)
    hashes, indptr = [np.empty(0, dtype=np.uint64)], [np.zeros(1, dtype=np.int64)]
    for part in _pieces(lengths, _PIECE):
        own, offsets = _hash_piece(folded[part], lengths[part])
        hashes.append(own)
        indptr.append(indptr[-1][-1] + offsets[1:])
    return np.concatenate(hashes), np.concatenate(indptr)


def signed_hashes(hashes: Hashes) -> NDArray[np.uint32]:
    """Return the 32 bits of each shingle hash, the best mixed ones, that MinHash is given."""
    return (hashes >> np.uint64(24)).astype(np.uint32)


def pair_jaccards(left: Sequence[str], right: Sequence[str]) -> Floats:
    """Return the exact Jaccard similarity of left[i] and right[i], folded texts, for every i."""
    near = np.empty(len(left), dtype=np.float64)
    for part in _pieces(_lengths(left) + _lengths(right), _PIECE, _LOCAL):
        near[part] = _compare([text for pair in zip(left[part], right[part], strict=True) for text in pair])
    return near


def _compare(folded: Sequence[str]) -> Floats:
    """Return the exact Jaccard similarity of texts 0 and 1, 2 and 3, and so on; at most 256 pairs."""
    hashes, indptr = _hash_piece(folded, _lengths(folded))
    rows = np.arange(len(folded), dtype=np.uint64)
    # One sort for all: the pair leads, then the shingle, then which of the two it is from.
    marks = ((rows >> _ONE) << _HASH_BITS) | (rows & _ONE)
    words = sorted_words((hashes & ~_ONE) | np.repeat(marks, np.diff(indptr)))
    words = words[np.concatenate([[True], words[1:] != words[:-1]])]
    shingle = words >> _ONE
    twice = words[1:][shingle[1:] == shingle[:-1]]  # a shingle of both stands twice, side by side
    pairs = len(folded) // 2
    both = np.bincount((words >> _HASH_BITS).astype(np.int64), minlength=pairs)
    shared = np.bincount((twice >> _HASH_BITS).astype(np.int64), minlength=pairs)
    return np.asarray(shared / (both - shared), dtype=np.float64)


# ---------------------------------------------------------------------------------------------------------- signatures


@lru_cache(maxsize=8)
def _permutations(seed: int, num_perm: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return datasketch's multipliers and increments for a seed, drawn as it draws them: no need to import it here."""
    generator = np.random.RandomState(seed)  # the generator that datasketch uses
    a = generator.randint(0, 1 << 31, num_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, generator.randint(0, 1 << 32, num_perm, dtype=np.uint32)


def _mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Apply MurmurHash3's 32-bit finalizer, with which datasketch mixes its input before the permutations."""
    mixed = values ^ (values >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _sign(values: NDArray[np.uint32], indptr: Ints, seed: int, num_perm: int) -> NDArray[np.uint32]:
    """Return the minimum over each row of every permutation of its values, (permutations, rows); no row is empty."""
    a, b = _permutations(seed, num_perm)
    mixed = _mixed(values)
    permuted = np.empty_like(mixed)
    out = np.empty((num_perm, len(indptr) - 1), dtype=np.uint32)
    for number in range(num_perm):
        # The wrap-around of 32-bit arithmetic is the modulo of the scheme.
        np.multiply(mixed, a[number], out=permuted)
        np.add(permuted, b[number], out=permuted)
        np.minimum.reduceat(permuted, indptr[:-1], out=out[number])
    return out


def minhash_signatures(
    values: NDArray[np.uint32], indptr: Ints, *, seed: int = SEED, num_perm: int = NUM_PERM
) -> NDArray[np.uint32]:
    """Return MinHash signatures, one row each, equal to datasketch 2's ``scheme="affine32"`` to the bit.

    Args:
        values: 32-bit hashes of all rows' members, one row after another.
        indptr: Where each row begins, and the end of the last; a row without members gets datasketch's empty signature.
        seed: MinHash's seed.
        num_perm: MinHash's number of permutations.
    """
    out = np.full((len(indptr) - 1, num_perm), np.uint32(0xFFFFFFFF), dtype=np.uint32)
    filled = np.flatnonzero(np.diff(indptr))  # reduceat would give an empty row its neighbour's value
    for part in _pieces(np.diff(indptr)[filled], _PIECE):
        rows = filled[part]
        first, last = int(indptr[rows[0]]), int(indptr[rows[-1] + 1])
        offsets = np.append(indptr[rows], last) - first
        out[rows] = _sign(values[first:last], offsets, seed, num_perm).T
    return out


def sign(
    folded: Sequence[str], *, seed: int = SEED, num_perm: int = NUM_PERM, progress: Progress | None = None
) -> NDArray[np.uint32]:
    """Return the MinHash signatures of folded texts, one row a text."""
    out = np.empty((len(folded), num_perm), dtype=np.uint32)
    for part, signed in _signed(folded, _lengths(folded), seed, num_perm, progress):
        out[part] = signed.T
    return out


def _signed(
    folded: Sequence[str], lengths: Ints, seed: int, num_perm: int, progress: Progress | None
) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
    """Yield (rows, their signatures as (permutations, rows)), a piece at a time."""
    for part in _pieces(lengths, _PIECE):
        hashes, indptr = _hash_piece(folded[part], lengths[part])
        yield part, _sign(signed_hashes(hashes), indptr, seed, num_perm)
        if progress is not None:
            progress(part.stop, len(folded))
    if progress is not None and not len(folded):
        progress(0, 0)


@lru_cache(maxsize=8)
def band_weights(rows: int, seed: int) -> Hashes:
    """Return the odd 64-bit weights of a band's linear form."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.integers(0, 1 << 63, size=rows, dtype=np.uint64) | np.uint64(1)


def band_keys(signatures: NDArray[np.uint32], rows: int, seed: int = SEED) -> NDArray[np.uint32]:
    """Return the 32-bit bucket of each text in each band of `rows` values, (bands, texts).

    Signatures are (permutations, texts). The key is the high half of a random linear form of the band's values: a
    chance collision costs one comparison.
    """
    weights = band_weights(rows, seed)
    bands = len(signatures) // rows
    cut = signatures[: bands * rows].reshape(bands, rows, -1)
    keys: Hashes = cut[:, 0].astype(np.uint64) * weights[0]
    for row in range(1, rows):
        keys += cut[:, row].astype(np.uint64) * weights[row]
    return (keys >> np.uint64(32)).astype(np.uint32)


# ------------------------------------------------------------------------------------------------------------ sketches


@dataclass(frozen=True)
class Sketches:
    """What the comparison of texts needs: the folded texts, one-byte signatures, and a 32-bit key for each band.

    Shingles are hashed again for the few texts that are compared exactly: keeping them all would take eight bytes a
    character.
    """

    folded: Sequence[str]
    lengths: Ints
    low: NDArray[np.uint8]  # (texts, permutations): the last byte of every signature value
    bands: NDArray[np.uint32]  # (bands, texts)
    threshold: float

    def only(self, rows: Ints) -> Sketches:
        """Return the sketches of some rows, in the order given."""
        folded = [self.folded[row] for row in rows.tolist()]
        return Sketches(folded, self.lengths[rows], self.low[rows], self.bands[:, rows], self.threshold)

    def likely(self, a: Ints, b: Ints) -> Ints:
        """Return which pairs the signatures do not rule out, as positions in a and b.

        A one-byte signature only ever overestimates; a pair at the threshold is ruled out once in 100 million.
        """
        spread = (self.threshold * (1.0 - self.threshold) / NUM_PERM) ** 0.5
        floor = (self.threshold - _FILTER_SIGMAS * spread) * NUM_PERM
        found = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(a), _PAIRS):
            part = slice(start, start + _PAIRS)
            equal = self.low[a[part]] == self.low[b[part]]
            eight = equal.view(np.uint64).sum(axis=1)  # eight counters of at most 16 in a word
            # The product's highest byte is the sum of the eight, 128 at most.
            found.append(start + np.flatnonzero((eight * np.uint64(0x0101010101010101)) >> _HASH_BITS >= floor))
        return np.concatenate(found)

    def exact(self, a: Ints, b: Ints) -> Floats:
        """Return the exact Jaccard similarity of each pair."""
        left, right = ([self.folded[row] for row in rows.tolist()] for rows in (a, b))
        return pair_jaccards(left, right)

    def verify(self, a: Ints, b: Ints) -> tuple[Ints, Floats]:
        """Return which of the pairs are near-duplicates, as positions in a and b, and their exact similarity."""
        hit = self.likely(a, b)
        near = self.exact(a[hit], b[hit])
        enough = near >= self.threshold
        return hit[enough], near[enough]


def sketch(folded: Sequence[str], threshold: float, *, seed: int = SEED, progress: Progress | None = None) -> Sketches:
    """Sketch folded texts: hash, sign, cut the signatures into bands."""
    lengths = _lengths(folded)
    low = np.empty((len(folded), NUM_PERM), dtype=np.uint8)
    bands, rows = banding(threshold)
    keys = np.empty((bands, len(folded)), dtype=np.uint32)
    for part, signed in _signed(folded, lengths, seed, NUM_PERM, progress):
        low[part] = signed.astype(np.uint8).T
        keys[:, part] = band_keys(signed, rows, seed)
    return Sketches(folded, lengths, low, keys, threshold)
