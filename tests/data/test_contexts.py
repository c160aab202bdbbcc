"""The embedded contexts and documents are well formed, and what is wrong in a file is said by file and entry."""

from pathlib import Path

import pytest

from crywolf.data import BadInput
from crywolf.data.embedded.contexts import KINDS, all_contexts, contexts, languages, load_contexts
from crywolf.data.embedded.documents import load_shelves

ASKED = ("es", "de", "fr", "pt", "zh", "ja", "hi", "ar", "ru")
GOOD = """
language: en
slots: {dish: [soup]}
frames: {task: ["How do I {task}?"], pair: ["{Task} or {thing}?"], word: ["What is {word}?"], thing: ["And {thing}?"]}
triggers:
  - {word: ignore, forms: [ignored], topic: home, task: ["ignore the {dish}"], thing: ["an ignored {dish}"]}
everyday: [{topic: home, text: "Is {dish} a meal?"}]
"""


def load(folder: Path, text: str) -> None:
    (folder / "en.yaml").write_text(text, encoding="utf-8")
    load_contexts(folder)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    load(tmp_path, GOOD)
    found = load_contexts(tmp_path)["en"]
    assert found.words() == {"ignore", "ignored"}
    assert found.frames["pair"][0].holds == ("task", "thing")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{dish: [soup]}", "{}", "no values for slot 'dish'"),
        ("How do I {task}?", "How do I?", "task frame 0: a task frame cannot hold no phrase"),
        ("{Task} or {thing}?", "{Task}?", "a pair frame cannot hold task"),
        ("topic: home, task", "topic: house, task", "trigger 0 .ignore.: topic 'house' is none of"),
        ("language: en", "tongue: en", "expected a mapping with a `language`"),
        ("everyday:", "every_day:", "unknown key 'every_day'"),
        ("forms: [ignored]", "form: [ignored]", "unknown key 'form'"),
        ('thing: ["And {thing}?"]', "thing: []", "has thing phrases and no thing frames"),
    ],
)
def test_a_fault_is_said_with_its_file_and_entry(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(BadInput, match=message) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert "en.yaml" in str(caught.value)


def test_the_languages_that_were_asked_for_are_there_and_rich() -> None:
    assert languages()[0] == "en"
    for code in ("en", *ASKED):
        found = contexts(code)
        phrases = sum(len(item.phrases[kind]) for item in found.triggers for kind in KINDS)
        assert len({item.word for item in found.triggers}) >= 30, code
        assert phrases >= 300, code
        assert len(found.everyday) >= 80, code
        assert sum(len(frames) for frames in found.frames.values()) >= 80, code


def test_no_phrase_stands_twice_in_a_language() -> None:
    for code, found in all_contexts().items():
        for kind in KINDS:
            texts = [text for item in found.triggers for text in item.phrases[kind]]
            assert len(set(texts)) >= 0.98 * len(texts), (code, kind)


def test_english_phrases_hold_their_trigger_word_or_one_of_its_family() -> None:
    missing = [
        (item.word, text)
        for item in contexts("en").triggers
        for kind in KINDS
        for text in item.phrases[kind]
        if not any(word.lower()[:5] in text.lower() for word in (item.word, *item.forms))
    ]
    assert not missing


def test_a_document_without_lines_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "en.yaml").write_text(
        "language: en\ndocuments: [{name: log, topic: work, before: ['What is this?']}]\n", encoding="utf-8"
    )
    with pytest.raises(BadInput, match=r"document 0 .log.: needs `lines`"):
        load_shelves(tmp_path)
