"""The over-defense suite: as many rows as it says, with the trigger words it names, and unlike all that is grown."""

import re
import unicodedata
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from crywolf.augment.dedup import nearest_reference
from crywolf.augment.operators.contexts import ContextPicker
from crywolf.augment.operators.documents import TaskPicker
from crywolf.data.embedded.attacks import malicious_seeds, near_miss_twins
from crywolf.data.embedded.contexts import all_contexts
from crywolf.data.embedded.grammar import load_groups
from crywolf.data.embedded.seeds import benign_seeds
from crywolf.data.embedded.suites import (
    OVER_DEFENSE_DIR,
    SUITES_DIR,
    edge_case_suite,
    over_defense_suite,
    programming_suite,
)
from crywolf.data.schema import CATEGORIES, check_corpus

FILES = sorted(OVER_DEFENSE_DIR.glob("*.yaml"))
TOPICS = ("common", "creative", "security", "technique")
NUMBERS = {"one": 1, "two": 2, "three": 3}
LANGUAGES = ("ar", "de", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")
SCRIPTS = {
    "ar": r"[\u0600-\u06ff]",
    "hi": r"[\u0900-\u097f]",
    "ja": r"[\u3040-\u30ff]",
    "ko": r"[\uac00-\ud7a3]",
    "ru": r"[\u0400-\u04ff]",
    "zh": r"[\u4e00-\u9fff]",
}
GROWN = 3_000
OWN_THRESHOLD = 0.4
"""Rows of this suite are to differ from each other, and from what is grown, far more than near-duplicates do."""


def load(path: Path) -> list[dict]:
    """Rows of a file with their topic, language ("en" where the notes name none) and trigger words."""
    rows = []
    for row in load_groups(path):
        head, _, tail = row["notes"].rpartition(";")
        language = head.removeprefix("lang=") or "en"
        words = [nfc(word).strip() for word in tail.split(",")]
        rows.append({**row, "topic": path.stem.split("_")[0], "language": language, "words": words})
    return rows


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


ROWS = [row for path in FILES for row in load(path)]
ENGLISH = [row for row in ROWS if row["language"] == "en"]
OTHERS = [row for row in ROWS if row["language"] != "en"]
TEXTS = [row["text"] for row in ROWS]


def test_the_suite_keeps_the_contract_and_holds_every_row() -> None:
    frame = check_corpus(over_defense_suite())
    assert frame["text"].to_list() == TEXTS
    assert frame["id"].n_unique() == frame.height >= 420
    assert set(frame["label"]) == {"BENIGN"}
    assert set(frame["source"]) == {"suite"}
    assert set(frame["category"]) == set(CATEGORIES)
    assert frame["extra"].struct.field("notes").to_list() == [row["notes"] for row in ROWS]


def test_every_row_is_written_by_hand() -> None:
    for path in FILES:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert set(document) == {"groups"}
        for group in document["groups"]:
            assert set(group) == {"category", "subcategory", "texts"}
            assert all(set(entry) == {"notes", "text"} for entry in group["texts"])
    assert not [text for text in TEXTS if not text or text != text.strip()]


def test_numbers_topics_and_languages_are_spread_evenly() -> None:
    numbers = Counter(row["subcategory"] for row in ROWS)
    assert set(numbers) == set(NUMBERS)
    assert min(numbers.values()) >= 135
    topics = Counter((row["topic"], row["subcategory"]) for row in ROWS)
    assert set(topics) == {(topic, number) for topic in TOPICS for number in NUMBERS}
    assert min(topics.values()) >= 33
    languages = Counter(row["language"] for row in OTHERS)
    assert set(languages) == set(LANGUAGES)
    assert min(languages.values()) >= 7
    assert len(OTHERS) >= 100


def test_lengths_run_from_a_few_words_to_a_paragraph() -> None:
    lengths = [len(row["text"].split()) for row in ROWS]
    assert min(length for row, length in zip(ROWS, lengths, strict=True) if row["language"] not in {"ja", "zh"}) >= 4
    assert max(lengths) <= 90
    assert sum(length <= 8 for length in lengths) >= 20
    assert np.mean([length > 40 for length in lengths]) >= 0.2
    assert sum("\n" in text for text in TEXTS) >= 6


@pytest.mark.parametrize("language", sorted(SCRIPTS))
def test_a_language_is_written_in_its_script(language: str) -> None:
    for row in OTHERS:
        if row["language"] == language:
            letters = sum(char.isalpha() for char in row["text"])
            own = len(re.findall(SCRIPTS[language], row["text"]))
            assert own >= (0.2 if language == "ja" else 0.6) * letters, row["text"]


def test_notes_name_as_many_distinct_words_as_the_subcategory_says() -> None:
    wrong = [row["text"] for row in ROWS if len(set(row["words"])) != len(row["words"]) or not all(row["words"])]
    wrong += [row["text"] for row in ROWS if len(row["words"]) != NUMBERS[row["subcategory"]]]
    assert wrong == []


def test_every_english_row_holds_the_words_its_notes_name() -> None:
    missing = [
        (word, row["text"])
        for row in ENGLISH
        for word in row["words"]
        if not re.search(rf"\b{re.escape(word if ' ' in word else word[:4])}", row["text"].lower())
    ]
    assert missing == []


def test_every_other_row_holds_the_words_its_notes_name() -> None:
    assert [(w, row["text"]) for row in OTHERS for w in row["words"] if w not in nfc(row["text"])] == []


def test_no_english_row_holds_a_trigger_word_that_its_notes_leave_out() -> None:
    lexicon = {word for row in ENGLISH for word in row["words"]}
    assert len(lexicon) >= 80
    found = []
    for row in ENGLISH:
        text = row["text"].lower()
        for phrase in row["words"]:
            text = text.replace(phrase, " ") if " " in phrase else text
        rest = {word for word in lexicon - set(row["words"]) if re.search(form(word), text)}
        found += [(rest, row["text"])] if rest - same(row["words"]) else []
    assert found == []


def form(word: str) -> str:
    """A pattern of a word and its forms."""
    if word.endswith("e"):
        return rf"\b{re.escape(word[:-1])}(?:e\w{{0,2}}|i\w{{2,3}})\b"
    return rf"\b{re.escape(word.removesuffix('s'))}\w{{0,3}}\b"


def same(words: list[str]) -> set[str]:
    """What counts as the same trigger as one of `words`: inject and injection."""
    return {"inject", "injection"} if {"inject", "injection"} & set(words) else set()


def test_no_word_carries_the_suite() -> None:
    counts = Counter(word for row in ENGLISH for word in row["words"])
    assert counts.most_common(1)[0][1] <= 0.06 * len(ENGLISH)


def test_rows_open_differently() -> None:
    openings = Counter(" ".join(row["text"].lower().split()[:3]) for row in ENGLISH)
    assert [opening for opening, n in openings.items() if n > 3] == []


def shingles(text: str) -> frozenset[str]:
    folded = " ".join(text.lower().split())
    return frozenset(folded[i : i + 5] for i in range(max(1, len(folded) - 4)))


def test_no_two_rows_are_alike() -> None:
    sets = [shingles(text) for text in TEXTS]
    alike = [
        (TEXTS[i], TEXTS[j])
        for i, j in combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) >= OWN_THRESHOLD * len(sets[i] | sets[j])
    ]
    assert alike == []


def near(reference: list[str], threshold: float) -> list[tuple[str, str]]:
    """Rows of the suite beside the reference text that they are near to."""
    nearest = nearest_reference(TEXTS, reference, threshold=threshold)
    return [(text, reference[i]) for text, i in zip(TEXTS, nearest, strict=True) if i >= 0]


def test_no_row_is_near_another_embedded_set() -> None:
    frames: list[pl.DataFrame] = [f() for f in (programming_suite, edge_case_suite, near_miss_twins)]
    frames += [malicious_seeds(), benign_seeds()]
    demo = [row["text"] for path in sorted((SUITES_DIR.parent / "prompts").glob("*.yaml")) for row in load_groups(path)]
    assert near(pl.concat([frame["text"] for frame in frames]).to_list() + demo, OWN_THRESHOLD) == []


@pytest.mark.parametrize("picker", [ContextPicker(), TaskPicker()], ids=["contexts", "tasks"])
def test_no_row_is_near_what_is_grown_by_hand(picker: ContextPicker | TaskPicker) -> None:
    rng = np.random.default_rng(0)
    others = sorted(set(all_contexts()) - {"en"})
    grown = picker.samples(GROWN // 2, rng)
    for language in others:
        grown += picker.samples(GROWN // 2 // len(others) + 1, rng, language=language)
    assert len(grown) >= GROWN
    assert near([sample.text for sample in grown], OWN_THRESHOLD) == []


def test_a_row_among_the_reference_is_found() -> None:
    """Hold the search itself: a row that is repeated, or said with a word more, is reported."""
    leaked = [TEXTS[0].upper(), f"{TEXTS[200]} Please."]
    assert {text for text, _ in near(leaked, OWN_THRESHOLD)} == {TEXTS[0], TEXTS[200]}
