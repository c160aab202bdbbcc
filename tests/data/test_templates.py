"""The embedded templates hold what the issue asks for, and a broken file is refused by name and entry."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from crywolf.data import GROWN_CATEGORIES, BadInput
from crywolf.data.embedded.grammar import article
from crywolf.data.embedded.lexicons import lexicons
from crywolf.data.embedded.templates import FOLDER, entities, load_entities, load_templates, templates

GROUP = {
    "category": "legitimate_programming",
    "subcategory": "queues",
    "keywords": ["queue"],
    "slots": {"thing": ["jobs", "mails"]},
    "templates": ["Why does the queue lose {thing}?", "Empty the queue of {thing}."],
}


def write(folder: Path, document: object, name: str = "own.yaml") -> Path:
    (folder / name).write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return folder


def changed(**fields: object) -> dict[str, object]:
    return {"groups": [{**GROUP, **fields}]}


def test_there_are_enough_programming_and_educational_topics() -> None:
    counts = Counter((item.category, item.subcategory) for item in templates())
    programming = {sub: n for (category, sub), n in counts.items() if category == "legitimate_programming"}
    educational = {sub: n for (category, sub), n in counts.items() if category == "legitimate_educational"}
    assert len(programming) >= 16
    assert min(programming.values()) >= 14
    assert len(educational) >= 10
    assert min(educational.values()) >= 12
    wanted = ("authentication", "database", "debugging", "hooks", "error_handling", "sessions", "caching")
    assert set(wanted) | {"configuration", "deployment"} <= set(programming)
    assert {"examples_request", "testing", "concepts", "study_help", "comparisons"} <= set(educational)


def test_every_template_has_its_subcategory_and_known_slots() -> None:
    for item in templates():
        assert item.category in GROWN_CATEGORIES
        assert item.subcategory
        assert item.keywords
        for values in item.slots.values():
            assert values in lexicons().names() if isinstance(values, str) else len(values) > 1
    assert len({item.id for item in templates()}) == len(templates())


def test_no_template_or_value_has_stray_white_space_or_braces() -> None:
    for item in templates():
        values = [value for options in item.slots.values() if not isinstance(options, str) for value in options]
        for text in (item.text, *values):
            assert text == text.strip()
            assert "  " not in text
        assert not re.sub(r"\{(?:[aA] )?[a-z_0-9]+\}|\{print \$1\}", "", item.text).count("{"), item.text


def test_an_article_written_out_suits_every_value_of_its_slot() -> None:
    # "a {stack}" would read "a Express API"; "{a stack}" leaves the article to the grammar.
    for item in templates():
        for written, name in re.findall(r"\b([Aa]n?) \{([a-z_]+)\}", item.text):
            values = item.slots[name]
            assert not isinstance(values, str), item.text
            assert {article(value) for value in values} == {written.lower()}, item.text


def test_no_article_meets_another() -> None:
    for item in templates():
        for name in re.findall(r"\{[aA] ([a-z_]+)\}|\b(?:[Aa]n?|[Tt]he) \{([a-z_]+)\}", item.text):
            values = item.slots[name[0] or name[1]]
            assert not isinstance(values, str), item.text
            assert not [value for value in values if re.match(r"(?:an?|the|my|our|some) ", value)], item.text


def test_a_user_can_add_a_folder(tmp_path: Path) -> None:
    found = load_templates(FOLDER, write(tmp_path, changed()))
    assert [item.subcategory for item in found[-2:]] == ["queues", "queues"]
    assert found[-1].slots == {"thing": ("jobs", "mails")}


def test_a_slot_may_name_a_lexicon(tmp_path: Path) -> None:
    (first, _) = load_templates(write(tmp_path, changed(slots={"thing": "language"})))
    assert first.slots == {"thing": "language"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(subcategory=None), r"own\.yaml: group 1: missing subcategory"),
        (changed(category="programming"), r"own\.yaml: group 1 \(queues\): category 'programming' is none of"),
        (changed(keywords=[]), r"group 1 \(queues\): needs `keywords`"),
        (changed(fits=["cooking"]), r"group 1 \(queues\): `fits` must be categories"),
        (changed(templates=[]), r"group 1 \(queues\): needs a list `templates`"),
        (changed(templates=["x {other}"]), r"own\.yaml: group 1 \(queues\), template 1: unknown slot 'other'"),
        (changed(templates=["one {thing}", {"text": "two", "slots": {"y": ["a"]}}]), r"template 2: slot 'y' does not"),
        (changed(slots={"thing": "no_such"}), r"slot 'thing': unknown lexicon 'no_such'; there are"),
        (changed(slots={"thing": ["a", "A"]}), r"slot 'thing' must name a lexicon or list different strings"),
        (changed(templates=["Drop {thing}.", "drop  {thing}."]), r"template 2: the same template as .*template 1"),
        (changed(requires=["planet"]), r"`requires` must list entities"),
        (changed(colour="red"), r"unknown key 'colour'"),
        (changed(templates=[{"slots": {}}]), r"template 1: expected a string or a mapping with `text`"),
        ({"groups": []}, r"own\.yaml: expected a list `groups`"),
        ({"groups": ["x"]}, r"own\.yaml: group 1: expected a mapping"),
        ("a: [b", r"own\.yaml: not valid YAML"),
        ("- a", r"own\.yaml: expected a mapping, got list"),
    ],
)
def test_a_broken_file_is_refused_by_file_and_entry(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_templates(write(tmp_path, document))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no templates found"):
        load_templates(tmp_path)


def test_a_broken_entity_expression_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"dir": ["("]}, "entities.yaml")
    with pytest.raises(BadInput, match="entity 'dir'"):
        load_entities(tmp_path / "entities.yaml")
    write(tmp_path, {"dir": "x"}, "entities.yaml")
    with pytest.raises(BadInput, match="must be a list"):
        load_entities(tmp_path / "entities.yaml")


def test_entities_cover_what_templates_call_their_own() -> None:
    slots = {name for item in templates() for name in item.slots}
    assert set(entities()) <= slots
