"""crywolf stops a prompt-threat detector from crying wolf.

The face of the house: `import crywolf` gives the functions that the commands are made of. Each name is imported when
it is first used, so the import itself is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crywolf.augment import GrowConfig, GrowResult, deduplicate, grow
    from crywolf.data import Corpus, CrywolfError, make_corpus, read_corpus, read_fps, write_corpus
    from crywolf.export import Detector, export_package, load_detector
    from crywolf.feedback import Store, ingest
    from crywolf.mining import Embedder, MineConfig, mine_hard_negatives
    from crywolf.train import Recipe, assemble, check_gates, compare, evaluate, fit, split_originals

__all__ = [
    "Corpus",
    "CrywolfError",
    "Detector",
    "Embedder",
    "GrowConfig",
    "GrowResult",
    "MineConfig",
    "Recipe",
    "Store",
    "assemble",
    "check_gates",
    "compare",
    "deduplicate",
    "evaluate",
    "export_package",
    "fit",
    "grow",
    "ingest",
    "load_detector",
    "make_corpus",
    "mine_hard_negatives",
    "read_corpus",
    "read_fps",
    "split_originals",
    "write_corpus",
]

_ROOMS = ("data", "augment", "mining", "train", "export", "feedback")


def __getattr__(name: str) -> Any:
    """Import a public name from the room that holds it, on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'crywolf' has no attribute {name!r}")
    for room in _ROOMS:
        module = importlib.import_module(f"crywolf.{room}")
        if name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            globals()[name] = value
            return value
    raise AttributeError(f"crywolf.{name} is promised but in no room")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
