import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import wordnet
import yaml
from generators import (
    NAMES,
    frames,
    generate,
    missing,
    random_deletion,
    random_insertion,
    random_swap,
    synonym_replacement,
)
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput
from crywolf.data.embedded import fps_path

HANDOFF = Path(__file__).parents[3] / "shared" / "handoff" / "benign_test_results.json"
AUGMENT = Path(__file__).parents[2] / "benchmarks" / "augment"
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=80)
needs_wordnet = pytest.mark.skipif(wordnet.wordnet_folder() is None, reason="no WordNet: npm ci in benchmarks/augment")


def harness(path: Path, limit: int) -> pl.DataFrame:
    """False positives of a harness's file that it has not cut."""
    found = json.loads(path.read_text(encoding="utf-8"))["fp_details"]
    rows = [{"id": x["id"], "text": x["prompt"], "category": x["category"]} for x in found]
    return pl.DataFrame([row for row in rows if not row["text"].endswith("...")][:limit])


def able(name: str) -> str:
    """The generator's name, where it can run."""
    if name in missing():
        pytest.skip(missing()[name])
    return name


@pytest.fixture(scope="module")
def fps() -> pl.DataFrame:
    return harness(fps_path(), 60)


@pytest.mark.parametrize("name", NAMES)
def test_gives_exactly_as_many_rows_as_asked_for_each_with_its_prompt(name: str, fps: pl.DataFrame) -> None:
    found = generate(able(name), fps, 150, seed=1)
    assert found.columns == ["text", "origin_id", "how"]
    assert found.height == 150
    assert found.null_count().sum_horizontal().item() == 0
    counts = Counter(found["origin_id"])
    assert set(counts) == set(fps["id"])
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_samples_and_leaves_the_global_generators_alone(name: str, fps: pl.DataFrame) -> None:
    first = generate(able(name), fps, 90, seed=1)
    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    again, other = generate(name, fps, 90, seed=1), generate(name, fps, 90, seed=2)
    assert first.equals(again)
    assert name == "copies" or not first["text"].equals(other["text"])
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numpy_state  # noqa: NPY002


def test_a_seed_gives_the_same_samples_whatever_the_order_of_sets() -> None:
    name = able("nlpaug")
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import polars as pl; from generators import generate\n"
        "fps = pl.DataFrame({'id': ['a', 'b'], 'text': json.loads(sys.argv[2])})\n"
        "print(json.dumps(generate('nlpaug', fps, 120, 3)['text'].to_list()))"
    )
    texts = ["please receive their separate address", "show me the file which they believe in"]
    said = subprocess.run(
        [sys.executable, "-c", code, str(AUGMENT), json.dumps(texts)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    here = generate(name, pl.DataFrame({"id": ["a", "b"], "text": texts}), 120, seed=3)["text"].to_list()
    assert json.loads(said) == here


def test_copies_are_the_prompts_themselves(fps: pl.DataFrame) -> None:
    found = generate("copies", fps, 130, seed=1).join(fps, left_on="origin_id", right_on="id", maintain_order="left")
    assert found["text"].to_list() == found["text_right"].to_list()


def test_the_template_filler_makes_the_fault_that_it_is_named_for() -> None:
    fps = pl.DataFrame(
        {"id": ["a"], "text": ["How do I handle {braces} in a config file?"], "category": ["programming"]}
    )
    found = generate("template filler", fps, 100, seed=1)["text"].to_list()
    assert "Can you help me understand How do I handle {braces}?" in found
    assert not any("config" in text for text in found)
    assert len(set(found)) == len(frames())


def test_every_frame_has_one_place_for_the_topic() -> None:
    document = yaml.safe_load((AUGMENT / "topic_templates.yaml").read_text(encoding="utf-8"))["frames"]
    assert all(frame.count("{topic}") == 1 and frame.format(topic="x") for frame in document)
    assert len(set(document)) == len(document)


@pytest.mark.parametrize("name", ["nlpaug", "EDA", "AugLy"])
def test_every_prompt_meets_every_operation(name: str, fps: pl.DataFrame) -> None:
    found = generate(able(name), fps.head(12), 12 * 40, seed=1)
    kinds = found["how"].n_unique()
    assert kinds >= 4
    each = found.group_by("origin_id").agg(pl.col("how").n_unique())["how"]
    assert each.min() >= kinds - 3  # an operation that changes nothing is passed over for the next
    assert found["text"].is_in(fps["text"].to_list()).mean() < 0.25


@needs_wordnet
@given(TEXTS, st.integers(0, 5))
def test_random_swap_keeps_the_words(text: str, seed: int) -> None:
    found = random_swap(text, rng=np.random.default_rng(seed))
    assert Counter(found.split()) == Counter(text.split())


@needs_wordnet
@given(TEXTS, st.integers(0, 5))
def test_random_deletion_leaves_some_of_the_words_in_their_order(text: str, seed: int) -> None:
    found, words = random_deletion(text, rng=np.random.default_rng(seed)).split(), iter(text.split())
    assert all(any(word == other for other in words) for word in found)
    assert bool(found) == bool(text.split())


@needs_wordnet
def test_random_insertion_adds_synonyms_of_a_tenth_of_the_words() -> None:
    text = "please remove the big angry dog from our quick little car before the trip starts and the happy child cries"
    found = random_insertion(text, rng=np.random.default_rng(1))
    left = Counter(found.split()) - Counter(text.split())
    assert sum(left.values()) >= 2
    net = wordnet.load_wordnet()
    allowed = {
        part for word in text.split() for other in net.synonyms(word) for part in other.replace("-", " ").split()
    }
    assert set(left) <= allowed


@needs_wordnet
def test_synonym_replacement_keeps_marks_and_function_words() -> None:
    found = {synonym_replacement("Is the automobile, here?", rng=np.random.default_rng(i)) for i in range(40)}
    assert "Is the car, here?" in found
    assert all(text.startswith("Is the ") and ", here?" in text for text in found)


@needs_wordnet
def test_wordnet_gives_synonyms_by_part_of_speech_and_of_inflected_words() -> None:
    net = wordnet.load_wordnet()
    assert {"car", "motorcar"} <= set(net.synonyms("automobile", "n"))
    assert net.synonyms("automobile", "r") == []
    assert set(net.synonyms("automobiles", "n")) >= {"car"}
    assert net.pos_of("quickly") == "r"
    assert net.pos_of("xqzt") is None


def test_refuses_a_name_it_does_not_know_and_an_empty_frame(fps: pl.DataFrame) -> None:
    with pytest.raises(BadInput, match="template filler"):
        generate("templates", fps, 3, seed=1)
    with pytest.raises(BadInput, match="no false positives"):
        generate("copies", fps.head(0), 3, seed=1)


@pytest.mark.skipif(not HANDOFF.is_file(), reason="the handoff is not here")
@pytest.mark.parametrize("name", NAMES)
def test_grows_the_handoffs_false_positives(name: str) -> None:
    found = generate(able(name), harness(HANDOFF, 200), 400, seed=1)
    assert found.height == 400
    assert found["text"].str.strip_chars().str.len_chars().min() > 0
