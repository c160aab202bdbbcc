"""The embedded benign seeds and the demo's prompts: enough of each kind, distinct, and apart from each other."""

import json
from collections import Counter

import polars as pl
import pytest

from crywolf.data import BENIGN, CATEGORIES, check_corpus
from crywolf.data.embedded.seeds import (
    benign_prompts,
    benign_prompts_path,
    benign_seeds,
    build_benign_prompts,
    fps_path,
)

THRESHOLD = 0.8


def shingles(text: str) -> frozenset[str]:
    folded = " ".join(text.lower().split())
    return frozenset(folded[i : i + 5] for i in range(len(folded) - 4)) or frozenset({folded})


def near_duplicates(texts: list[str], others: list[str] | None = None) -> list[tuple[float, str, str]]:
    """Every pair at or above the threshold, by exact Jaccard over an inverted index: the slow and sure way.

    Without `others` the pairs within `texts`, with it those between the two.
    """
    index: dict[str, list[int]] = {}
    known: list[tuple[str, frozenset[str]]] = []

    def add(text: str, grams: frozenset[str]) -> None:
        for gram in grams:
            index.setdefault(gram, []).append(len(known))
        known.append((text, grams))

    for text in others or []:
        add(text, shingles(text))
    found = []
    for text in texts:
        grams = shingles(text)
        shared = Counter(i for gram in grams for i in index.get(gram, ()))
        for i, n in shared.items():
            other, its = known[i]
            if n / (len(grams) + len(its) - n) >= THRESHOLD:
                found.append((n / (len(grams) + len(its) - n), other, text))
        if others is None:
            add(text, grams)
    return found


def kinds(frame: pl.DataFrame) -> dict[str, int]:
    counted = frame.with_columns(kind=pl.col("subcategory").str.replace("-.*", "")).group_by("kind").len()
    return dict(counted.iter_rows())


def not_latin(texts: pl.Series) -> int:
    return int(texts.str.contains(r"[\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Han}\p{Hangul}]").sum())


def test_the_check_finds_a_near_duplicate_and_only_that() -> None:
    texts = [
        "Find all the log files and delete them, please",
        "find all the log files  and delete them please",
        "What is a fjord?",
    ]
    assert [pair[1:] for pair in near_duplicates(texts)] == [(texts[0], texts[1])]
    assert [pair[1:] for pair in near_duplicates(texts[1:], texts[:1])] == [(texts[0], texts[1])]


def test_seeds_keep_the_contract() -> None:
    seeds = check_corpus(benign_seeds())
    assert seeds.height >= 1_600
    assert seeds["label"].unique().to_list() == [BENIGN]
    assert seeds["source"].unique().to_list() == ["seed"]
    assert seeds["id"].n_unique() == seeds.height
    assert seeds["subcategory"].null_count() == 0


def test_a_caller_cannot_spoil_the_cached_seeds() -> None:
    benign_seeds().insert_column(0, pl.Series("spoiled", [0] * benign_seeds().height))
    assert "spoiled" not in benign_seeds().columns


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_category_is_well_filled(category: str) -> None:
    assert benign_seeds().filter(pl.col("category") == category).height >= 120
    assert benign_prompts().filter(pl.col("category") == category).height >= 80


def test_no_other_category_is_used() -> None:
    for frame in (benign_seeds(), benign_prompts()):
        assert set(frame["category"]) == set(CATEGORIES)


def test_seeds_hold_enough_of_each_kind() -> None:
    counted = kinds(benign_seeds())
    assert set(counted) == {"plain", "mention", "long", "multilingual"}
    assert counted["mention"] >= 200
    assert counted["multilingual"] >= 200


def test_seeds_speak_many_languages_in_their_own_scripts() -> None:
    spoken = benign_seeds().filter(pl.col("subcategory").str.starts_with("multilingual-"))
    languages = {name.removeprefix("multilingual-") for name in spoken["subcategory"]}
    assert {"es", "de", "fr", "pt", "zh", "ja", "hi", "ar", "ru"} <= languages
    assert not_latin(spoken["text"]) >= 80


def test_length_of_seeds_spreads_from_a_word_to_pages() -> None:
    seeds = benign_seeds().with_columns(n=pl.col("text").str.len_chars())
    long = seeds.filter(pl.col("subcategory") == "long")["n"]
    assert long.len() >= 100
    assert long.is_between(300, 2_500).all()
    assert (long >= 1_000).sum() >= 10
    others = seeds.filter(pl.col("subcategory") != "long")["n"]
    assert (others <= 12).sum() >= 20
    assert (others >= 80).sum() >= 150


def test_seeds_vary_in_case_and_punctuation() -> None:
    # A detector must not learn that benign text starts with a capital letter and ends with a full stop.
    plain = benign_seeds().filter(pl.col("subcategory") == "plain")["text"]
    assert 0.2 <= plain.str.contains(r"^\p{Ll}").mean() <= 0.6
    assert 0.2 <= plain.str.contains(r"[.?!]$").mean() <= 0.8


def test_no_pattern_leaves_a_slot_or_an_odd_blank() -> None:
    for frame in (benign_seeds(), benign_prompts()):
        # Blanks at the ends are input of their own among the edge cases, and a slip elsewhere.
        text = frame.filter(pl.col("category") != "edge_cases")["text"]
        assert (text == text.str.strip_chars()).all()
    # Braces are fine where code or a template is quoted, so only the names that our patterns use are looked for.
    unfilled = r"\{(?:[aA] )?(?:ask|end|topic|task|thing|what|verb|text|rest|start|persona|bot|rule|quote)\}"
    for frame in (benign_seeds(), benign_prompts()):
        assert frame.filter(pl.col("text").str.contains(unfilled)).height == 0


def test_seeds_hold_no_near_duplicates() -> None:
    assert near_duplicates(benign_seeds()["text"].to_list()) == []


def test_demo_prompts_hold_no_near_duplicates() -> None:
    assert near_duplicates(benign_prompts()["text"].to_list()) == []


def test_no_demo_prompt_nearly_repeats_a_seed() -> None:
    assert near_duplicates(benign_prompts()["text"].to_list(), benign_seeds()["text"].to_list()) == []


def test_demo_prompts_mix_plain_traffic_with_what_detectors_over_flag() -> None:
    counted = kinds(benign_prompts())
    total = sum(counted.values())
    assert 1_300 <= total <= 1_600
    assert 0.40 <= counted["plain"] / total <= 0.50
    hard = {"shell", "assistant", "roleplay", "secops", "quoting", "prompting", "multilingual", "long"}
    assert set(counted) == hard | {"plain"}
    assert min(counted[kind] for kind in hard) >= 60


def test_order_of_demo_prompts_mixes_the_kinds() -> None:
    first = kinds(benign_prompts().head(200))
    assert len(first) == 9
    assert 0.30 <= first["plain"] / 200 <= 0.55


def test_committed_demo_file_is_what_the_groups_give() -> None:
    lines = benign_prompts_path().read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == build_benign_prompts(), (
        "the demo's prompts changed: write build_benign_prompts() to benign_prompts_path() as JSON lines"
    )


def test_rows_of_the_demo_file_are_the_harness_s_input() -> None:
    rows = build_benign_prompts()
    assert [row["id"] for row in rows] == [f"bp-{i:04d}" for i in range(1, len(rows) + 1)]
    assert all(set(row) == {"id", "prompt", "category"} for row in rows)


def test_the_demo_s_files_lie_side_by_side() -> None:
    assert fps_path().parent == benign_prompts_path().parent
    assert fps_path().name == "benign_test_results.json"
