"""Which words carried a verdict: the shortest stretch of a flagged prompt that the model's score hangs on.

Takes a text and its log-odds as a callable, asks for it again with parts left out (occlusion, Zeiler and Fergus 2014),
at most `MAX_RUNS` times, and gives a `Span`. It explains the model's arithmetic, not the author's intent.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

MAX_RUNS: Final = 24
"""Runs of the model that an explanation may cost."""
SEGMENTS: Final = 6
"""Stretches that a text is first cut into."""
KEEP: Final = 0.8
"""Share of its weight that a stretch must keep as it is narrowed."""

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Words; of scripts without spaces two letters, of endless strings (base64) forty.
_PIECE = re.compile(rf"[{_CJK}]{{1,2}}|[^\s{_CJK}]{{1,40}}")

LogOdds = Callable[[str], float]
"""A text's log-odds of being malicious, after calibration."""


@dataclass(frozen=True)
class Span:
    """The stretch that carried a verdict.

    Attributes:
        start: Its first character in the prompt.
        end: One past its last.
        text: The stretch itself.
        weight: By how much the log-odds fall without it; 0 for a stretch that a rule met.
        turned: Whether the prompt is no longer flagged without it; where not, the rest would have been enough.
        runs: Runs of the model that it took to find it.
    """

    start: int
    end: int
    text: str
    weight: float
    turned: bool
    runs: int

    def to_dict(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "weight": round(self.weight, 4),
            "turned": self.turned,
            "runs": self.runs,
        }


class _Asker:
    """Counts what it asks."""

    def __init__(self, log_odds: LogOdds, most: int) -> None:
        self._log_odds, self._most, self.runs = log_odds, most, 0

    @property
    def left(self) -> int:
        return self._most - self.runs

    def __call__(self, text: str) -> float:
        self.runs += 1
        return self._log_odds(text)


def find_span(text: str, log_odds: LogOdds, threshold: float, *, max_runs: int = MAX_RUNS) -> Span | None:
    """Find the stretch of a flagged text that its verdict hangs on.

    The text is cut into a few stretches, and each is left out in turn; where the rest is flagged without any one of
    them, so are neighbours together. The one that the score misses most is then narrowed from both sides, as long as
    leaving it out costs nearly as much. Stretches are never judged alone: a fragment is no prompt, and a model says
    anything of it.

    Args:
        text: What the model read of the prompt.
        log_odds: The model.
        threshold: Log-odds from which a text is flagged.
        max_runs: Runs that it may cost, more than `SEGMENTS`.

    Returns:
        None where the text holds no words.
    """
    places = [match.span() for match in _PIECE.finditer(text)]
    if not places:
        return None
    ask = _Asker(log_odds, max_runs)
    whole = ask(text)

    def weigh(stretches: list[tuple[int, int]]) -> dict[tuple[int, int], float]:
        return {cut: without(*cut) for cut in stretches[: max(ask.left, 0)]}

    def without(first: int, last: int) -> float:
        return whole - ask(_left_out(text, places[first][0], places[last - 1][1]))

    cuts = _segments(text, places)
    weights = weigh(cuts)
    if whole - max(weights.values()) >= threshold and len(cuts) > 2:
        # No stretch alone decides: two neighbours may.
        weights |= weigh([(one[0], other[1]) for one, other in pairwise(cuts)])
    best = max(weights, key=lambda cut: weights[cut])
    (first, last), weight = _narrow(best, weights[best], without, ask)
    start, end = places[first][0], places[last - 1][1]
    return Span(start, end, text[start:end], weight, whole - weight < threshold, ask.runs)


def _narrow(
    cut: tuple[int, int], weight: float, measure: Callable[[int, int], float], ask: _Asker
) -> tuple[tuple[int, int], float]:
    """Take words off both ends, half a stretch at first, as long as the rest keeps its weight and runs are left."""
    floor = KEEP * weight
    step = (cut[1] - cut[0]) // 2
    while step and ask.left and floor > 0:
        for shorter in _shortened(cut, step):
            if not ask.left:
                break
            found = measure(*shorter)
            if found >= floor:
                cut, weight = shorter, found
                break
        else:
            step //= 2
            continue
        step = min(step, (cut[1] - cut[0]) // 2)
    return cut, weight


def _shortened(cut: tuple[int, int], step: int) -> Iterator[tuple[int, int]]:
    first, last = cut
    if last - first > step:
        yield first, last - step
        yield first + step, last


def _segments(text: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut the words into up to `SEGMENTS` stretches, at the end of a line or sentence where one is near."""
    count = min(SEGMENTS, max(1, len(places) // 2)) if len(places) > 3 else len(places)
    size = len(places) / count
    cuts = [0]
    for number in range(1, count):
        wanted, reach = round(number * size), round(0.35 * size)
        near = range(max(cuts[-1] + 1, wanted - reach), min(len(places), wanted + reach + 1))
        ends = [at for at in near if _ends(text, places, at)]
        at = min(ends, key=lambda at: abs(at - wanted)) if ends else wanted
        if cuts[-1] < at < len(places):
            cuts.append(at)
    return list(zip(cuts, [*cuts[1:], len(places)], strict=True))


def _ends(text: str, places: list[tuple[int, int]], at: int) -> bool:
    """Whether a line or sentence ends before this word."""
    before, after = places[at - 1], places[at]
    return text[before[1] - 1] in ".!?。！？:;" or "\n" in text[before[1] : after[0]]


def _left_out(text: str, start: int, end: int) -> str:
    before, after = text[:start].rstrip(" "), text[end:].lstrip(" ")
    return f"{before} {after}".strip() if before and after else (before or after) or " "
