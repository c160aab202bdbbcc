"""Every threshold of mining in one frozen object, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crywolf.data import BadInput


@dataclass(frozen=True)
class MineConfig:
    """Every threshold of mining; similarities are cosines of the encoder's unit vectors.

    The defaults were set on all-MiniLM-L6-v2 by reading what they select and by benchmarks/mining; another encoder
    has another scale.

    Attributes:
        neighbours: How many of its nearest benign rows each attack proposes.
        fp_neighbours: How many of its nearest benign rows each false positive proposes.
        min_similarity: A benign row less similar than this to every attack is easy, and stays out.
        fp_similarity: The same towards false positives, for the rows that these propose.
        proposed_margin: A row that an attack proposes is easy all the same, and stays out, if that attack is more than
            this much less similar than the row's own kind, the mean of its nearest other benign rows.
        benign_margin: The same for rows that no attack proposes, and towards the FP for rows that one proposes.
        own_neighbours: How many nearest rows of the same class make up a row's own kind, for benign rows and attacks.
        guard_similarity: From here up to an attack a "benign" row goes to review whatever else holds.
        guard_margin: A row goes to review if it is as similar to an attack as the attack's own kind is, less this ...
        guard_floor: ... and at least this similar: an attack without kin has a far-off own kind.
        foreign_margin: A row that is this much more similar to an attack than to its own kind goes to review: it
            stands among the attacks. False positives do so by nature and are spared this one rule.
        alike: A row this similar to one already selected adds nothing, and stays out.
        per_neighbourhood: How many rows the same attack or false positive may bring in: rows of many
            neighbourhoods say more than many rows of one.
        limit: At most this many rows in all, the hardest first; None for no limit.
        wanted: With fewer rows than this the result says which option to change.
        pool: Look at this many benign rows, drawn at random; None looks at all.
        duplicate_threshold: The Jaccard similarity of near-duplicates.
    """

    neighbours: int = 5
    fp_neighbours: int = 5
    min_similarity: float = 0.35
    fp_similarity: float = 0.60
    proposed_margin: float = 0.25
    benign_margin: float = 0.10
    own_neighbours: int = 3
    guard_similarity: float = 0.80
    guard_margin: float = 0.05
    guard_floor: float = 0.60
    foreign_margin: float = 0.15
    alike: float = 0.90
    per_neighbourhood: int = 3
    limit: int | None = None
    wanted: int = 100
    pool: int | None = None
    duplicate_threshold: float = 0.8

    def __post_init__(self) -> None:
        for name in ("neighbours", "own_neighbours", "per_neighbourhood"):
            _check(name, getattr(self, name), low=1)
        for name in ("fp_neighbours", "wanted"):
            _check(name, getattr(self, name), low=0)
        for name in ("limit", "pool"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), low=1)
        for name in ("min_similarity", "fp_similarity", "guard_similarity", "guard_floor", "alike"):
            _check(name, getattr(self, name), low=-1.0, high=1.0)
        for name in ("proposed_margin", "benign_margin", "guard_margin", "foreign_margin"):
            _check(name, getattr(self, name), low=-2.0, high=2.0)
        if self.guard_similarity <= self.min_similarity:
            raise BadInput(
                f"guard_similarity {self.guard_similarity} is not above min_similarity {self.min_similarity}: every "
                "row near an attack would go to review and none be selected; raise the one or lower the other"
            )


def _check(name: str, value: float, *, low: float, high: float = math.inf) -> None:
    if not low <= value <= high:
        raise BadInput(
            f"mining option {name} is {value}; it must be at least {low}" + f" and at most {high}" * (high < math.inf)
        )
