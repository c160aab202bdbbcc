"""Near-duplicates: which prompts say the same thing in nearly the same characters, and which do in other words.

A near-duplicate is a pair whose exact Jaccard similarity over lower-cased character 5-grams, white space folded, is at
least a threshold (0.8). MinHash signatures and banding find the candidates, exact Jaccard decides, so precision is 1
and recall at the threshold itself is above 0.99999. `sketch` hashes and signs texts, `pairs` finds pairs, clusters and
the nearest of a reference, `frames` deduplicates contract frames, `index` remembers texts between runs, `semantic`
compares meanings, `leakage` holds a corpus against its holdouts.
"""

from .frames import DedupResult, Keep, deduplicate, lineage
from .index import NearIndex
from .leakage import leakage
from .pairs import near_duplicate_clusters, near_duplicate_pairs, nearest_reference, nearest_with_jaccard
from .semantic import COSINE, SemanticResult, drop_semantic, semantic_duplicates, semantic_pairs
from .sketch import (
    NUM_PERM,
    SHINGLE,
    THRESHOLD,
    banding,
    fold,
    hash_shingles,
    jaccard,
    minhash_signatures,
    shingles,
    sign,
)

__all__ = [
    "COSINE",
    "NUM_PERM",
    "SHINGLE",
    "THRESHOLD",
    "DedupResult",
    "Keep",
    "NearIndex",
    "SemanticResult",
    "banding",
    "deduplicate",
    "drop_semantic",
    "fold",
    "hash_shingles",
    "jaccard",
    "leakage",
    "lineage",
    "minhash_signatures",
    "near_duplicate_clusters",
    "near_duplicate_pairs",
    "nearest_reference",
    "nearest_with_jaccard",
    "semantic_duplicates",
    "semantic_pairs",
    "shingles",
    "sign",
]
