"""Rows that are alike: the greedy choice in blocks against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.mining import rules


@given(st.integers(0, 10**6), st.integers(0, 60), st.floats(0.2, 0.95), st.integers(1, 20))
@settings(deadline=None, max_examples=80)
def test_blocks_give_what_a_plain_loop_gives(seed: int, count: int, alike: float, block: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((count + 5, 3)) + 0.5).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ranked = rng.permutation(count + 5)[:count]
    kept: list[int] = []
    for row in ranked.tolist():
        if all(float(vectors[row] @ vectors[other]) <= alike for other in kept):
            kept.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_BLOCK", block)
        patch.setattr(rules, "_KEPT_BLOCK", 2 * block)
        assert ranked[rules.unlike(vectors, ranked, alike)].tolist() == kept
