"""The page: whole, self-contained, and safe whatever a prompt contains."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus
from crywolf.train.measure.evaluate import Evaluation, compare, evaluate
from crywolf.train.measure.gates import check_gates
from crywolf.train.measure.intervals import Rate
from crywolf.train.measure.suites import Suite, suite_of
from crywolf.train.report import plots
from crywolf.train.report.report import (
    MAX_SHOWN,
    Figure,
    HardPrompt,
    ReportData,
    Table,
    build_report,
    render_report,
    table_from,
    visible,
    write_report,
)
from crywolf.train.report.texts import parts, plain

HOSTILE = (
    "<script>alert(1)</script>",
    "</bdi></ol><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    "&lt;b&gt; already escaped &amp; twice",
    "reversed \u202edesrever\u202c and isolated \u2066x\u2069",
    "zero\u200bwidth\u200djoined\ufeff",
    "tags \U000e0041\U000e0042 and selectors \ufe0f\U000e0101",
    "controls \x01\x07\x1b[31m\x7f\x9b",
    "line\u2028para\u2029no-break\u00a0blank\u3164filler\u2800braille",
    "]]> <!-- --> <style>*{display:none}</style>",
)
VOID = {"meta", "br", "img", "input", "link", "hr"}
CATEGORIES = ("programming", "<b>bold</b>", "$x^2$", None)


class Page(HTMLParser):
    """What a reader's browser makes of a page: its elements, attributes and text, and whether all tags close."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.prompts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "bdi":
            self.prompts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "bdi" in self.open:
            self.prompts[-1] += data


def suites() -> tuple[Suite, ...]:
    plain_rows = [{"text": f"good prompt {i}", "label": "BENIGN", "category": CATEGORIES[i % 4]} for i in range(200)]
    hostile = [{"text": text, "label": "BENIGN", "category": "edge_cases", "source": "<i>s</i>"} for text in HOSTILE]
    bad = [{"text": f"bad prompt {i}", "label": "MALICIOUS", "threat_type": "semantic_jailbreak"} for i in range(120)]
    benign = make_corpus([*plain_rows, *hostile])
    return (
        suite_of("benign_test", benign, l1_stopped=frozenset(benign["id"][:9])),
        suite_of("malicious_held_out", make_corpus(bad)),
        suite_of("benign_test_whole", benign, held_out=False, note="seen in training"),
    )


def drawn(seed: int, name: str) -> Evaluation:
    rng = np.random.default_rng(seed)
    hot = set(HOSTILE)

    def score(texts: list[str]) -> np.ndarray:
        base = rng.random(len(texts))
        return np.array(
            [0.9 + 0.1 * x if t in hot else x if "bad" in t else 0.6 * x for t, x in zip(texts, base, strict=True)]
        )

    return evaluate(score, threshold=0.5, suites=suites(), name=name)


@pytest.fixture(scope="module")
def data() -> ReportData:
    before, after = drawn(1, "old <model>"), drawn(2, "new & model")
    pair = compare(before, after)
    return build_report(
        after,
        title="Report <of> tests",
        subtitle="one & two",
        comparison=pair,
        before=before,
        gates=check_gates(after, pair),
        history=[{"epoch": i, "loss": 1.0 / (i + 1), "validation_recall": 0.9, "note": None} for i in range(3)],
        best_epoch=2,
        show_prompts=True,
        hardest=200,
        composition=(table_from(pl.DataFrame({"category": ["<b>"], "rows": [12_345]}), "Composition of rows"),),
        dedup=(Table("Dropped rows", ("reason", "rows"), (("duplicate_within", 3),)),),
        mining=(Table("Mined rows", ("rule", "share"), (("margin", 0.25), ("topk", None))),),
        robustness_text="robust <or> not",
        parameters=(("seed", "<0>"),),
        notes=("a <note>",),
    )


@pytest.fixture(scope="module")
def page(data: ReportData) -> str:
    return render_report(data)


def test_hostile_prompts_reach_the_reader_as_text_and_nothing_else(page: str) -> None:
    found = Page(page)
    assert found.open == []
    assert not {"script", "img", "iframe", "object", "embed", "link", "form", "base"} & set(found.tags)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    for text in HOSTILE:
        spelled = "".join(part.text for part in parts(text))
        assert spelled in found.prompts, text
    assert found.tags.count("style") == 1 + page.count('<style type="text/css">')  # the page's own and matplotlib's


def test_nothing_invisible_is_left_on_the_page(page: str) -> None:
    for char in "\u202e\u202c\u2066\u200b\u200d\ufeff\U000e0041\ufe0f\x01\x07\x1b\x7f\u2028\u3164\u2800":
        assert char not in page
    assert "U+202E" in page
    assert 'title="right-to-left override"' in page


def test_the_page_loads_nothing_and_says_so_in_its_policy(page: str) -> None:
    found = Page(page)
    policy = [
        value for tag, name, value in found.attributes if tag == "meta" and name == "content" and "default-src" in value
    ]
    assert len(policy) == 1
    assert policy[0].startswith("default-src 'none'")
    assert "script-src" not in policy[0]
    loading = [value for _, name, value in found.attributes if name in ("src", "href", "xlink:href", "action", "data")]
    assert loading
    assert all(value.startswith("#") for value in loading)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)  # only the names of XML name spaces


def test_every_section_that_has_content_is_there_and_reachable(page: str) -> None:
    found = Page(page)
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for tag, name, value in found.attributes if tag == "a" and name == "href"}
    assert targets <= set(ids)
    assert targets >= {
        *("headline", "gates", "false-positives", "scores", "calibration", "regression", "composition", "dedup"),
        *("mining", "training", "hardest", "parameters", "notes"),
    }
    assert "Composition of rows" in page
    assert "12,345" in page


def test_the_verdict_comes_first_with_every_must_gate_that_does_not_pass(page: str, data: ReportData) -> None:
    assert data.gates is not None
    head = page.split("</header>")[0]
    assert head.index("<h1>") < head.index('class="verdict')
    short = [row for row in data.gates.rows if row.gate.level == "must" and row.verdict != "pass"]
    assert short
    shown = head.split('<ul class="short">')[1]
    assert shown.count("<li>") == len(short)
    for row in short:
        assert row.gate.suite in shown
        assert row.observed.split(" (")[0] in shown
    order = [page.index(f'<section id="{name}"') for name in SECTIONS]
    assert order == sorted(order)


SECTIONS = (
    *("gates", "headline", "false-positives", "regression", "robustness", "scores", "calibration", "hardest"),
    *("composition", "dedup", "mining", "training", "parameters", "notes"),
)


def test_a_section_without_content_says_why_or_is_left_out(data: ReportData) -> None:
    page = render_report(replace(data, mining=(), dedup=(), absent={"mining": "mining was <off>"}))
    section = page.split('aria-labelledby="h-mining">')[1].split("</section>")[0]
    assert "mining was &lt;off&gt;" in section
    assert "<table" not in section
    assert 'href="#mining"' in page
    assert 'id="dedup"' not in page
    assert "nothing was dropped" in render_report(
        ReportData(title="t", dedup=(Table("d", ("a",), (), empty="nothing was dropped"),))
    )


def test_red_flags_with_the_same_remedies_stand_together(page: str, data: ReportData) -> None:
    assert data.gates is not None
    up = data.gates.red_flags
    assert page.count('<div class="flag">') == len({row.remedies for row in up}) > 0
    doubled = replace(data.gates, rows=(*data.gates.rows, *up))
    assert render_report(replace(data, gates=doubled)).count('<div class="flag">') == page.count('<div class="flag">')


def test_an_interval_of_a_gate_is_not_cut_by_a_line_break(page: str, data: ReportData) -> None:
    assert data.gates is not None
    table = page.split("Gates and their answers")[1].split("</table>")[0]
    assert table.count('<span class="ci">') == sum("95% CI" in row.observed for row in data.gates.rows)
    assert "95% CI" not in re.sub(r'<span class="ci">.*?</span>', "", table)


def test_small_languages_stand_in_one_line_and_lengths_in_their_order() -> None:
    texts = {
        "en": "please tell me how the weather is going to be in the mountains tomorrow, number",
        "de": "bitte sag mir, wie das Wetter morgen in den Bergen werden wird, Nummer",
        "fr": "dis-moi quel temps il va faire demain dans les montagnes, s'il te plaît, numéro",
    }
    rows = [
        {"text": f"{texts[of]} {i}", "label": "BENIGN"}
        for of, n in (("en", 12), ("de", 3), ("fr", 2))
        for i in range(n)
    ]
    rows += [{"text": "x" * 30, "label": "BENIGN"}, {"text": "word " * 80, "label": "BENIGN"}]
    found = evaluate(
        lambda given: np.array([0.9 if len(text) > 300 else 0.1 for text in given]),
        threshold=0.5,
        suites=(suite_of("benign_test", make_corpus(rows)),),
    )
    tables = {table.caption: table.rows for table in build_report(found, title="t").evaluation}
    languages = tables["False positives by language"]
    assert languages[0] == ("en", 12, Rate(0, 12))
    assert str(languages[-1][0]).endswith("others, fewer than 10 rows each")
    assert sum(row[1] for row in languages) == 19  # type: ignore[misc]  # counts
    assert sum(row[2].k for row in languages) == 1  # type: ignore[union-attr]  # rates
    lengths = [row[0] for row in tables["False positives by length in characters"]]
    assert lengths == ["to 50", "51 to 200", "201 to 500"]


def test_cells_of_numbers_shares_and_hashes() -> None:
    cells = (("a", 1_234_567, 12_345.6, 0.0125, "45.9%", "ab" * 32),)
    page = render_report(ReportData(title="t", sizes=(Table("s", ("n", "i", "f", "g", "p", "h"), cells),)))
    for shown in (
        "1,234,567",
        "12,346",
        "0.0125",
        '<td class="num">45.9%</td>',
        f'<code class="hash">{"ab" * 32}</code>',
    ):
        assert shown in page


def test_how_to_reproduce_is_escaped(data: ReportData) -> None:
    page = render_report(replace(data, reproduce=("crywolf <retrain>",), configuration="out: <script>\nseed: 1"))
    section = page.split('aria-labelledby="h-parameters">')[1].split("</section>")[0]
    assert "crywolf &lt;retrain&gt;" in section
    assert "out: &lt;script&gt;\nseed: 1" in section


def test_tables_and_drawings_are_named_for_readers_who_do_not_see_them(page: str) -> None:
    found = Page(page)
    assert found.tags.count("caption") == found.tags.count("table")
    headers = [tag for tag in found.tags if tag == "th"]
    scopes = [value for tag, name, value in found.attributes if tag == "th" and name == "scope"]
    assert len(scopes) == len(headers)
    drawings = [value for tag, name, value in found.attributes if tag == "svg" and name == "role"]
    assert drawings == ["img"] * 5
    labelled = [value for tag, name, value in found.attributes if tag == "svg" and name == "aria-labelledby"]
    ids = {value for _, name, value in found.attributes if name == "id"}
    assert all(part in ids for value in labelled for part in value.split())


def test_names_of_categories_and_models_are_escaped_in_drawings_and_tables(page: str) -> None:
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "$x^2$" in page
    assert "old &lt;model&gt;" in page
    assert "<i>s</i>" not in page


def test_what_is_not_held_out_is_named_so(page: str) -> None:
    assert "benign_test_whole (not held out)" in page
    assert "benign_test_whole, 211 rows: seen in training" in page
    assert "a &lt;note&gt;" in page
    assert "benign_test, rows that L2 saw" in page


def test_prompts_stay_out_unless_asked_even_if_they_were_put_in(data: ReportData) -> None:
    hidden = render_report(replace(data, show_prompts=False))
    assert "good prompt" not in hidden
    assert "alert(1)" not in hidden
    assert data.hardest[0].id in hidden
    assert build_report(drawn(1, "m"), title="t").hardest[0].text == ""


def test_the_same_data_gives_the_same_page(data: ReportData, page: str) -> None:
    assert render_report(data) == page
    again = build_report(drawn(2, "new & model"), title="t")
    assert {name: figure.svg for name, figure in again.figures.items()} == {
        name: figure.svg for name, figure in build_report(drawn(2, "new & model"), title="t").figures.items()
    }


def test_a_report_without_anything_is_still_a_page() -> None:
    found = Page(render_report(ReportData(title="empty")))
    assert found.open == []
    assert "table" not in found.tags


def test_a_report_of_one_model_alone_has_one_column() -> None:
    found = drawn(1, "only")
    page = render_report(build_report(found, title="alone", gates=check_gates(found)))
    assert "Rates by suite" in page
    assert "not asked" in page
    table = Page(page.split('aria-labelledby="h-headline">')[1].split("</section>")[0])
    # Four heads (slice, measure, n, rate); a row for each suite, and one for the rows of two of them that L2 saw.
    assert table.tags.count("th") == 4 + found.table().height + found.table(where="l2").height


def test_a_report_on_benign_rows_alone_is_drawn_without_the_measures_that_need_attacks() -> None:
    found = evaluate(lambda texts: np.full(len(texts), 0.2), threshold=0.5, suites=suites()[:1])
    page = render_report(build_report(found, title="benign"))
    assert "No held-out benign prompt is flagged." in page
    section = page.split('aria-labelledby="h-calibration">')[1].split("</section>")[0]
    assert "The held-out suites hold benign rows alone: calibration needs attacks too." in section
    assert "<svg" not in section


def test_writing_is_whole_or_not_at_all(data: ReportData, page: str, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    assert write_report(data, target) == target
    assert target.read_text(encoding="utf-8") == page
    with pytest.raises(BadInput):
        write_report(data, target)
    write_report(replace(data, title="another"), target, force=True)
    assert "another" in target.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_figure_from_elsewhere_is_refused(data: ReportData) -> None:
    for svg in ("<svg><script>alert(1)</script></svg>", "<img src=x>"):
        with pytest.raises(BadInput, match=r"crywolf\.train\.report\.plots"):
            render_report(replace(data, figures={"category": Figure(svg, "x")}))


def test_a_table_with_uneven_rows_is_refused() -> None:
    with pytest.raises(BadInput, match="row 1"):
        Table("t", ("a", "b"), ((1, 2), (1,)))


def test_a_very_long_prompt_is_cut_and_says_by_how_much() -> None:
    shown = str(visible("a" * (MAX_SHOWN + 1_234)))
    assert "and 1,234 more characters" in shown
    assert shown.count("a" * MAX_SHOWN) == 1
    page = render_report(
        ReportData(title="t", show_prompts=True, hardest=(HardPrompt("1", "c", "t", 0.9, "x" * 9_999),))
    )
    assert "5,999 more characters" in page


@given(st.text(alphabet=st.characters(), max_size=60))
def test_any_text_at_all_is_shown_as_escaped_utf8(text: str) -> None:
    shown = str(visible(text))
    shown.encode("utf-8")
    spelled = Page(f"<bdi>{shown}</bdi>").prompts[0]
    assert spelled == "".join(part.text for part in parts(text))
    assert all(not part.hidden for part in parts(spelled))


@given(st.text(max_size=40))
def test_readable_text_is_left_as_it_is(text: str) -> None:
    readable = "".join(part.text for part in parts(text) if not part.hidden)
    assert "".join(part.text for part in parts(readable)) == readable
    assert "\n" not in plain(text)


def test_letters_of_any_script_are_readable() -> None:
    for text in ("Привет, мир", "اكتب قصة", "नमस्ते", "日本語の文", "naïve café", "emoji 🐺"):
        assert not any(part.hidden for part in parts(text))


def test_drawings_do_not_depend_on_the_machine_and_follow_the_page_colours() -> None:
    table = pl.DataFrame(
        {
            "group": ["a<b", "$\\frac{1}{2}$"],
            "n": [10, 20],
            **{f"{name}_after": [0.1, 0.0] for name in ("value", "low", "high")},
        }
    )
    first, second = plots.fp_by_category(table), plots.fp_by_category(table)
    assert first == second
    assert "var(--after, #0072b2)" in first
    assert "\\frac{1}{2}" in first
    assert "a&lt;b" in first
    assert "<metadata" not in first
    assert "DejaVu" not in first


def test_rate_cells_carry_their_counts() -> None:
    page = render_report(ReportData(title="t", sizes=(Table("s", ("a", "b"), (("x", Rate(1, 200)),)),)))
    assert "1/200; 95% CI" in page
