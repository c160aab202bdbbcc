"""A tiny encoder and rows that it can learn, so that real trainings take a second."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crywolf.data import make_corpus
from crywolf.train import Recipe

COMMON = ("please", "can", "you", "how", "do", "i", "the", "a", "my", "in", "with", "this", "of", "to", "explain")
CALM = ("python", "list", "sort", "recipe", "history", "kill", "process", "garden", "letter", "budget")
HOSTILE = ("ignore", "previous", "instructions", "reveal", "system", "prompt", "jailbreak", "secrets", "bypass")


@pytest.fixture(scope="session")
def tiny_encoder(make_encoder: Callable[[Sequence[str]], Path]) -> Path:
    """A BERT of two layers and 32 dimensions that knows the words of `make_rows`."""
    return make_encoder([*COMMON, *CALM, *HOSTILE])


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., pl.DataFrame]:
    """Contract rows: benign ones of calm words, malicious ones with hostile words and a threat type."""

    def make(n: int, seed: int, malicious: float = 0.4) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        rows = []
        for index in range(n):
            hostile = rng.random() < malicious
            words = [*rng.choice(COMMON, int(rng.integers(2, 12))), *rng.choice(HOSTILE if hostile else CALM, 4)]
            rows.append(
                {
                    "text": " ".join(rng.permutation(words)) + f" {'xyz'[index % 3] * (seed % 7 + 1)}",
                    "label": "MALICIOUS" if hostile else "BENIGN",
                    "threat_type": ("context_manipulation", "unknown")[index % 2] if hostile else None,
                    "source": "original",
                }
            )
        return make_corpus(rows).unique("id", keep="first", maintain_order=True)

    return make


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Three epochs at a learning rate that a tiny encoder needs."""
    return Recipe(name="tiny", epochs=3, batch_size=8, learning_rate=3e-3, warmup_steps=2, max_length=32, patience=0)
