"""The border between benign and malicious: embeddings, a nearest-neighbour index, hard negatives and a review queue.

Takes contract frames and an `Encode` callable, gives the benign rows that sit nearest to attacks, those that a person
has to look at first, and a table of what each rule kept and dropped.
"""

from .cache import VectorCache
from .config import MineConfig
from .embed import Embedder
from .encoder import DEFAULT_NAME, default_encoder, encoder_hash, fetch_encoder, resolve_encoder
from .hard_negatives import Mined, MineResult, mine_hard_negatives
from .index import VectorIndex, build_index, load_index, search
from .near import IndexPlan, IndexReport
from .queue import empty_review, read_review, write_review
from .rules import ENTRY_RULES, REVIEW_COLUMNS

__all__ = [
    "DEFAULT_NAME",
    "ENTRY_RULES",
    "REVIEW_COLUMNS",
    "Embedder",
    "IndexPlan",
    "IndexReport",
    "MineConfig",
    "MineResult",
    "Mined",
    "VectorCache",
    "VectorIndex",
    "build_index",
    "default_encoder",
    "empty_review",
    "encoder_hash",
    "fetch_encoder",
    "load_index",
    "mine_hard_negatives",
    "read_review",
    "resolve_encoder",
    "search",
    "write_review",
]
