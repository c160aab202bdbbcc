"""What can be seen of a prompt without understanding it: length, language, case, punctuation, how it opens.

Takes contract rows, gives a frame with a column for each such property, row by row, and says which of them make up a
trait whose hold on the label is worth measuring (`TRAITS`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

from crywolf.data import Progress
from crywolf.data.language import UNDETERMINED, languages, scripts

Kind = Literal["text", "provenance"]
NONE = "(none)"
_OPENING_CHARS = 24
_FIRST_WORD = r"^[^\p{L}\p{N}]*([\p{L}\p{M}\p{N}'’_-]+)"
_QUESTIONS = frozenset(
    [
        "what",
        "what's",
        "whats",
        "how",
        "how's",
        "why",
        "who",
        "who's",
        "whose",
        "whom",
        "where",
        "where's",
        "when",
        "which",
        "is",
        "isn't",
        "are",
        "aren't",
        "am",
        "was",
        "were",
        "do",
        "don't",
        "does",
        "doesn't",
        "did",
        "didn't",
        "can",
        "can't",
        "could",
        "would",
        "should",
        "will",
        "won't",
        "has",
        "have",
        "had",
        "may",
        "might",
        "shall",
    ]
)
_FIRST_PERSON = ["i", "i'm", "im", "i'd", "i've", "i'll", "my", "we", "we're", "we've", "our", "me"]
_SECOND_PERSON = ["you", "you're", "you've", "you'll", "your"]


@dataclass(frozen=True)
class Trait:
    """A property of rows that might give the label away.

    Attributes:
        name: as the tables show it.
        numeric: columns that are numbers.
        labels: column that is a name, or None.
        kind: `text`, what a model can read off a prompt; `provenance`, what only the table knows.
        cells: whether its values or bands are shown one by one.
    """

    name: str
    numeric: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    kind: Kind = "text"
    cells: bool = True


TRAITS: tuple[Trait, ...] = (
    Trait("characters", ("characters",)),
    Trait("words", ("words",)),
    Trait("language", labels=("language",)),
    Trait("main language or not", labels=("language_group",)),
    Trait("script", labels=("script",)),
    Trait("letter case", ("upper_percent", "capital_percent"), ("case",)),
    Trait("punctuation", ("punctuation_percent",)),
    Trait("digits", ("digit_percent",)),
    Trait("symbols", ("symbol_percent",)),
    Trait("last character", labels=("end",)),
    Trait("line breaks", ("line_breaks",)),
    Trait("opening word", labels=("opening",)),
    Trait("kind of opening", labels=("opening_kind",)),
    Trait(
        "all of these together",
        (
            "characters",
            "words",
            "upper_percent",
            "capital_percent",
            "punctuation_percent",
            "digit_percent",
            "symbol_percent",
            "line_breaks",
        ),
        ("language", "script", "case", "end", "opening_kind"),
        cells=False,
    ),
    Trait("source", labels=("source",), kind="provenance"),
    Trait("category", labels=("category",), kind="provenance"),
)


def traits(frame: pl.DataFrame, *, progress: Progress | None = None) -> pl.DataFrame:
    """Return the properties of each row, in the frame's order.

    Args:
        frame: contract rows.
        progress: told about texts whose language was guessed.
    """
    text = pl.col("text")
    trimmed = text.str.strip_chars()
    first = trimmed.str.extract(_FIRST_WORD, 1).str.to_lowercase().str.replace_all("’", "'")
    out = frame.select(
        "source",
        pl.col("category").fill_null(NONE),
        characters=text.str.len_chars().cast(pl.Int64),
        words=text.str.count_matches(r"\S+").cast(pl.Int64),
        line_breaks=text.str.count_matches(r"\r\n|[\n\r\x{2028}\x{2029}]").cast(pl.Int64),
        _letters=text.str.count_matches(r"\p{L}"),
        _upper=text.str.count_matches(r"\p{Lu}"),
        _lower=text.str.count_matches(r"\p{Ll}"),
        _capitals=text.str.count_matches(r"(?:^|[^\p{L}])\p{Lu}"),
        _capital_first=trimmed.str.contains(r"^[^\p{L}]*\p{Lu}"),
        punctuation_percent=_percent(text, r"\p{P}"),
        digit_percent=_percent(text, r"\p{N}"),
        symbol_percent=_percent(text, r"\p{S}"),
        end=_end(trimmed),
        opening=first.str.slice(0, _OPENING_CHARS).fill_null(NONE),
    )
    out = out.with_columns(
        upper_percent=100.0 * pl.col("_upper") / pl.max_horizontal(pl.col("_letters"), 1),
        capital_percent=(100.0 * pl.col("_capitals") / pl.max_horizontal(pl.col("words"), 1)).clip(0.0, 100.0),
        script=scripts(frame["text"]),
        language=languages(frame["text"], progress=progress),
    )
    out = out.with_columns(case=_case(), opening_kind=_opening_kind(out["opening"]))
    most = (
        out["language"]
        .filter(out["language"] != UNDETERMINED)
        .value_counts(sort=True)
        .sort("count", "language", descending=[True, False])["language"]
    )
    main = most[0] if len(most) else UNDETERMINED
    other = pl.when(pl.col("language").is_in([main, UNDETERMINED])).then("language")
    out = out.with_columns(language_group=other.otherwise(pl.lit(f"other than {main}")))
    return out.drop(name for name in out.columns if name.startswith("_"))


def _percent(text: pl.Expr, pattern: str) -> pl.Expr:
    return 100.0 * text.str.count_matches(pattern) / pl.max_horizontal(text.str.len_chars(), 1)


def _end(trimmed: pl.Expr) -> pl.Expr:
    """The last character, where it is one that ends or breaks off a sentence."""
    last = trimmed.str.slice(-1)
    return (
        pl.when(last.is_in(list("?？؟")))
        .then(pl.lit("?"))
        .when(last.is_in(list(".。।")))
        .then(pl.lit("."))
        .when(last.is_in(list("!！")))
        .then(pl.lit("!"))
        .when(last.str.contains(r"^\p{L}"))
        .then(pl.lit("letter"))
        .when(last.str.contains(r"^\p{N}"))
        .then(pl.lit("digit"))
        .when(last.str.contains(r"^\p{P}"))
        .then(pl.lit("other punctuation"))
        .otherwise(pl.lit("other"))
    )


def _case() -> pl.Expr:
    upper, lower, capital = pl.col("_upper"), pl.col("_lower"), pl.col("capital_percent")
    return (
        pl.when((upper == 0) & (lower == 0))
        .then(pl.lit("no case"))
        .when(upper == 0)
        .then(pl.lit("all lower"))
        .when((lower == 0) & (upper > 1))
        .then(pl.lit("ALL UPPER"))
        .when((capital >= 80) & (pl.col("words") > 2))
        .then(pl.lit("Title Case"))
        .when(pl.col("upper_percent") > 30)
        .then(pl.lit("much UPPER"))
        .when(pl.col("_capital_first"))
        .then(pl.lit("Capital first"))
        .otherwise(pl.lit("small first"))
    )


def _opening_kind(openings: pl.Series) -> pl.Series:
    """Question, order, polite request, or whom the first word speaks of; in English, others are `other`."""
    distinct = openings.unique()
    table = pl.DataFrame({"opening": distinct, "kind": [_kind(word) for word in distinct.to_list()]})
    joined = pl.DataFrame({"opening": openings}).join(table, on="opening", how="left", maintain_order="left")
    return joined["kind"].rename("opening_kind")


def _kind(word: str) -> str:
    from lemminflect import getAllLemmas

    named = (
        (_QUESTIONS, "question"),
        (("please", "kindly"), "please"),
        (_FIRST_PERSON, "first person"),
        (_SECOND_PERSON, "second person"),
    )
    for words, kind in named:
        if word in words:
            return kind
    is_verb = word.isascii() and word in getAllLemmas(word, upos="VERB").get("VERB", ())
    return "imperative" if is_verb else "other"
