"""Patterns: what was planted is found, what is chance is not."""

import numpy as np
import polars as pl
import pytest

from crywolf.train.measure.intervals import Rate
from crywolf.train.measure.patterns import MIN_FLAGGED, SHAPES, find_patterns

NOUNS = ("river", "garden", "station", "letter", "window", "kitchen", "ticket", "harbour", "lamp", "bicycle")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def frame(texts: list[str], flagged: list[bool], language: list[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"text": texts, "flagged": flagged, "language": language or ["en"] * len(texts)})


def ordinary(n: int, seed: int = 0) -> list[str]:
    draw = rng(seed)
    return [f"Where is the {NOUNS[draw.integers(10)]} by the {NOUNS[draw.integers(10)]} number {i}" for i in range(n)]


def planted(extra: list[str], n: int = 300) -> pl.DataFrame:
    texts = ordinary(n)
    return frame([*texts, *extra], [i % 60 == 0 for i in range(n)] + [True] * len(extra))


@pytest.mark.parametrize(
    ("texts", "name", "kind"),
    [
        ([f"You are the {noun} of the house" for noun in NOUNS], 'opens with "you are the"', "opening"),
        ([f"Where did the pirate put the {noun}" for noun in NOUNS], 'holds the word "pirate"', "word"),
        ([f"Where is the {noun} " + "and so on " * 60 for noun in NOUNS], "longer than 500 characters", "length"),
        ([f"Where is the {noun}\n```\nx = 1\n```" for noun in NOUNS], "holds a code block", "shape"),
    ],
)
def test_what_was_planted_is_found_with_its_counts(texts: list[str], name: str, kind: str) -> None:
    found = {one.name: one for one in find_patterns(planted(texts), rng())}
    same = [one for one in found.values() if one.inside == Rate(10, 10) and one.outside == Rate(5, 300)]
    assert same, found
    assert name in found or kind != "opening"
    one = found.get(name, same[0])
    assert one.difference.low > 0
    assert one.share == Rate(10, 15)
    assert one.excess == pytest.approx(10 - 10 * 5 / 300)


def test_other_languages_are_a_pattern_where_they_are_flagged() -> None:
    texts = [*ordinary(200), *(f"Wo ist {noun} Nummer {i}" for i, noun in enumerate(NOUNS))]
    rows = frame(texts, [False] * 200 + [True] * 10, ["en"] * 200 + ["de"] * 10)
    found = find_patterns(rows, rng())
    assert Rate(10, 10) in [one.inside for one in found]
    mixed = rows.with_columns(language=pl.Series(["en"] * 200 + ["de"] * 5 + ["fr"] * 5))
    assert "not English" in {one.name for one in find_patterns(mixed, rng()) if one.kind == "language"}


@pytest.mark.parametrize("seed", range(8))
def test_chance_is_no_pattern(seed: int) -> None:
    rows = frame(ordinary(400, seed), (rng(seed + 100).random(400) < 0.1).tolist())
    assert find_patterns(rows, rng()) == ()


def test_the_counts_are_those_of_a_regular_expression_or_a_split() -> None:
    rows = planted([f"You are\nthe {noun}!" for noun in NOUNS])
    for one in find_patterns(rows, rng()):
        if one.kind == "shape":
            holds = rows["text"].str.contains(dict(SHAPES)[one.name])
        elif one.kind == "word":
            word = one.name.split('"')[1]
            holds = rows["text"].map_elements(
                lambda text, word=word: word in text.lower().replace("!", "").split(), pl.Boolean
            )
        else:
            continue
        assert one.inside == Rate(int((holds & rows["flagged"]).sum()), int(holds.sum()))
        assert one.inside.n + one.outside.n == rows.height


def test_rows_with_the_same_verdict_have_no_pattern() -> None:
    for flagged in (False, True):
        assert find_patterns(frame(ordinary(20), [flagged] * 20), rng()) == ()
    assert find_patterns(frame(ordinary(1), [True]).clear(), rng()) == ()


def test_a_pattern_needs_enough_flagged_rows() -> None:
    texts = ["You are the lamp of the house"] * (MIN_FLAGGED - 1)
    assert all("you are" not in one.name for one in find_patterns(planted(texts), rng()))
