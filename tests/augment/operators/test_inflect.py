import pytest

from crywolf.augment.operators.inflect import (
    NOUN_LIKE,
    VERBS,
    article,
    base_of_gerund,
    base_of_third,
    inflect,
    is_plural,
    is_prefixed,
)


@pytest.mark.parametrize(
    ("verb", "gerund", "third"),
    [
        ("find", "finding", "finds"),
        ("copy", "copying", "copies"),
        ("untar", "untarring", "untars"),
        ("grep", "grepping", "greps"),
        ("gunzip", "gunzipping", "gunzips"),
        ("overwrite", "overwriting", "overwrites"),
        ("set", "setting", "sets"),
        ("echo", "echoing", "echoes"),
        ("search", "searching", "searches"),
    ],
)
def test_verbs_of_our_domains_inflect_as_people_write_them(verb: str, gerund: str, third: str) -> None:
    assert inflect(verb, "gerund") == gerund
    assert inflect(verb, "third") == third
    assert inflect(verb, "base") == verb


def test_command_names_that_nobody_inflects_have_no_gerund() -> None:
    assert inflect("ssh", "gerund") is None
    assert inflect("cd", "third") is None


def test_forms_lead_back_to_their_base_for_every_known_verb() -> None:
    for verb in sorted(VERBS):
        third, gerund = inflect(verb, "third"), inflect(verb, "gerund")
        if third and not third.endswith("ss"):
            assert base_of_third(third) in {verb, None}, third
        if gerund:
            assert base_of_gerund(gerund) in {verb, None}, gerund


def test_nouns_in_s_and_ing_are_not_taken_for_verbs() -> None:
    assert base_of_third("process") is None
    assert base_of_third("this") is None
    assert base_of_gerund("string") is None
    assert base_of_gerund("something") is None


def test_the_lists_agree() -> None:
    assert {"file", "list", "copy"} <= NOUN_LIKE
    assert {"find", "grep", "ssh"} <= VERBS


@pytest.mark.parametrize(
    ("noun", "plural"),
    [("transactions", True), ("status", False), ("address", False), ("name", False), ("people", True)],
)
def test_plurals(noun: str, plural: bool) -> None:
    assert is_plural(noun) is plural


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Ubuntu", "an"), ("user", "a"), ("Python", "a"), ("index", "an"), ("SQL", "an"), ("hour", "an"), ("one", "a")],
)
def test_article_follows_the_sound(word: str, expected: str) -> None:
    assert article(word) == expected


@pytest.mark.parametrize(
    ("verb", "gerund", "third"),
    [
        ("rerun", "rerunning", "reruns"),
        ("reset", "resetting", "resets"),
        ("undo", "undoing", "undoes"),
        ("override", "overriding", "overrides"),
        ("redo", "redoing", "redoes"),
        ("rebuild", "rebuilding", "rebuilds"),
        ("relaunch", "relaunching", "relaunches"),
    ],
)
def test_a_verb_behind_a_prefix_inflects_as_the_verb(verb: str, gerund: str, third: str) -> None:
    assert is_prefixed(verb)
    assert inflect(verb, "gerund") == gerund
    assert inflect(verb, "third") == third


def test_words_that_only_begin_like_a_prefix_are_none() -> None:
    assert not any(is_prefixed(word) for word in ("reason", "under", "present", "unit", "run"))
