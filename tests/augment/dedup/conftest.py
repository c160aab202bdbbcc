"""What the deduplication tests share: frames, brute force, and texts around the threshold."""

import itertools
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from crywolf.augment.dedup import shingles


def _frame(texts: list[str], prefix: str = "r", **columns: list[str | None]) -> pl.DataFrame:
    ids = [f"{prefix}{i}" for i in range(len(texts))]
    return pl.DataFrame(
        {"id": ids, "text": texts, **columns}, schema=dict.fromkeys(("id", "text", *columns), pl.String)
    )


def _brute_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    found = {}
    sets = [shingles(text) for text in texts]
    for a, b in itertools.combinations(range(len(texts)), 2):
        shared = len(sets[a] & sets[b])
        near = shared / (len(sets[a]) + len(sets[b]) - shared)
        if near >= threshold:
            found[(a, b)] = near
    return found


def _siblings(rng: np.random.Generator, families: int, each: int, length: int = 40) -> list[str]:
    """Families of texts around the threshold: each member changes one or two words of a long sentence."""
    vocabulary = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(400)]
    out = []
    for _ in range(families):
        base = list(rng.choice(vocabulary, length))
        for _ in range(each):
            own = list(base)
            for place in rng.integers(0, length, size=rng.integers(0, 6)):
                own[place] = str(rng.choice(vocabulary))
            out.append(" ".join(own))
    rng.shuffle(out)
    return [str(text) for text in out]


# Of the session, since hypothesis calls a test many times with the same fixtures.
@pytest.fixture(scope="session")
def frame() -> Callable[..., pl.DataFrame]:
    return _frame


@pytest.fixture(scope="session")
def brute_pairs() -> Callable[[list[str], float], dict[tuple[int, int], float]]:
    return _brute_pairs


@pytest.fixture(scope="session")
def siblings() -> Callable[..., list[str]]:
    return _siblings
