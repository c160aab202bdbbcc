"""The embedded breadth: prompts of the many kinds that narrow corpora lack, to be trained on beside the user's own.

Takes the YAML groups in `breadth/`; gives a contract frame. A corpus of shell tasks and banking questions teaches a
classifier that role-play, long briefs, follow-ups ("rewrite your previous answer") and other languages are malicious;
these rows say otherwise, and bring attacks of the same forms so that the forms themselves say nothing.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

import polars as pl

from crywolf.data.schema import BENIGN, MALICIOUS, make_corpus

from .attacks import malicious_seeds
from .grammar import load_groups
from .seeds import benign_seeds

BREADTH_DIR: Final = Path(__file__).parent / "breadth"
SOURCE: Final = "breadth"


def breadth() -> pl.DataFrame:
    """Benign prompts and attacks of many kinds: source "breadth", the kind in `subcategory`."""
    return _breadth().clone()


def embedded_training() -> pl.DataFrame:
    """Everything embedded that training may see: breadth and the seeds of both labels, every text once."""
    return pl.concat([breadth(), benign_seeds(), malicious_seeds()]).unique("id", keep="first", maintain_order=True)


@lru_cache(maxsize=1)
def _breadth() -> pl.DataFrame:
    frames = []
    for folder, label in (("benign", BENIGN), ("malicious", MALICIOUS)):
        rows = [row for path in sorted((BREADTH_DIR / folder).glob("*.yaml")) for row in load_groups(path)]
        frames.append(make_corpus(rows, source=SOURCE, label=label))
    return pl.concat(frames).unique("id", keep="first", maintain_order=True)
