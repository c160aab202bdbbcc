"""Template samples fit their prompt, are complete, and never repeat."""

import re

import numpy as np
import pytest

from crywolf.augment.operators.templates import TemplatePicker, fill, find_entities, stems_of
from crywolf.data.embedded.lexicons import lexicons
from crywolf.data.embedded.templates import Template, templates


@pytest.fixture(scope="module")
def picker() -> TemplatePicker:
    return TemplatePicker()


@pytest.mark.parametrize(
    ("text", "category", "subcategory"),
    [
        ("change permissions of all files in /srv to 755", "technical_docs", "shell_permissions"),
        ("How do I log in a user with OAuth and a JWT token?", "programming", "authentication"),
        ("please whisper and talk slower", "daily_tasks", "voice_settings"),
        ("my credit card was stolen, report the fraud", "professional", "cards_and_fraud"),
        ("remind me to call mom", "daily_tasks", "reminders"),
        ("Explain prompt injection for a chatbot security training", "edge_cases", "security_awareness"),
    ],
)
def test_keywords_lead_to_the_subject(picker: TemplatePicker, text: str, category: str, subcategory: str) -> None:
    assert subcategory in [group.subcategory for group, _ in picker.relevance(text, category)[:3]]


def test_a_group_serves_only_the_categories_that_it_fits(picker: TemplatePicker) -> None:
    groups = [group for group, _ in picker.relevance("list the files of my to do list", "daily_tasks")]
    assert groups
    assert not [group for group in groups if group.category == "legitimate_programming"]


def test_keywords_are_whole_words(picker: TemplatePicker) -> None:
    assert "authentication" not in [group.subcategory for group, _ in picker.relevance("blogging in Rome", None)]


def test_samples_are_complete_distinct_and_labelled() -> None:
    picker = TemplatePicker()
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        found += picker.samples(
            "Find all *.cgi files under /srv/www and change them to 775", n=5, rng=rng, category="technical_docs"
        )
    texts = [grown.text for grown in found]
    assert len(set(texts)) == len(texts) > 100
    assert not [text for text in texts if re.search(r"\{[a-z_ ]+\}", text)]
    assert all(grown.category and grown.subcategory and grown.how.startswith("template:") for grown in found)


def test_a_template_serves_once_a_prompt(picker: TemplatePicker) -> None:
    found = picker.samples("grep a word in a log file", n=30, rng=np.random.default_rng(2), category="technical_docs")
    hows = [grown.how for grown in found]
    assert len(set(hows)) == len(hows) == 30


def test_what_the_prompt_names_is_taken_over() -> None:
    picker = TemplatePicker()
    prompt = "Find all *.cgi files under /srv/www and change their permission to 775"
    texts = " ".join(
        grown.text for grown in picker.samples(prompt, n=40, rng=np.random.default_rng(3), category="technical_docs")
    )
    assert "*.cgi" in texts
    assert "/srv/www" in texts


def test_nothing_else_of_the_prompt_is_taken_over() -> None:
    picker = TemplatePicker()
    prompt = "How do I handle zebrafish uploads in xylophone.service login"
    for grown in picker.samples(prompt, n=40, rng=np.random.default_rng(4), category="programming"):
        assert "zebrafish" not in grown.text
        assert "How do I handle zebra" not in grown.text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Find *.log files in /var/log and print them", {"glob": "*.log", "dir": "/var/log"}),
        ("write to /etc/apt/sources.list as root", {}),
        ("count lines of report.csv, mode 640", {"file": "report.csv", "mode": "640"}),
        ("all '.php' files below ~/www", {"ext": ".php", "dir": "~/www"}),
        ("a Python script and a C++ one", {"language": "Python"}),
        ("go for it in 2023", {}),
    ],
)
def test_entities_are_found_as_written(text: str, wanted: dict[str, str]) -> None:
    assert find_entities(text) == wanted


def test_filling_puts_the_right_article_and_capital() -> None:
    item = Template("x", "{thing_cap} is {a thing}.", "generic_variation", "s", slots={"thing": ("egg",)})
    assert fill(item, rng=np.random.default_rng(0), lexicon=lexicons()).text == "Egg is an egg."


def test_lexicon_slots_of_one_template_go_together() -> None:
    item = Template(
        "x",
        "{language} and {framework}",
        "legitimate_programming",
        "s",
        slots={"language": "language", "framework": "framework"},
    )
    rng = np.random.default_rng(0)
    for _ in range(50):
        language, framework = fill(item, rng=rng, lexicon=lexicons()).text.split(" and ", 1)
        one, other = lexicons().entry("language", language), lexicons().entry("framework", framework)
        assert one
        assert other
        assert lexicons().compatible(one, other)


def test_a_required_entity_must_be_named_and_is_used() -> None:
    item = Template(
        "x",
        "What is in {dir}?",
        "legitimate_programming",
        "s",
        keywords=("list",),
        slots={"dir": ("/opt",)},
        requires=frozenset({"dir"}),
    )
    picker = TemplatePicker([item])
    rng = np.random.default_rng(0)
    assert picker.samples("list it", n=1, rng=rng) == []
    assert [grown.text for grown in picker.samples("list /srv/x", n=1, rng=rng)] == ["What is in /srv/x?"]


def test_cosines_choose_templates_and_the_floor_leaves_out() -> None:
    items = [
        Template(str(i), f"number {i}", "generic_variation", "s", keywords=("number",), slots={}) for i in range(3)
    ]
    picker = TemplatePicker(items)
    cosines = np.array([0.9, 0.1, 0.2], dtype=np.float32)
    rng = np.random.default_rng(0)
    found = picker.samples("no keyword here", n=3, rng=rng, cosines=cosines, floor=0.15)
    assert [grown.text for grown in found] == ["number 0", "number 2"]


def test_specimens_are_the_same_every_time_and_line_up_with_templates() -> None:
    picker = TemplatePicker()
    assert picker.specimens() == TemplatePicker().specimens()
    assert len(picker.specimens()) == len(picker.templates) == len(templates())


def test_without_any_keyword_there_is_no_sample(picker: TemplatePicker) -> None:
    assert picker.samples("zzz qqq", n=3, rng=np.random.default_rng(0)) == []


def test_the_same_generator_gives_the_same_samples() -> None:
    first, second = (
        TemplatePicker().samples("list files", n=6, rng=np.random.default_rng(5), category="technical_docs")
        for _ in range(2)
    )
    assert first == second


def test_a_prompt_is_filed_by_cosine_first_then_by_keywords() -> None:
    picker = TemplatePicker()
    text = "list my files"
    found = picker.home(text, "legitimate_programming", category="technical_docs")
    assert found
    assert found.category == "legitimate_programming"
    cosines = np.zeros(len(picker.templates), dtype=np.float32)
    cosines[[item.subcategory for item in picker.templates].index("cron")] = 0.9
    near = picker.home(text, "legitimate_programming", category="technical_docs", cosines=cosines)
    assert near
    assert near.subcategory == "cron"
    assert picker.home("zzz", None) is None


def test_stems_join_singular_and_plural() -> None:
    assert stems_of("permissions of a file") & stems_of("Permission denied")
