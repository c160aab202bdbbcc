"""The contract of the whole house: the record table, its readers and writers, ids, atomic files and run manifests."""

from .atomic import atomic_path, check_target
from .errors import BadInput, CorruptPackage, CrywolfError, GateFailed, MissingExtra
from .manifest import RunManifest, file_hash, manifest_path
from .readers import Corpus, FalsePositives, read_corpus, read_fps
from .schema import (
    BENIGN,
    CATEGORIES,
    EXTRA,
    GROWN_CATEGORIES,
    LABELS,
    MALICIOUS,
    SCHEMA,
    THREAT_TYPES,
    check_corpus,
    empty_corpus,
    make_corpus,
    text_id,
    text_ids,
)
from .types import Encode, Progress, Score
from .writers import check_output, rejected_path, write_corpus, write_rejected

__all__ = [
    "BENIGN",
    "CATEGORIES",
    "EXTRA",
    "GROWN_CATEGORIES",
    "LABELS",
    "MALICIOUS",
    "SCHEMA",
    "THREAT_TYPES",
    "BadInput",
    "Corpus",
    "CorruptPackage",
    "CrywolfError",
    "Encode",
    "FalsePositives",
    "GateFailed",
    "MissingExtra",
    "Progress",
    "RunManifest",
    "Score",
    "atomic_path",
    "check_corpus",
    "check_output",
    "check_target",
    "empty_corpus",
    "file_hash",
    "make_corpus",
    "manifest_path",
    "read_corpus",
    "read_fps",
    "rejected_path",
    "text_id",
    "text_ids",
    "write_corpus",
    "write_rejected",
]
