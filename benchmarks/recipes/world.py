"""What every recipe is trained and measured on: corpora, what was grown from the handoff, and folds of whole sources.

A fold holds whole sources out, of both labels: their rows, every row grown from one of them, and near-duplicates of
either. Nothing of ood_dev or of the embedded suites is ever trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from crywolf.augment import nearest_reference
from crywolf.data import read_corpus
from crywolf.data.embedded import edge_case_suite, embedded_training, programming_suite
from crywolf.data.embedded.suites import over_defense_suite
from crywolf.train import assemble, split_originals

LABEL = pl.col("label").cast(pl.String)
MOST = 1000  # rows of a held-out source
FOLDS: dict[str, tuple[str, ...]] = {
    "1": ("qualifire", "security_mentions"),
    "2": ("gpteacher_roleplay", "trustair_jailbreak", "pyrit_jailbreak", "gptfuzzer"),
    "3": ("code_alpaca", "tensortrust_hijack", "tensortrust_extract"),
    "4": ("nl2bash", "gsm8k", "cyberseceval_pi", "cyberseceval_pi_ml"),
    "5": ("clinc150", "banking77", "stackoverflow_titles", "bipia_text_train", "bipia_code_train"),
}
"""Sources left out together. Close kin goes together: role-plays, the games of one site, translations."""


@dataclass(frozen=True)
class Corpora:
    """The rows by where they come from; `origin` is the source of the row that a grown one was made of."""

    pool: pl.DataFrame
    grown: pl.DataFrame
    ood: pl.DataFrame

    @property
    def suites(self) -> dict[str, pl.DataFrame]:
        """Rows that are measured on whatever is held out."""
        ours = {
            "over-defense suite": over_defense_suite(),
            "programming suite": programming_suite(),
            "edge-case suite": edge_case_suite(),
        }
        keys = self.ood.select("source", LABEL.alias("label")).unique().sort("source", "label").rows()
        parts = {
            f"ood_dev: {source}{' (attacks)' if label == 'MALICIOUS' else ''}": self.ood.filter(
                (pl.col("source") == source) & (label == LABEL)
            )
            for source, label in keys
        }
        return {**parts, **ours}


@dataclass(frozen=True)
class Fold:
    """A training table, validation rows of the same sources, and the held-out sources by name."""

    train: pl.DataFrame
    validation: pl.DataFrame
    held: dict[str, pl.DataFrame]


def load(corpus: Path, grown: Path | None) -> Corpora:
    """Read the corpora and, where asked for, the grown rows."""
    pool = pl.concat([read_corpus(corpus / f"{name}_pool.jsonl.gz").frame for name in ("benign", "malicious")])
    made = pool.clear() if grown is None else read_corpus(grown).frame
    return Corpora(pool, made, read_corpus(corpus / "ood_dev.jsonl.gz").frame)


def fold(corpora: Corpora, sources: Sequence[str], *, doubtful: pl.Series | None, seed: int) -> Fold:
    """Leave sources out of everything and put a training table together from the rest.

    Args:
        corpora: the rows.
        sources: names of the sources to leave out.
        doubtful: ids of rows that are left out of training because their label is doubtful.
        seed: of the split and of what is drawn.
    """
    aside = corpora.pool.filter(pl.col("source").is_in(list(sources)))
    rest = corpora.pool.filter(~pl.col("source").is_in(list(sources)))
    grown = corpora.grown.filter(~pl.col("origin_id").is_in(aside["id"].implode()).fill_null(value=False))
    split = split_originals(rest, fractions=(0.92, 0.04, 0.04), rng=np.random.default_rng(seed))
    grown = grown.filter(
        ~pl.col("origin_id").is_in(pl.concat([split.validation["id"], split.test["id"]]).implode()).fill_null(False)
    )
    train = split.train if doubtful is None else split.train.filter(~pl.col("id").is_in(doubtful.implode()))
    embedded = embedded_training()
    originals = pl.concat([train, embedded.filter(~pl.col("id").is_in(train["id"].implode()))])
    holdouts = [
        ("validation", split.validation),
        ("test", split.test),
        ("held out", aside),
        ("ood_dev", corpora.ood),
        *((name, frame) for name, frame in corpora.suites.items() if "suite" in name),
    ]
    table = assemble(originals, grown, holdouts=holdouts, rng=np.random.default_rng(seed)).frame
    held = {}
    for source, label in aside.select("source", LABEL.alias("label")).unique().sort("source", "label").rows():
        rows = aside.filter((pl.col("source") == source) & (label == LABEL))
        clean = rows.filter(pl.Series(nearest_reference(rows["text"].to_list(), table["text"].to_list()) < 0))
        name = f"{source} (attacks)" if label == "MALICIOUS" else source
        held[name] = clean[np.sort(np.random.default_rng(2).permutation(clean.height)[:MOST])]
    return Fold(table, split.validation, held)
