"""This project's generator, asked the way a user asks it: the false positives, the attacks, the detector, holdouts."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from world import LABEL, Score, World

from crywolf.augment import GrowConfig, grow


@dataclass(frozen=True)
class Asked:
    """The base detector as `grow` asks it."""

    score: Score
    threshold: float


def grow_samples(
    world: World, score: Score, threshold: float, *, n: int, seed: int, config: GrowConfig | None = None
) -> pl.DataFrame:
    """Grow exactly `n` samples of the false positives (twins and attacks in use count), or all there are."""
    per_fp = max(int(np.ceil(n / max(world.fps.height, 1))), 1)
    config = config or GrowConfig(per_fp=per_fp, seed=seed)
    result = grow(
        world.fps,
        config=config,
        encode=world.session.encode,
        malicious=world.split.train.filter(LABEL == "MALICIOUS"),
        against=[("train", world.split.train)],
        holdouts=[("validation", world.split.validation), *world.benign.items(), *world.attacks.items()],
        rng=np.random.default_rng(seed),
        detector=Asked(score, threshold),
    )
    order = np.random.default_rng([seed, 3]).permutation(result.frame.height)[:n]
    return result.frame[np.sort(order)]
