"""The border between benign and malicious: embeddings, a nearest-neighbour index, hard negatives and a review queue.

Takes contract frames and an `Encode` callable, gives the benign rows that sit nearest to attacks, those that a person
has to look at first, and a table of what each rule kept and dropped.
"""

from .cache import VectorCache
from .embed import Embedder
from .encoder import DEFAULT_NAME, default_encoder, encoder_hash, fetch_encoder, resolve_encoder
from .hard_negatives import ENTRY_RULES, REVIEW_COLUMNS, MineConfig, MineResult, mine_hard_negatives
from .index import build_index, pairs_above, search
from .queue import empty_review, read_review, write_review

__all__ = [
    "DEFAULT_NAME",
    "ENTRY_RULES",
    "REVIEW_COLUMNS",
    "Embedder",
    "MineConfig",
    "MineResult",
    "VectorCache",
    "build_index",
    "default_encoder",
    "empty_review",
    "encoder_hash",
    "fetch_encoder",
    "mine_hard_negatives",
    "pairs_above",
    "read_review",
    "resolve_encoder",
    "search",
    "write_review",
]
