"""Long prompts and tasks have the promised length, are whole, and come in the languages that are written."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from crywolf.augment.operators.documents import (
    LONGEST,
    LONGEST_TASK,
    SHORTEST,
    SHORTEST_TASK,
    DocumentPicker,
    TaskPicker,
)
from crywolf.data import BadInput
from crywolf.data.embedded.documents import Document, Shelf, all_shelves, all_tasks, load_shelves

SHORT = [f"How do I sort table number {i} by its second column?" for i in range(12)]


@pytest.mark.parametrize("language", sorted(all_shelves()))
def test_long_prompts_keep_their_bounds_and_leave_no_slot(language: str) -> None:
    found = DocumentPicker().samples(60, np.random.default_rng(0), language=language, short=SHORT)
    texts = [grown.text for grown in found]
    assert len(texts) > 40
    assert len(set(texts)) == len(texts)
    assert all(SHORTEST <= len(text) <= LONGEST for text in texts)
    assert not [text for text in texts if "{" in text or "}" in text]


def test_lengths_spread_over_the_whole_range() -> None:
    found = DocumentPicker().samples(200, np.random.default_rng(1))
    lengths = np.array([len(grown.text) for grown in found])
    assert (lengths < 600).mean() > 0.15
    assert (lengths > 1500).mean() > 0.15


def test_packed_prompts_hold_the_short_prompts_that_were_given() -> None:
    found = DocumentPicker().samples(60, np.random.default_rng(2), short=SHORT)
    packs = [grown.text for grown in found if grown.how == "document:en/pack"]
    assert packs
    assert all(sum(short in text for short in SHORT) >= 2 for text in packs)


def test_a_fence_is_closed_as_it_was_opened() -> None:
    texts = [grown.text for grown in DocumentPicker().samples(200, np.random.default_rng(3))]
    assert [text for text in texts if "```" in text]
    assert all(text.count("```") % 2 == 0 for text in texts)


def test_the_same_generator_gives_the_same_prompts() -> None:
    first = DocumentPicker().samples(10, np.random.default_rng(4), short=SHORT)
    assert first == DocumentPicker().samples(10, np.random.default_rng(4), short=SHORT)


def test_an_unknown_language_is_an_error() -> None:
    with pytest.raises(BadInput, match="no documents in language 'xx'"):
        DocumentPicker().samples(1, np.random.default_rng(0), language="xx")


@pytest.mark.parametrize("language", sorted(all_tasks()))
def test_tasks_keep_their_bounds_and_leave_no_slot(language: str) -> None:
    found = TaskPicker().samples(150, np.random.default_rng(0), language=language)
    texts = [grown.text for grown in found]
    assert len(texts) > 120
    assert len(set(texts)) == len(texts)
    assert all(SHORTEST_TASK <= len(text) <= LONGEST_TASK for text in texts)
    assert not [text for text in texts if "{" in text or "}" in text]
    assert {grown.operator for grown in found} == {"task"}
    assert len({grown.how for grown in found}) >= 10


def test_a_task_holds_its_request_and_as_many_pieces_as_it_may() -> None:
    document = Document("d", "work", ("Ask.",), (), ("one", "two", "three"), pieces=(2, 3), fences=("Text: ",))
    bare = Document("b", "work", ("Just ask me something.",), (), (), pieces=(0, 0))
    picker = TaskPicker({"en": Shelf("en", {}, (document, bare), ())})
    texts = {grown.text for grown in picker.samples(60, np.random.default_rng(0))}
    assert "Just ask me something." in texts
    others = [text for text in texts if text.startswith("Ask.")]
    assert others
    assert all("Text: " in text for text in others)
    assert {sum(word in text for word in ("one", "two", "three")) for text in others} == {2, 3}


@pytest.mark.parametrize("pieces", [[1], [2, 1], [0, 4], ["1", 2], 3])
def test_pieces_that_do_not_fit_are_named(tmp_path: Path, pieces: object) -> None:
    item = {"name": "x", "topic": "work", "before": ["a"], "lines": ["l1", "l2", "l3"], "pieces": pieces}
    (tmp_path / "en.yaml").write_text(yaml.safe_dump({"language": "en", "documents": [item]}))
    with pytest.raises(BadInput, match=r"en\.yaml: document 0 \(x\).*pieces"):
        load_shelves(tmp_path)
