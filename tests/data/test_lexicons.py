from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data.embedded.lexicons import Entry, lexicons, load_lexicons
from crywolf.data.errors import BadInput

LEXICONS = lexicons()
NEEDED = (
    "language", "framework", "database", "tool", "cloud", "os", "file_type", "topic", "subject", "feature", "concept",
    "audience", "component", "error",
)  # fmt: skip


def _write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_lexicons_that_templates_rely_on_are_there() -> None:
    assert set(NEEDED) <= set(LEXICONS.names())
    assert all(len(LEXICONS.entries(name)) >= 7 for name in NEEDED)
    assert lexicons() is LEXICONS


def test_hooks_go_with_react_only_and_ownership_with_rust_only() -> None:
    hooks, ownership = LEXICONS.entry("concept", "hooks"), LEXICONS.entry("concept", "ownership")
    assert hooks is not None
    assert ownership is not None
    frameworks = [e.text for e in LEXICONS.entries("framework") if LEXICONS.compatible(hooks, e)]
    assert frameworks == ["React"]
    assert [e.text for e in LEXICONS.entries("language") if LEXICONS.compatible(ownership, e)] == ["Rust"]


def test_every_framework_and_concept_has_a_language() -> None:
    languages = LEXICONS.entries("language")
    for name in ("framework", "concept", "error", "tool", "feature"):
        for entry in LEXICONS.entries(name):
            assert any(LEXICONS.compatible(entry, language) for language in languages), entry


@given(st.sets(st.sampled_from(NEEDED), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
def test_any_filling_is_mutually_compatible(names: set[str], seed: int) -> None:
    chosen = LEXICONS.choose_entries(sorted(names), np.random.default_rng(seed))
    assert set(chosen) == names
    assert all(LEXICONS.compatible(a, b) for a, b in combinations(chosen.values(), 2))
    texts = LEXICONS.choose(sorted(names), np.random.default_rng(seed))
    assert texts == {name: entry.text for name, entry in chosen.items()}


def test_entries_are_found_by_alias_and_in_any_case() -> None:
    found = LEXICONS.entry("language", "golang")
    assert found is not None
    assert found.text == "Go"
    assert LEXICONS.entry("language", "klingon") is None


def test_an_unknown_lexicon_is_named() -> None:
    with pytest.raises(BadInput, match="'colour'"):
        LEXICONS.entries("colour")


def test_a_filling_that_cannot_be_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path, "a: {entries: [{text: x, tags: [p]}]}\nb: {entries: [{text: y, tags: [q]}]}\n")
    with pytest.raises(BadInput, match="no compatible"):
        load_lexicons(folder).choose(["a", "b"], np.random.default_rng(0))


def test_compatibility_is_sharing_a_tag_or_having_none() -> None:
    a, b, free = Entry("a", frozenset("x")), Entry("b", frozenset("y")), Entry("c")
    assert not LEXICONS.compatible(a, b)
    assert LEXICONS.compatible(a, free)
    assert LEXICONS.compatible(free, b)
    assert LEXICONS.compatible(a, a)


def test_synonyms_are_groups_of_two_or_more() -> None:
    groups = LEXICONS.synonyms()
    assert ["directory", "folder"] in groups
    assert all(len(group) >= 2 for group in groups)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {entries: []}", "needs a list `entries`"),
        ("a: {entries: [{tags: [x]}]}", "entry 0"),
        ("a: {entries: [{text: x, tag: [y]}]}", "'tag'"),
        ("a: {entries: [{text: x, tags: y}]}", "lists of strings"),
        ("a: {entries: [{text: x}, {text: X}]}", "occurs twice"),
        ("- a\n- b", "mapping"),
    ],
)
def test_a_malformed_file_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        load_lexicons(_write(tmp_path, text))
    assert "a.yaml" in str(raised.value)


def test_malformed_synonyms_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no lexicons"):
        load_lexicons(tmp_path)
    with pytest.raises(BadInput, match="group 0"):
        load_lexicons(_write(tmp_path, "groups: [{part: verb, words: [one]}]", "synonyms.yaml"))
