"""What language and script a prompt is in, as a guess that is the same every time and needs no network.

Takes a text or a column of texts, gives language codes (`en`, `de`, ...; `und` where the text is too short or too odd
to tell) and scripts (`Latin`, `Cyrillic`, ...; `none` where there is no letter).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import polars as pl

from .types import Progress

UNDETERMINED = "und"
MIN_CONFIDENCE = 0.3
"""Below it a guess is no guess: on some 9,000 English prompts 3% got another language without this floor, 0.7% with."""
READ_CHARS = 400
"""Characters looked at: more changes the answer for hardly any prompt and costs time for long ones."""
SCRIPTS = {
    name: rf"\p{{{name}}}"
    for name in (
        "Latin",
        "Cyrillic",
        "Greek",
        "Arabic",
        "Hebrew",
        "Devanagari",
        "Bengali",
        "Tamil",
        "Telugu",
        "Gujarati",
        "Thai",
        "Hangul",
        "Han",
        "Georgian",
        "Armenian",
        "Ethiopic",
    )
} | {"Kana": r"[\p{Hiragana}\p{Katakana}]"}
_SAME = {"pcm": "en", "zxx": UNDETERMINED, "mul": UNDETERMINED}
# Nigerian Pidgin is what short English without articles is taken for; zxx is "no language at all".
_EVERY = 2048
_LETTER = re.compile(r"[^\W\d_]")
_SURE = 0.6
"""Below it `language_of` says English: short technical English otherwise lands anywhere."""


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The identifier with the model of its package; loading takes most of a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=MIN_CONFIDENCE)


@lru_cache(maxsize=4)
def _among(codes: frozenset[str]) -> Any:
    identifier = copy.copy(_identifier())  # the model's arrays are shared; what it chooses from is the copy's own
    identifier.set_languages(sorted(codes))
    return identifier


def language_of(text: str, among: Collection[str]) -> str:
    """Return which of some languages a text is most likely in; English where nothing tells.

    Args:
        text: a prompt; its first `READ_CHARS` characters are read.
        among: language codes to choose from.
    """
    head = text[:READ_CHARS]
    if not _LETTER.search(head):
        return "en"
    code, confidence = _among(frozenset(among) | {"en"}).classify(head)
    return str(code) if confidence >= _SURE else "en"


def identify(text: str) -> str:
    """Return the language of a text among all that are known, `und` where it is too short or too odd to tell."""
    code = _identifier().classify(text[:READ_CHARS])[0]
    return _SAME.get(code, str(code))


def languages(texts: pl.Series, *, progress: Progress | None = None) -> pl.Series:
    """Guess the language of each text, each distinct text once.

    Args:
        texts: prompts.
        progress: told about distinct texts.
    """
    identifier = _identifier()
    distinct = texts.unique(maintain_order=True)
    guesses = []
    # The identifier walks one text at a time; 3,000 a second.
    for at, text in enumerate(distinct.str.slice(0, READ_CHARS).to_list()):
        guesses.append(identifier.classify(text)[0])
        if progress is not None and at % _EVERY == 0:
            progress(at, len(distinct))
    if progress is not None:
        progress(len(distinct), len(distinct))
    guessed = pl.Series("language", guesses, dtype=pl.String).replace(_SAME)
    table = pl.DataFrame({"text": distinct, "language": guessed})
    return pl.DataFrame({"text": texts}).join(table, on="text", how="left", maintain_order="left")["language"]


def scripts(texts: pl.Series) -> pl.Series:
    """The script that most letters of each text are in; `none` without letters, `other` for a script not listed."""
    frame = pl.DataFrame({"text": texts})
    text = pl.col("text")
    # Most prompts of most corpora are plain ASCII, which needs none of the twenty counts.
    ascii_only = ~text.str.contains(r"[^\x00-\x7f]")
    plain = pl.when(text.str.contains("[A-Za-z]")).then(pl.lit("Latin")).otherwise(pl.lit("none"))
    frame = frame.with_columns(plain=ascii_only, script=plain).with_row_index("at")
    rest = frame.filter(~pl.col("plain")).with_columns(script=_counted(text))
    joined = frame.join(rest.select("at", counted="script"), on="at", how="left", maintain_order="left")
    return joined.select(script=pl.coalesce("counted", "script"))["script"]


def _counted(text: pl.Expr) -> pl.Expr:
    counts = {name: text.str.count_matches(pattern) for name, pattern in SCRIPTS.items()}
    most = pl.max_horizontal(counts.values())
    chosen: Any = pl.when((most == 0) & text.str.contains(r"\p{L}")).then(pl.lit("other"))
    chosen = chosen.when(most == 0).then(pl.lit("none"))
    for name, count in counts.items():
        chosen = chosen.when(count == most).then(pl.lit(name))
    return chosen.otherwise(pl.lit("none"))  # type: ignore[no-any-return]  # a chain of polars' When and Then
