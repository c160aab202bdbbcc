"""The embedded validation suites: benign prompts that no training data may share a pattern or near-duplicate with.

Takes the YAML groups in `suites/` and gives contract frames with source "suite". They measure; nothing grows from them.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import polars as pl

from crywolf.data.schema import make_corpus

from .attacks import load_directory, to_rows

SUITES_DIR: Final = Path(__file__).parent / "suites"
OVER_DEFENSE_DIR: Final = SUITES_DIR / "over_defense"


@lru_cache(maxsize=1)
def _suite_rows() -> pl.DataFrame:
    return make_corpus(to_rows(load_directory(SUITES_DIR), label="BENIGN", source="suite"))


@lru_cache(maxsize=1)
def programming_suite() -> pl.DataFrame:
    """Benign programming prompts, the area as subcategory; enough rows to show a rate below 0.5% if none is flagged."""
    return _suite_rows().filter(pl.col("category") == "programming")


@lru_cache(maxsize=1)
def edge_case_suite() -> pl.DataFrame:
    """Benign prompts at the edge: subcategory ambiguous_query, technical_jargon or mixed_context."""
    return _suite_rows().filter(pl.col("category") == "edge_cases")


@lru_cache(maxsize=1)
def over_defense_suite() -> pl.DataFrame:
    """Benign prompts with one, two or three trigger words: subcategory one, two or three; 14 languages beside English.

    `extra.notes` names the trigger words and, where it is not English, the language ("lang=de; ignorieren, Passwort").
    """
    return make_corpus(to_rows(load_directory(OVER_DEFENSE_DIR), label="BENIGN", source="suite"))
