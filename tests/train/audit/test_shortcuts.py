"""A planted shortcut is flagged and says what to do; where both labels look alike nothing is."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from crywolf.data import make_corpus
from crywolf.train.audit.config import AuditConfig
from crywolf.train.audit.ranking import make_folds
from crywolf.train.audit.shortcuts import Shortcut, find_shortcuts
from crywolf.train.audit.traits import traits

WORDS = [
    "lamp",
    "river",
    "stone",
    "paper",
    "window",
    "garden",
    "number",
    "market",
    "bridge",
    "coffee",
    "letter",
    "planet",
]
Rows = list[dict[str, str]]


def sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(rng.choice(WORDS, words))


def rows_of(make: Callable[[np.random.Generator, bool], dict[str, str]], rows: int = 600) -> Rows:
    rng = np.random.default_rng(4)
    labels = ["MALICIOUS" if at % 3 == 0 else "BENIGN" for at in range(rows)]
    return [{"source": "one", "label": label, **make(rng, label == "MALICIOUS")} for label in labels]


def measured(rows: Rows) -> dict[str, Shortcut]:
    frame = make_corpus(rows)
    malicious = (frame["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    folds = make_folds(malicious, np.arange(frame.height), rng=np.random.default_rng(0))
    return {found.trait.name: found for found in find_shortcuts(traits(frame), folds, config=AuditConfig())}


@pytest.fixture(scope="module")
def alike() -> dict[str, Shortcut]:
    return measured(rows_of(lambda rng, _: {"text": sentence(rng, int(rng.integers(3, 30)))}))


def test_where_both_labels_look_alike_nothing_is_flagged(alike: dict[str, Shortcut]) -> None:
    assert {name for name, found in alike.items() if found.flagged} == set()
    assert all(found.auc.low <= 0.55 for found in alike.values())
    assert all(found.advice == "" for found in alike.values())


def test_length_that_tells_the_label_is_flagged_with_an_auc_near_one() -> None:
    found = measured(
        rows_of(
            lambda rng, attack: {"text": sentence(rng, int(rng.integers(60, 90) if attack else rng.integers(3, 20)))}
        )
    )
    assert found["characters"].flagged
    assert found["characters"].auc.low > 0.98
    assert "long benign prompts" in found["characters"].advice
    assert found["characters"].one_sided("MALICIOUS") > 0.9
    assert not found["digits"].flagged
    assert not found["source"].flagged


def test_a_language_of_attacks_alone_is_flagged_though_its_auc_is_low() -> None:
    spanish = "¿Podría decirme por favor qué autobús va de la estación al casco antiguo número {} por la noche?"

    def make(rng: np.random.Generator, attack: bool) -> dict[str, str]:
        if attack and rng.random() < 0.2:
            return {"text": spanish.format(rng.integers(10_000))}
        return {"text": f"Could you please tell me which bus goes from the station to the {sentence(rng, 6)}?"}

    found = measured(rows_of(make))
    assert found["language"].auc.value < 0.65
    assert found["language"].flagged
    advice = "es: grow benign prompts in these (`crywolf augment --languages`, which knows ar, de"
    assert advice in found["language"].advice
    assert found["language"].cells.row(0, named=True)["without_counterpart"] is True
    assert found["main language or not"].flagged
    assert not found["script"].flagged


def test_sources_of_one_label_are_flagged_and_a_category_that_only_its_label_may_have_is_not() -> None:
    def make(rng: np.random.Generator, attack: bool) -> dict[str, str]:
        category, source = ("semantic_jailbreak", "attacks") if attack else ("creative", "benign")
        return {"text": sentence(rng, 9), "category": category, "source": source}

    found = measured(rows_of(make))
    assert found["source"].flagged
    assert "holdout_sources" in found["source"].advice
    assert found["category"].auc.value == 1.0
    assert found["category"].verdict == "by construction"


@pytest.mark.parametrize(
    ("trait", "change"),
    [
        ("letter case", str.upper),
        ("last character", lambda text: f"{text}?"),
        ("line breaks", lambda text: text.replace(" ", "\n")),
        ("opening word", lambda text: f"ignore {text}"),
        ("kind of opening", lambda text: f"please {text}"),
        ("symbols", lambda text: text.replace(" ", " = ")),
        ("digits", lambda text: text.replace("a", "4")),
        ("punctuation", lambda text: text.replace(" ", ", ")),
    ],
)
def test_each_trait_sees_what_was_planted_for_it(trait: str, change: Callable[[str], str]) -> None:
    def make(rng: np.random.Generator, attack: bool) -> dict[str, str]:
        text = sentence(rng, 12)
        return {"text": change(text) if attack else text}

    found = measured(rows_of(make, 300))
    assert found[trait].auc.low > 0.95
    assert found[trait].flagged
    assert "`" in found[trait].advice
    assert found["all of these together"].auc.low > 0.95
