"""What a threshold is chosen by, said in one line: an FP bound, a recall bound, or a cost.

Takes lines such as `fp 1%`, `recall 98%` and `cost 1:20 at 1%` (a false positive costs 1, a missed attack 20, and 1% of
the traffic are attacks) and gives a `Target`, which prints itself in words for cards and reports.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from crywolf.data import BadInput

_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_BOUND = re.compile(rf"(fp|recall)\s*(?:<=|>=)?\s*{_NUMBER}\s*(%?)")
_COST = re.compile(rf"cost\s+{_NUMBER}\s*:\s*{_NUMBER}\s+at\s+{_NUMBER}\s*(%?)")
_HELP = "say `fp 1%`, `recall 98%`, or `cost 1:20 at 1%` (of a false positive : of a missed attack, share of attacks)"


@dataclass(frozen=True)
class Target:
    """What a threshold must reach.

    Attributes:
        kind: `fp` flags at most a share of benign rows, `recall` catches at least a share of attacks, `cost` makes the
            mistakes as cheap as they can be.
        bound: The share, for `fp` and `recall`.
        fp_cost: What one false positive costs, in any unit; for `cost`, as are the next two.
        miss_cost: What one missed attack costs, in the same unit.
        prevalence: The share of the traffic that is attacks.
    """

    kind: Literal["fp", "recall", "cost"]
    bound: float = math.nan
    fp_cost: float = math.nan
    miss_cost: float = math.nan
    prevalence: float = math.nan

    def __post_init__(self) -> None:
        if self.kind == "cost":
            if not (self.fp_cost > 0 and self.miss_cost > 0 and math.isfinite(self.fp_cost + self.miss_cost)):
                raise BadInput(f"target: costs {self.fp_cost:g}:{self.miss_cost:g} must be finite and above 0")
            if not 0 < self.prevalence < 1:
                raise BadInput(f"target: a share of attacks of {self.prevalence:g}; it must lie between 0 and 1")
        elif not (0 <= self.bound < 1 if self.kind == "fp" else 0 < self.bound <= 1):
            raise BadInput(
                f"target: {self.kind} {self.bound:g}; give a share, from 0 and below 1 for fp, above 0 for recall"
            )

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Read a target as a recipe says it; BadInput with the ways to say one."""
        line = text.strip().lower()
        if found := _BOUND.fullmatch(line):
            share = _share(found[2], found[3])
            return cls("fp", bound=share) if found[1] == "fp" else cls("recall", bound=share)
        if found := _COST.fullmatch(line):
            share = _share(found[3], found[4])
            return cls("cost", fp_cost=float(found[1]), miss_cost=float(found[2]), prevalence=share)
        raise BadInput(f"target {text!r}: {_HELP}")

    @property
    def text(self) -> str:
        """For people."""
        if self.kind == "fp":
            return f"FP rate at most {100 * self.bound:g}%"
        if self.kind == "recall":
            return f"recall at least {100 * self.bound:g}%"
        return (
            f"lowest cost, a false positive at {self.fp_cost:g} against a missed attack at {self.miss_cost:g}, "
            f"{100 * self.prevalence:g}% attacks"
        )

    def cost(self, fp_rate: float, recall: float) -> float:
        """What the mistakes cost in the mean, a prompt; for a `cost` target only."""
        return (1 - self.prevalence) * self.fp_cost * fp_rate + self.prevalence * self.miss_cost * (1 - recall)


def _share(number: str, percent: str) -> float:
    return float(number) / 100 if percent else float(number)
