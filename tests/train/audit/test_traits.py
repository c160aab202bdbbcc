"""Traits are what anybody can see of a prompt: its language and script, case, punctuation, how it opens."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import make_corpus
from crywolf.train.audit.language import languages, scripts
from crywolf.train.audit.traits import TRAITS, traits

SENTENCES = {
    "en": "Could you tell me which bus goes from the station to the old town in the evening?",
    "de": "Können Sie mir bitte sagen, welcher Bus abends vom Bahnhof in die Altstadt fährt?",
    "fr": "Pouvez-vous me dire quel bus va de la gare à la vieille ville le soir, s'il vous plaît ?",
    "es": "¿Podría decirme qué autobús va de la estación al casco antiguo por la noche?",
    "pt": "Você pode me dizer qual ônibus vai da estação até o centro histórico à noite?",
    "ru": "Подскажите, пожалуйста, какой автобус идёт вечером от вокзала в старый город?",
    "zh": "请问晚上从火车站到老城区应该坐哪一路公共汽车？",
    "ja": "夜に駅から旧市街へ行くには、どのバスに乗ればいいですか。",
    "hi": "कृपया बताइए कि शाम को स्टेशन से पुराने शहर तक कौन सी बस जाती है?",
    "ar": "هل يمكنك أن تخبرني أي حافلة تذهب من المحطة إلى المدينة القديمة في المساء؟",
}


def one(text: str) -> dict[str, object]:
    return traits(make_corpus([{"text": text}], label="BENIGN")).row(0, named=True)


def test_languages_are_told_apart_and_what_is_no_language_is_undetermined() -> None:
    texts = pl.Series([*SENTENCES.values(), "0x3f 17 == --", "👍"])
    assert languages(texts).to_list() == [*SENTENCES, "und", "und"]


def test_a_language_does_not_depend_on_the_other_rows() -> None:
    texts = list(SENTENCES.values())
    assert languages(pl.Series(texts[::-1] * 2)).to_list() == languages(pl.Series(texts)).to_list()[::-1] * 2


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Plain words", "Latin"),
        ("Straße", "Latin"),
        ("Привет, a world of letters и слова", "Latin"),
        ("Привет мир, ok", "Cyrillic"),
        ("老城区", "Han"),
        ("どのバス", "Kana"),
        ("1 + 1 = 2", "none"),
        ("ᏣᎳᎩ", "other"),
    ],
)
def test_scripts_go_by_most_letters(text: str, script: str) -> None:
    assert scripts(pl.Series([text, "beside another row"])).to_list()[0] == script


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "how do you sort it",
            {"case": "all lower", "end": "letter", "opening": "how", "opening_kind": "question"},
        ),
        ("SORT THIS LIST!", {"case": "ALL UPPER", "end": "!", "opening_kind": "imperative"}),
        ("Please sort it.", {"case": "Capital first", "end": ".", "opening_kind": "please"}),
        ("The List Of Many Things", {"case": "Title Case"}),
        ("你好吗？", {"case": "no case", "end": "?", "characters": 4, "words": 1}),
        ("a\nb\r\nc", {"line_breaks": 2, "words": 3}),
        ("ab12", {"digit_percent": 50.0, "punctuation_percent": 0.0, "end": "digit"}),
        ("(a)", {"opening": "a", "end": "other punctuation"}),
        ("कृपया बताइए कि", {"opening": "कृपया", "script": "Devanagari"}),
        ("You are a poet", {"opening_kind": "second person"}),
    ],
)
def test_a_prompt_s_traits(text: str, expected: dict[str, object]) -> None:
    found = one(text)
    assert {name: found[name] for name in expected} == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_every_text_has_every_trait(texts: list[str]) -> None:
    frame = make_corpus([{"text": f"x{text}"} for text in texts], label="BENIGN")
    found = traits(frame)
    assert found.height == frame.height
    used = {name for trait in TRAITS for name in (*trait.numeric, *trait.labels)}
    assert sum(found[name].null_count() for name in used) == 0
    assert found.select(pl.col(pl.Float64).is_between(0, 100).all()).row(0) == (True,) * 5
