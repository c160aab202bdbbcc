"""A prompt's language is told among all, or among some; its script goes by its letters."""

import numpy as np
import polars as pl
import pytest

from crywolf.augment.operators.contexts import ContextPicker
from crywolf.data.embedded.contexts import all_contexts
from crywolf.data.language import identify, language_of, languages, scripts

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
    ("text", "language"),
    [
        ("How do I kill a process on port 8080?", "en"),
        ("kubectl get pods -n kube-system", "en"),
        ("", "en"),
        ("ls", "en"),
        ("1 + 1 = 2", "en"),
        ("¿Cómo puedo reiniciar el router de mi casa?", "es"),
        ("如何用 Python 读取 CSV 文件？", "zh"),
        ("как отсортировать список в python", "ru"),
    ],
)
def test_the_language_of_a_prompt_among_those_that_can_be_grown(text: str, language: str) -> None:
    assert language_of(text, tuple(all_contexts())) == language


@pytest.mark.parametrize("language", sorted(all_contexts()))
def test_most_sentences_of_every_language_are_told_to_be_of_it(language: str) -> None:
    found = ContextPicker().samples(100, np.random.default_rng(0), language=language)
    right = [language_of(grown.text, tuple(all_contexts())) == language for grown in found]
    assert np.mean(right) >= 0.9


def test_a_language_that_is_not_asked_for_is_not_given() -> None:
    german = SENTENCES["de"]
    assert identify(german) == "de"
    assert language_of(german, ["en", "zh"]) in {"en", "zh"}
    assert language_of(german, ["de"]) == "de"
