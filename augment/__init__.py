"""Grows false positives into benign training data: rewrites, swaps, templates and twins, guarded and deduplicated."""

from .dedup import (
    DedupResult,
    NearIndex,
    deduplicate,
    jaccard,
    leakage,
    near_duplicate_clusters,
    near_duplicate_pairs,
    nearest_reference,
    semantic_duplicates,
)
from .diversity import Diversity, distinct_n, diversity
from .engine import GrowConfig, GrowResult, grow, usable_attacks
from .growth import Growth
from .guards import Guard, GuardResult, guard, nearest_cosine
from .operators.templates import TemplatePicker, find_entities
from .operators.types import Grown

__all__ = [
    "DedupResult",
    "Diversity",
    "GrowConfig",
    "GrowResult",
    "Grown",
    "Growth",
    "Guard",
    "GuardResult",
    "NearIndex",
    "TemplatePicker",
    "deduplicate",
    "distinct_n",
    "diversity",
    "find_entities",
    "grow",
    "guard",
    "jaccard",
    "leakage",
    "near_duplicate_clusters",
    "near_duplicate_pairs",
    "nearest_cosine",
    "nearest_reference",
    "semantic_duplicates",
    "usable_attacks",
]
