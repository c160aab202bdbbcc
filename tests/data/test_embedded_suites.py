"""The embedded validation suites: large enough, honest in their n, and apart from everything that trains."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from crywolf.data.embedded.attacks import MALICIOUS_DIR, TWINS_DIR, malicious_seeds, near_miss_twins
from crywolf.data.embedded.grammar import load_groups
from crywolf.data.embedded.seeds import benign_seeds
from crywolf.data.embedded.suites import SUITES_DIR, edge_case_suite, programming_suite
from crywolf.data.schema import check_corpus

MAX_ROWS_PER_PATTERN = 8
THRESHOLD = 0.8
BENIGN_DIR = SUITES_DIR.parent / "benign"
DEMO_DIR = SUITES_DIR.parent / "prompts"


def demo_prompts() -> pl.DataFrame:
    """What the demo's files are made of."""
    return pl.DataFrame(
        {"text": [row["text"] for path in sorted(DEMO_DIR.glob("*.yaml")) for row in load_groups(path)]}
    )


SETS = {
    "programming": programming_suite,
    "edge_cases": edge_case_suite,
    "twins": near_miss_twins,
    "attacks": malicious_seeds,
    "benign": benign_seeds,
    "demo": demo_prompts,
}


def shingles(text: str) -> frozenset[str]:
    folded = " ".join(text.lower().split())
    return frozenset(folded[i : i + 5] for i in range(max(1, len(folded) - 4)))


def near_duplicates(texts: list[str]) -> list[tuple[int, int, float]]:
    """All pairs with Jaccard of at least `THRESHOLD`: each such pair shares one of the rarest shingles of both."""
    sets = [shingles(text) for text in texts]
    frequency = Counter(shingle for one in sets for shingle in one)
    holders: dict[str, list[int]] = defaultdict(list)
    pairs = []
    for i, one in enumerate(sets):
        rarest = sorted(one, key=lambda shingle: (frequency[shingle], shingle))
        prefix = rarest[: len(one) - -(-4 * len(one) // 5) + 1]
        for j in {j for shingle in prefix for j in holders[shingle]}:
            shared = len(one & sets[j])
            jaccard = shared / (len(one) + len(sets[j]) - shared)
            if jaccard >= THRESHOLD:
                pairs.append((j, i, jaccard))
        for shingle in prefix:
            holders[shingle].append(i)
    return pairs


def patterns(directory: Path) -> list[dict]:
    return [
        pattern
        for path in sorted(directory.glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for pattern in group.get("patterns") or []
    ]


@pytest.mark.parametrize("suite", [programming_suite, edge_case_suite])
def test_suites_keep_the_contract(suite: Callable[[], pl.DataFrame]) -> None:
    frame = check_corpus(suite())
    assert frame["id"].n_unique() == frame.height
    assert set(frame["label"]) == {"BENIGN"}
    assert set(frame["source"]) == {"suite"}
    assert frame["subcategory"].null_count() == 0
    assert frame["threat_type"].null_count() == frame.height
    assert suite() is suite()


def test_programming_suite_can_show_a_rate_below_half_a_percent() -> None:
    frame = programming_suite()
    assert frame.height >= 860
    assert set(frame["category"]) == {"programming"}
    areas = frame["subcategory"].value_counts()
    assert areas.height >= 30
    assert areas["count"].max() <= 0.1 * frame.height


def test_edge_case_suite_has_its_three_kinds() -> None:
    frame = edge_case_suite()
    assert frame.height >= 440
    assert set(frame["category"]) == {"edge_cases"}
    counts = dict(frame["subcategory"].value_counts().iter_rows())
    assert set(counts) == {"ambiguous_query", "technical_jargon", "mixed_context"}
    assert min(counts.values()) >= 130


def test_the_suites_are_not_english_only() -> None:
    texts = pl.concat([programming_suite()["text"], edge_case_suite()["text"]])
    assert texts.str.contains(r"[\p{Han}\p{Hiragana}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Devanagari}]").sum() >= 20
    assert programming_suite().filter(pl.col("subcategory") == "multilingual_programming").height >= 30


def test_no_pattern_makes_too_many_rows() -> None:
    for pattern in patterns(SUITES_DIR):
        assert 1 <= pattern["n"] <= MAX_ROWS_PER_PATTERN, pattern["text"]


def test_most_of_each_suite_is_written_by_hand() -> None:
    made = sum(pattern["n"] for pattern in patterns(SUITES_DIR))
    assert made <= 0.25 * (programming_suite().height + edge_case_suite().height)


def test_suites_share_no_pattern_with_anything_else() -> None:
    ours = [pattern["text"] for pattern in patterns(SUITES_DIR)]
    distinct = Counter(ours)
    assert [text for text, n in distinct.items() if n > 1] == []
    others = {
        pattern["text"] for folder in (MALICIOUS_DIR, TWINS_DIR, BENIGN_DIR, DEMO_DIR) for pattern in patterns(folder)
    }
    assert distinct.keys() & others == set()


def test_no_near_duplicates_within_or_across_any_of_the_embedded_sets() -> None:
    texts: list[str] = []
    names: list[str] = []
    for name, frame in SETS.items():
        column = frame()["text"].to_list()
        texts += column
        names += [name] * len(column)
    # Pairs among the seeds and the demo's prompts are held by those sets' own test.
    others = {"benign", "demo"}
    found = [
        (names[i], texts[i], names[j], texts[j], round(jaccard, 2))
        for i, j, jaccard in near_duplicates(texts)
        if not {names[i], names[j]} <= others
    ]
    assert found == []


def test_the_search_for_near_duplicates_finds_what_brute_force_finds() -> None:
    texts = programming_suite()["text"].to_list()[:120]
    texts += [f"{text} please" for text in texts[:40]] + [text.upper().replace(" ", "  ") for text in texts[40:60]]
    sets = [shingles(text) for text in texts]
    brute = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= THRESHOLD
    }
    assert {(i, j) for i, j, _ in near_duplicates(texts)} == brute
    assert len(brute) >= 40
