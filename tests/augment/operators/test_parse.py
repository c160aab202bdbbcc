import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.augment.operators.parse import (
    BLOT,
    direct_question,
    embedded_question,
    heads,
    inflect_phrase,
    is_english,
    is_utterance,
    mask,
    parse,
    repair,
    sentences,
)

SHELL, CHAT, CODE = "technical_docs", "daily_tasks", "programming"


@pytest.mark.parametrize(
    ("text", "category", "kind", "field", "value"),
    [
        (
            "Find all *.c files in /tmp and delete them",
            SHELL,
            "task",
            "vp",
            "find all *.c files in /tmp and delete them",
        ),
        (
            "Recursively finds all files and deletes them.",
            SHELL,
            "task",
            "vp",
            "recursively find all files and delete them",
        ),
        ("bash: how to split a string", CODE, "task", "vp", "split a string"),
        ("Deleting rows in a bash array", CODE, "task", "vp", "delete rows in a bash array"),
        ("How do I hide a password in a bash script?", CODE, "task", "vp", "hide a password in a bash script"),
        ("Backup the database to /tmp/x.sql", SHELL, "task", "vp", "back up the database to /tmp/x.sql"),
        ("please tell me my todo list", CHAT, "get", "np", "my todo list"),
        ("what is my name", CHAT, "get", "np", "my name"),
        ("could you repeat that, please", CHAT, "assist", "vp", "repeat that"),
        ("i need you to freeze my account", CHAT, "assist", "vp", "freeze my account"),
        ("would you mind reading my list and deleting it", CHAT, "assist", "vp", "read my list and delete it"),
        ("i want to report my card as lost", CHAT, "user", "vp", "report my card as lost"),
        ("show me how to change my oil", CHAT, "user", "vp", "change my oil"),
        ("tell me who programmed you", CHAT, "ask", "emb", "who programmed you"),
        ("tell me when my next paycheck will arrive", CHAT, "ask", "direct", "when will my next paycheck arrive"),
        ("my card was stolen yesterday", CHAT, "statement", "text", "my card was stolen yesterday"),
        (
            "Write a Python function that adds two numbers.",
            CODE,
            "artifact",
            "np",
            "a Python function that adds two numbers",
        ),
        ("Simple script to restart Apache", CODE, "noun", "np", "Simple script to restart Apache"),
    ],
)
def test_prompts_are_read_for_what_they_are(text: str, category: str, kind: str, field: str, value: str) -> None:
    parsed = parse(text, category)
    assert parsed.kind == kind
    assert getattr(parsed, field) == value


def test_scenes_and_word_problems_are_kept_whole() -> None:
    scene = "Imagine you are a librarian in a small town. Recommend three books to a visitor who likes the sea."
    assert parse(scene).kind == "role"
    problem = (
        "Anna has 10 pens and buys 5 more at the shop by her school. On Monday she gives 3 of them to her friend, and "
        "on Tuesday she loses 2. How many pens does Anna have now?"
    )
    assert parse(problem).kind == "math"


@pytest.mark.parametrize(
    "text",
    [
        "i need you to your volume",
        "i want to change my oil if you can tell me what to do",
        "tell me where to a w2 form",
    ],
)
def test_what_cannot_be_taken_apart_safely_is_not(text: str) -> None:
    parsed = parse(text, CHAT)
    assert parsed.kind in {"whole", "statement"}
    assert not parsed.vp


def test_the_lone_dot_that_names_a_directory_stays() -> None:
    assert parse("search for all the .c files in .", SHELL).vp.endswith("in .")
    assert parse("Find all empty files in /tmp directory .", SHELL).vp.endswith("directory")


def test_code_under_an_instruction_is_kept_beside_it() -> None:
    parsed = parse("Fix the following Java code so that it compiles.\nint x = 1\nprint(x)", CODE)
    assert parsed.attached == "int x = 1\nprint(x)"
    assert "\n" not in parsed.vp


def test_the_mask_hides_quotations_paths_and_code_but_no_prose() -> None:
    text = """Find "a and b" in /etc/passwd or '*.txt', with -name and files/directories of 10MB"""
    masked = mask(text)
    assert "Find" in masked
    assert "files/directories" in masked
    assert "10MB" in masked
    for hidden in ("a and b", "/etc", "*.txt", "-name"):
        assert hidden not in masked


@given(st.text(max_size=200))
def test_the_mask_is_as_long_as_the_text_and_changes_nothing_but_blots(text: str) -> None:
    masked = mask(text)
    assert len(masked) == len(text)
    assert all(m in (c, BLOT) for m, c in zip(masked, text, strict=True))


@given(st.text(max_size=300))
def test_no_text_breaks_the_parser_and_its_parts_come_from_somewhere(text: str) -> None:
    parsed = parse(text, None)
    assert parsed.kind
    assert len(parsed.vp) <= 2 * len(text) + 40


def test_sentences_end_outside_quotations_and_after_no_abbreviation() -> None:
    text = 'Print "Done. Bye." on stdout, e.g. with echo. Then exit! Is that all?'
    assert sentences(text) == ['Print "Done. Bye." on stdout, e.g. with echo.', "Then exit!", "Is that all?"]


@pytest.mark.parametrize(
    ("vp", "gerund", "third"),
    [
        ("find all files and delete them", "finding all files and deleting them", "finds all files and deletes them"),
        ("recursively copy a to b", "recursively copying a to b", "recursively copies a to b"),
        ("set read and execute permission", None, None),
        ('print "x and delete them"', 'printing "x and delete them"', 'prints "x and delete them"'),
        (
            "find files, then print the names",
            "finding files, then printing the names",
            "finds files, then prints the names",
        ),
        ("use find to locate and remove the files", None, None),
    ],
)
def test_coordinated_verbs_inflect_together_or_not_at_all(vp: str, gerund: str | None, third: str | None) -> None:
    assert inflect_phrase(vp, "gerund") == gerund
    assert inflect_phrase(vp, "third") == third


def test_heads_tell_where_the_verbs_are() -> None:
    found = heads("find x and delete them")
    assert found is not None
    assert [head.base for head in found] == ["find", "delete"]


@pytest.mark.parametrize(
    ("emb", "direct"),
    [
        ("what my name is", "what is my name"),
        ("if you are a bot", "are you a bot"),
        ("which vaccines i need to take", "which vaccines do i need to take"),
        ("what languages you can speak", "what languages can you speak"),
        ("who made you", "who made you"),
        ("what to call you", ""),
        ("when i received my last paycheck", ""),
    ],
)
def test_embedded_questions_turn_round_or_stay(emb: str, direct: str) -> None:
    assert direct_question(emb) == direct


@pytest.mark.parametrize(
    ("direct", "emb"),
    [
        ("who is your boss", "who your boss is"),
        ("what name do you use", "what name you use"),
        ("are you real", "if you are real"),
        ("where can i find it", "where i can find it"),
        ("what is the best way to cook rice for ten people", ""),
    ],
)
def test_direct_questions_embed_or_stay(direct: str, emb: str) -> None:
    assert embedded_question(direct) == emb


def test_repairs_touch_prose_only() -> None:
    assert repair("dispaly files in current directory") == "display files in the current directory"
    assert repair('Print "dispaly the files which has"') == 'Print "dispaly the files which has"'
    assert not re.search(r"which has", repair("show the files which has no owner"))


@pytest.mark.parametrize(
    ("vp", "gerund"),
    [
        ("ignore the warning and rerun the linter", "ignoring the warning and rerunning the linter"),
        ("stop the server and relaunch it", "stopping the server and relaunching it"),
        ("undo the change, then redo the merge", "undoing the change, then redoing the merge"),
        ("fix the bug and scour the logs", None),
        ("fix the bug and rejig the build", None),
        ("find all files in and below the current directory", "finding all files in and below the current directory"),
    ],
)
def test_a_coordinated_verb_that_is_unknown_is_never_left_behind(vp: str, gerund: str | None) -> None:
    assert inflect_phrase(vp, "gerund") == gerund


def test_a_code_fence_is_blotted_whole() -> None:
    text = "Fix this:\n```\nx = 1 and delete them\n```"
    assert mask(text) == "Fix this:\n" + BLOT * (len(text) - 10)


@pytest.mark.parametrize("end", [".", "?", "…", "？", "。", "؟", "।"])
def test_end_marks_of_any_language_are_no_part_of_a_phrase(end: str) -> None:
    assert parse(f"could you repeat that{end}", CHAT).vp == "repeat that"


@pytest.mark.parametrize(
    ("text", "language", "english"),
    [
        ("list all files", "en", True),
        ("list all files", "und", True),
        ("liste aller Dateien", "de", False),
        ("naïve Bayes in “R”", "en", True),
        ("naïve Bayes", "und", False),
        ("如何在Linux中杀死一个进程？", "en", False),
    ],
)
def test_english_is_told_from_the_guess_and_the_letters(text: str, language: str, english: bool) -> None:
    assert is_english(text, language) is english


@pytest.mark.parametrize(
    ("text", "enough"),
    [
        ("x", False),
        ("1", False),
        ("12 34", False),
        ("Hello!", False),
        ("你好", False),
        ("杀死进程", True),
        ("ls -la", True),
    ],
)
def test_an_utterance_has_two_words_or_four_characters(text: str, enough: bool) -> None:
    assert is_utterance(text) is enough
