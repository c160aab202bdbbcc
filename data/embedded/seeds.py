"""The embedded benign prompts: the seeds that training starts from, and the demo's test set.

Takes nothing but the YAML groups beside this file; gives the seeds as a contract frame, the demo's prompts as the rows
of its committed file, and the paths of the demo's files. The two never share wording: a near-duplicate between them
would be leakage, and a test holds that line.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import polars as pl

from crywolf.data.schema import BENIGN, make_corpus

from .grammar import load_groups

_HERE: Final = Path(__file__).parent
_SEED_FOLDER: Final = _HERE / "benign"
_PROMPT_FOLDER: Final = _HERE / "prompts"
_DEMO_FOLDER: Final = _HERE / "demo"


def benign_prompts_path() -> Path:
    """The demo's benign prompts (JSONL: id, prompt, category), its "production traffic"."""
    return _DEMO_FOLDER / "benign_prompts.jsonl"


def fps_path() -> Path:
    """The false positives that a real detector made on the demo's benign prompts, in the harness's shape."""
    return _DEMO_FOLDER / "benign_test_results.json"


def benign_seeds() -> pl.DataFrame:
    """Benign prompts to train on: label BENIGN, source "seed".

    `subcategory` says the kind: "plain", "mention" (names an attack or a word that a detector fears), "long" (with
    pasted text), or "multilingual-" and the language's code.
    """
    return _seeds().clone()


@lru_cache(maxsize=1)
def _seeds() -> pl.DataFrame:
    return make_corpus(_groups(_SEED_FOLDER), source="seed", label=BENIGN)


def build_benign_prompts() -> list[dict[str, str]]:
    """Make the rows of the demo's benign prompts from their groups, in the file's order.

    The order mixes the kinds as traffic does, so that any first part of the file is a fair sample of it.
    """
    rows = _prompts().select("category", prompt="text").to_dicts()
    return [{"id": f"bp-{i:04d}", "prompt": r["prompt"], "category": r["category"]} for i, r in enumerate(rows, 1)]


def benign_prompts() -> pl.DataFrame:
    """The demo's benign prompts as a contract frame, with the kind of each in `subcategory`."""
    return _prompts().clone()


@lru_cache(maxsize=1)
def _prompts() -> pl.DataFrame:
    # The id is a hash of the text: sorting by it shuffles, and a prompt added later moves no other.
    return make_corpus(_groups(_PROMPT_FOLDER), source="demo", label=BENIGN).sort("id")


def _groups(folder: Path) -> list[dict[str, Any]]:
    """The distinct prompts of all files of a folder, of one text the first."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.yaml")):
        for row in load_groups(path):
            rows.setdefault(" ".join(row["text"].lower().split()), row)
    return list(rows.values())
