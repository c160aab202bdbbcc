"""`crywolf dedup` keeps originals, says what it dropped for which reason and of which source, and looks at meaning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf.data import make_corpus, read_corpus, text_id, write_corpus

STORY = "Please write a short story about a lighthouse keeper who finds an old map in the sand."
RECIPE = "What do I need to bake a plain sponge cake for eight people at home?"


def write(path: Path, *rows: dict[str, Any]) -> Path:
    return write_corpus(make_corpus(list(rows), label="BENIGN"), path)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    origin = text_id(STORY)
    return write(
        tmp_path / "in.parquet",
        {"text": f"{STORY}!", "source": "augmented", "origin_id": origin, "how": "noise:1"},
        {"text": STORY.upper(), "source": "augmented", "origin_id": origin, "how": "noise:2"},
        {"text": STORY, "source": "pool"},
        {"text": RECIPE, "source": "pool"},
    )


def test_the_original_stays_and_the_tables_and_the_manifest_say_what_went(
    corpus: Path, crywolf: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    ran = crywolf("dedup", corpus, "-o", out, "--json")
    assert ran.code == 0, ran.err
    assert read_corpus(out).frame["text"].to_list() == [STORY, RECIPE]
    told = {row["what"]: row["rows"] for row in ran.document["dedup"]}
    assert told == {"read": 4, "exact": 1, "near": 1, "kept": 2}
    sources = {row["source"]: (row["read"], row["dropped"], row["kept"]) for row in ran.document["sources"]}
    assert sources == {"augmented": (2, 2, 0), "pool": (2, 0, 2)}
    manifest = json.loads(Path(f"{out}.manifest.json").read_text())
    assert manifest["parameters"]["keep"] == "original"
    assert {name: manifest["counts"][name] for name in told} == told
    assert manifest["counts"]["by_source"]["augmented"]["dropped"] == 2


def test_the_first_stays_where_that_is_asked_for(corpus: Path, crywolf: Callable, tmp_path: Path) -> None:
    ran = crywolf("dedup", corpus, "--keep", "first", "-o", tmp_path / "out.jsonl")
    assert ran.code == 0, ran.err
    assert read_corpus(tmp_path / "out.jsonl").frame["text"].to_list() == [f"{STORY}!", RECIPE]


def test_what_another_corpus_has_is_told_by_its_name(corpus: Path, crywolf: Callable, tmp_path: Path) -> None:
    other = write(tmp_path / "train.csv", {"text": RECIPE.lower()}, {"text": f"{STORY} Thanks"})
    ran = crywolf("dedup", corpus, "--against", other, "-o", tmp_path / "out.jsonl", "--json")
    assert ran.code == 0, ran.err
    told = {row["what"]: row["rows"] for row in ran.document["dedup"]}
    assert told == {
        "read": 4,
        "exact": 0,
        "near": 0,
        "exact of train.csv": 1,
        "near of train.csv": 3,
        "kept": 0,
    }


def test_a_chain_leaves_one_row_where_chains_are_asked_for(crywolf: Callable, tmp_path: Path) -> None:
    letters = "the quick brown fox jumps over the lazy dog while five wizards quietly box on the frozen lake at dawn"
    chain = write(tmp_path / "in.jsonl", *({"text": letters[start : start + 60]} for start in range(0, 36, 6)))
    dropped = tmp_path / "dropped.jsonl"
    ran = crywolf("dedup", chain, "--chains", "--dropped", dropped, "-o", tmp_path / "out.jsonl", "--json")
    assert ran.code == 0, ran.err
    told = {row["what"]: row["rows"] for row in ran.document["dedup"]}
    assert told == {"read": 6, "chain": 4, "exact": 0, "near": 1, "kept": 1}
    notes = read_corpus(dropped).frame["extra"].struct.field("notes").to_list()
    assert sum(note.startswith("chain_within ") for note in notes) == 4


def test_semantic_also_drops_what_means_the_same_original_first(crywolf: Callable, cache: Path, tmp_path: Path) -> None:
    said = "For eight people, at home: what is needed for baking a plain sponge cake?"
    rows = write(
        tmp_path / "in.jsonl",
        {"text": said, "source": "augmented", "origin_id": "f" * 16, "how": "rewrite:turned"},
        {"text": STORY, "source": "pool"},
        {"text": RECIPE, "source": "pool"},
    )
    out, dropped = tmp_path / "out.jsonl", tmp_path / "dropped.jsonl"
    plain = crywolf("dedup", rows, "-o", out, "--json")
    assert {row["what"]: row["rows"] for row in plain.document["dedup"]} == {
        "read": 3,
        "exact": 0,
        "near": 0,
        "kept": 3,
    }
    ran = crywolf(
        *("dedup", rows, "--semantic", 0.8, "--cache", cache, "--dropped", dropped, "-o", out, "--force", "--json")
    )
    assert ran.code == 0, ran.err
    assert {row["what"]: row["rows"] for row in ran.document["dedup"]}["semantic"] == 1
    assert read_corpus(out).frame["text"].to_list() == [STORY, RECIPE]
    note = read_corpus(dropped).frame["extra"].struct.field("notes")[0]
    assert note.startswith(f"semantic_within {text_id(RECIPE)} cosine 0.")
    assert json.loads(Path(f"{out}.manifest.json").read_text())["parameters"]["semantic"] == 0.8


@pytest.mark.parametrize("semantic", [False, True])
def test_a_text_with_both_labels_keeps_both_and_is_told(crywolf: Callable, tmp_path: Path, semantic: bool) -> None:
    rows = [
        {"text": STORY, "label": "BENIGN"},
        {"text": RECIPE, "label": "BENIGN"},
        {"text": f"{STORY}!", "label": "MALICIOUS"},
        {"text": STORY.upper(), "label": "MALICIOUS"},
    ]
    corpus = write_corpus(make_corpus(rows), tmp_path / "in.jsonl")
    ran = crywolf(
        "dedup", corpus, "-o", tmp_path / "out.jsonl", "--json", *(["--semantic", "0.99"] if semantic else [])
    )
    assert ran.code == 0, ran.err
    kept = read_corpus(tmp_path / "out.jsonl").frame
    assert list(zip(kept["text"], kept["label"].cast(pl.String), strict=True)) == [
        (STORY, "BENIGN"),
        (RECIPE, "BENIGN"),
        (f"{STORY}!", "MALICIOUS"),
    ]
    assert ran.document["conflicts"] == 1
    assert "1 BENIGN rows are near-duplicates of MALICIOUS ones" in ran.err + ran.out
