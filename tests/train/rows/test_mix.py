"""The mix: shares are kept whatever the numbers of rows, and no source drowns another."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus
from crywolf.train import Recipe
from crywolf.train.rows.mix import Mix, drawn, draws, evened, part_of


def rows(*groups: tuple[int, str, str, str | None, str | None]) -> pl.DataFrame:
    """Rows of (number, label, source, category, origin)."""
    return make_corpus(
        [
            {"text": f"{place} {i} {label}", "label": label, "source": source, "category": kind, "origin_id": origin}
            for place, (n, label, source, kind, origin) in enumerate(groups)
            for i in range(n)
        ]
    )


EVERY = (
    (2, "BENIGN", "tickets", None, None),
    (2, "MALICIOUS", "games", None, None),
    (2, "BENIGN", "augmented", "generic_variation", "a" * 16),
    (2, "MALICIOUS", "augmented", None, "b" * 16),
    (2, "BENIGN", "curated", "hard_negative", "c" * 16),
    (2, "BENIGN", "breadth", "creative", None),
    (2, "MALICIOUS", "seed", None, None),
)


def test_each_row_has_its_part() -> None:
    frame = rows(*EVERY)
    found = frame.select(part_of()).to_series().unique(maintain_order=True).to_list()
    assert set(found) == set(Mix().shares)


def test_parts_get_their_shares_whatever_their_sizes() -> None:
    frame = rows((900, "BENIGN", "tickets", None, None), (9, "MALICIOUS", "games", None, None))
    mix = Mix(original_benign=0.5, original_malicious=0.25)
    expected = draws(frame, mix, 300)
    malicious = (frame["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    assert expected.sum() == pytest.approx(300)
    assert expected[malicious].sum() == pytest.approx(100)


def test_sources_weigh_by_the_power_of_their_size() -> None:
    frame = rows((100, "BENIGN", "large", None, None), (4, "BENIGN", "small", None, None))
    large = (frame["source"] == "large").to_numpy()
    for power, share in ((1.0, 100 / 104), (0.5, 10 / 12), (0.0, 0.5)):
        assert draws(frame, Mix(source_power=power), 60)[large].sum() == pytest.approx(60 * share)


def test_a_row_of_double_weight_is_drawn_twice_as_often() -> None:
    frame = rows((2, "BENIGN", "tickets", None, None)).with_columns(weight=pl.Series([1.0, 2.0], dtype=pl.Float32))
    one, other = draws(frame, Mix(), 30)
    assert other == pytest.approx(2 * one)


ENGLISH = "Please write a short letter to my landlord about the broken heating in the kitchen, number {}."
GERMAN = "Bitte schreibe einen kurzen Brief an meinen Vermieter über die kaputte Heizung in der Küche, Nummer {}."
SPANISH = "Por favor, escribe una carta breve a mi casero sobre la calefacción rota de la cocina, número {}."


def in_languages(**groups: tuple[int, int, int]) -> pl.DataFrame:
    """Rows of a label: how many in English, German and Spanish, each source holding all of its label."""
    return make_corpus(
        [
            {"text": f"{label} {language.format(i)}", "label": label, "source": f"the {label}"}
            for label, numbers in groups.items()
            for n, language in zip(numbers, (ENGLISH, GERMAN, SPANISH), strict=True)
            for i in range(n)
        ]
    )


def shares_of(frame: pl.DataFrame, power: float) -> dict[tuple[str, str], float]:
    """The share of its label's draws that each language has, by its first word."""
    word = frame["text"].str.split(" ").list.get(1)
    table = frame.select(pl.col("label").cast(pl.String)).with_columns(
        word=word, draws=pl.Series(draws(frame, Mix(language_power=power), 300))
    )
    found = table.group_by("label", "word").agg(pl.col("draws").sum())
    found = found.with_columns(pl.col("draws") / pl.col("draws").sum().over("label"))
    return {(label, language): share for label, language, share in found.rows()}


def test_no_language_marks_a_label_at_language_power_0() -> None:
    frame = in_languages(BENIGN=(30, 8, 2), MALICIOUS=(4, 8, 8))
    before, after = shares_of(frame, 1.0), shares_of(frame, 0.0)
    assert before["BENIGN", "Bitte"] == pytest.approx(0.2)
    for word, share in (("Please", (0.75 + 0.2) / 2), ("Bitte", (0.2 + 0.4) / 2), ("Por", (0.05 + 0.4) / 2)):
        assert after["BENIGN", word] == pytest.approx(share)
        assert after["MALICIOUS", word] == pytest.approx(share)


def test_language_power_is_that_of_the_odds_a_language_gives() -> None:
    frame = in_languages(BENIGN=(30, 8, 2), MALICIOUS=(4, 8, 8))
    before, after = shares_of(frame, 1.0), shares_of(frame, 0.5)

    def odds(shares: dict[tuple[str, str], float], word: str) -> float:
        return shares["BENIGN", word] / shares["MALICIOUS", word]

    for one, other in (("Please", "Bitte"), ("Bitte", "Por")):
        expected = (odds(before, one) / odds(before, other)) ** 0.5
        assert odds(after, one) / odds(after, other) == pytest.approx(expected)


def test_labels_and_rows_keep_their_weight_when_languages_are_evened() -> None:
    frame = in_languages(BENIGN=(30, 8, 2), MALICIOUS=(4, 8, 0))
    frame = frame.with_columns(weight=pl.when(pl.col("text").str.contains("[02468]\\.$")).then(2.0).otherwise(1.0))
    frame = frame.with_columns(weight=pl.col("weight").cast(pl.Float32))
    plain, even = draws(frame, Mix(), 300), draws(frame, Mix(language_power=0.25), 300)
    malicious = (frame["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    assert even[malicious].sum() == pytest.approx(plain[malicious].sum())
    assert even.sum() == pytest.approx(300)
    alike = frame["text"].str.starts_with("BENIGN Bitte").to_numpy()
    ratio = even[alike] / plain[alike]
    assert plain[alike].max() == pytest.approx(2 * plain[alike].min())
    assert ratio == pytest.approx(np.full(len(ratio), ratio[0]))


def test_evening_languages_leaves_rows_of_one_label_and_rows_that_are_not_drawn_as_they_are() -> None:
    frame = in_languages(BENIGN=(6, 2, 1))
    assert draws(frame, Mix(language_power=0.0), 90) == pytest.approx(draws(frame, Mix(), 90))
    both = in_languages(BENIGN=(6, 2, 1), MALICIOUS=(1, 1, 1))
    expected = draws(both, Mix(original_malicious=0.0, language_power=0.0), 90)
    assert (expected[-3:] == 0).all()
    assert expected.sum() == pytest.approx(90)


@given(
    st.lists(st.tuples(st.floats(0.01, 5.0), st.booleans(), st.sampled_from(["en", "de", "und"])), min_size=1),
    st.floats(0.0, 1.0),
)
def test_evening_keeps_the_draws_of_each_label(rows: list[tuple[float, bool, str]], power: float) -> None:
    expected, malicious = np.array([row[0] for row in rows]), pl.Series([row[1] for row in rows])
    found = evened(expected, malicious, pl.Series([row[2] for row in rows]), power)
    for label in (True, False):
        of_label = (malicious == label).to_numpy()
        assert found[of_label].sum() == pytest.approx(expected[of_label].sum())
    assert (found > 0).all()


def test_shares_that_are_all_zero_for_the_rows_there_are_are_refused() -> None:
    with pytest.raises(BadInput, match="original_benign"):
        draws(rows((2, "BENIGN", "tickets", None, None)), Mix(original_benign=0.0), 10)


@pytest.mark.parametrize(
    "shares", [{"hard": -0.1}, {"hard": 1.5}, {"hard": "much"}, {"source_power": 2.0}, {"language_power": -1}]
)
def test_a_share_that_cannot_be_used_is_refused(shares: dict) -> None:
    with pytest.raises(BadInput, match=next(iter(shares))):
        Mix(**shares)


def test_a_recipe_names_a_part_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="original_benign"):
        Recipe.from_mapping({"mix": {"orignal_benign": 0.5}})
    assert Recipe.from_mapping({"mix": {"hard": 0.2}}).mix == Mix(hard=0.2)


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60), st.integers(0, 2**32 - 1))
def test_whole_draws_are_sure_and_the_rest_comes_at_most_once(expected: Sequence[float], seed: int) -> None:
    weights = np.array(expected)
    n = int(weights.sum())
    if not n:
        return
    scaled = weights * n / weights.sum()
    counts = np.bincount(drawn(scaled, n, np.random.default_rng(seed)), minlength=len(scaled))
    assert counts.sum() == n
    assert (counts >= np.floor(scaled - 1e-6)).all()
    assert (counts <= np.ceil(scaled + 1e-6)).all()
