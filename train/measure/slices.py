"""Slices that no file brings along: the language of a prompt and how long it is.

Takes rows with id and text, gives for each id its language (`crywolf.data.language`) and its bin of characters. Nothing
is computed before it is asked for: languages are guessed at some 3,000 prompts a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import polars as pl

LazySlice = Literal["language", "length"]
LAZY_SLICES: tuple[LazySlice, ...] = get_args(LazySlice)
LENGTHS: tuple[tuple[int, str], ...] = ((50, "to 50"), (200, "51 to 200"), (500, "201 to 500"), (2000, "501 to 2,000"))
"""The bins of length: the most characters of each, and what tables call it; above the last is `LONGEST`."""
LONGEST = "over 2,000"
NOT_SAVED = "(not saved)"
"""The slice of a row whose text and slice are both missing: a file saved without prompts by an older version."""


def lengths(texts: pl.Series) -> pl.Series:
    """The bin of each text's length in characters, the same bins for every corpus; null where the text is."""
    edges, names = [edge for edge, _ in LENGTHS], [*(name for _, name in LENGTHS), LONGEST]
    # A cut keeps its upper edge: 50 characters are still "to 50".
    return texts.str.len_chars().cast(pl.Int64).cut(edges, labels=names).cast(pl.String).alias("length")


@dataclass(frozen=True, eq=False)
class Slices:
    """Language and length by prompt, worked out when first asked for and then kept.

    Attributes:
        texts: id and text, every id once; text may be null.
        saved: id, language and length as a saved evaluation brought them; they stand where a text is missing.
    """

    texts: pl.DataFrame
    saved: pl.DataFrame | None = None

    @classmethod
    def of(cls, rows: pl.DataFrame, saved: pl.DataFrame | None = None) -> Slices:
        """The slices of these rows; ids may repeat."""
        return cls(rows.select("id", "text").unique(subset="id", keep="first", maintain_order=True), saved)

    @cached_property
    def language(self) -> pl.DataFrame:
        """Columns id and language (en, de, ...; und where the text is too short or too odd to tell)."""
        from crywolf.data.language import languages

        known = self.texts.filter(pl.col("text").is_not_null())
        return self._filled(known.select("id", languages(known["text"]).alias("language")), "language")

    @cached_property
    def length(self) -> pl.DataFrame:
        """Columns id and length, one of the bins of `LENGTHS`."""
        return self._filled(self.texts.select("id", lengths(self.texts["text"])), "length")

    def by(self, name: LazySlice) -> pl.DataFrame:
        """Columns id and the slice, null where neither the text nor a saved slice is there."""
        return self.language if name == "language" else self.length

    def join(self, rows: pl.DataFrame, name: LazySlice) -> pl.DataFrame:
        """The rows with the slice as a further column, in their order; `NOT_SAVED` where it is not known."""
        joined = rows.join(self.by(name), on="id", how="left", maintain_order="left")
        return joined.with_columns(pl.col(name).fill_null(NOT_SAVED))

    def _filled(self, found: pl.DataFrame, name: str) -> pl.DataFrame:
        """What was worked out and, where it could not be, what was saved."""
        whole = self.texts.select("id").join(found, on="id", how="left", maintain_order="left")
        if self.saved is None:
            return whole
        saved = self.saved.select("id", pl.col(name).alias("_saved"))
        joined = whole.join(saved, on="id", how="left", maintain_order="left")
        return joined.select("id", pl.coalesce(name, "_saved").alias(name))
