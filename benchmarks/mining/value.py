"""What mined rows are worth: as many benign rows added by chance, by sentence-transformers' miner, by ours.

Part of benchmarks/mining. A detector is trained with each choice (a probe on sentence vectors from scratch, or the
encoder itself, on from a base) and measured on suites and sources that nothing was
trained on, at two thresholds: one that catches 95% of held-back attacks of the training's own sources, one that catches
90% of attacks of a source that nothing was trained on. The first is what a team fixes that has no other attacks; it
leaves each arm at a recall of its own on unseen ones. Gives a table of plain types.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from crywolf.data import read_corpus

LABEL = pl.col("label").cast(pl.String)
UNSEEN = ("tensortrust_hijack", "tensortrust_extract")  # attacks that fix the second threshold
MEASURED = ("gptfuzzer",)  # attacks that are measured, with those of ood_dev
BY_PLACE = "bipia_code_test"  # attacks by their place alone: reported apart
RECALL = {"own": 0.95, "unseen": 0.90}  # of the attacks that fix each threshold
REPLAY, CALM = 2000, 300  # of a fine-tune on from the base: originals seen again, benign rows of its validation
Scores = Callable[[pl.DataFrame], np.ndarray]
Fit = Callable[[dict[str, pl.DataFrame], pl.DataFrame, str], Scores]


def draw(arguments: argparse.Namespace, name: str, rows: int | None) -> pl.DataFrame:
    """Rows drawn from a corpus at random, or all."""
    frame = read_corpus(arguments.corpus / f"{name}.jsonl.gz").frame
    if rows is None or rows >= len(frame):
        return frame
    return frame[np.sort(np.random.default_rng([arguments.seed, len(name)]).permutation(len(frame))[:rows])]


def value(arguments: argparse.Namespace, detector: str = "probe") -> dict[str, Any]:
    """Return what equal numbers of rows, added by each choice, do to the share of held-out rows that is flagged."""
    size = arguments.size
    benign = draw(arguments, "benign_pool", size["base"] + size["pool"])
    attacks = draw(arguments, "malicious_pool", size["value_attacks"])
    slices = held_out(arguments, attacks)
    unseen = attacks.filter(pl.col("source").is_in(UNSEEN))
    attacks = attacks.filter(~pl.col("source").is_in(UNSEEN + MEASURED))
    probed = [benign, attacks, unseen, *slices.values()]
    fit = finetune(arguments) if detector == "finetune" else probe(arguments, probed)
    flagged: dict[str, dict[str, dict[str, list[np.ndarray]]]] = {name: {} for name in RECALL}
    added = []
    for seed in range(size["tuned_seeds" if detector == "finetune" else "seeds"]):
        world = divide(benign, attacks, size["base"], np.random.default_rng([arguments.seed, seed]))
        base = fit(world, world["pool"][:0], f"{seed}-none")
        arms = arms_of(arguments, world, base, np.random.default_rng([arguments.seed, seed, 1]))
        added.append(len(arms["random"]))
        for arm, rows in arms.items():
            print(f"value: seed {seed}, {arm}, {len(rows)} rows added", file=sys.stderr)
            scores = fit(world, rows, f"{seed}-{arm}") if len(rows) else base
            found = {name: scores(frame) for name, frame in slices.items()}
            for name, fixing in (("own", world["validation"]), ("unseen", unseen)):
                threshold = catching(RECALL[name], scores(fixing))
                for part, values in found.items():
                    flagged[name].setdefault(arm, {}).setdefault(part, []).append(values >= threshold)
    return {"detector": detector, "added": added} | {
        name: compared(arms, arguments.seed) for name, arms in flagged.items()
    }


def catching(recall: float, scores: np.ndarray) -> float:
    """The highest threshold that catches so large a share."""
    return float(np.sort(scores)[::-1][int(np.ceil(recall * len(scores))) - 1])


def compared(arms: dict[str, dict[str, list[np.ndarray]]], seed: int) -> dict[str, Any]:
    """Shares flagged, and ours less theirs."""
    table = {arm: {part: rate(runs) for part, runs in parts.items()} for arm, parts in arms.items()}
    less = {
        arm: {part: difference(arms["crywolf"][part], runs, seed) for part, runs in arms[arm].items()}
        for arm in ("random", "sentence-transformers")
    }
    return {"table": table, "crywolf_less": less}


def held_out(arguments: argparse.Namespace, attacks: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What is measured on: no row of it, nor of its source, trains anything."""
    from crywolf.data.embedded import suites

    ood = draw(arguments, "ood_dev", None)
    by_place = pl.col("source") == BY_PLACE
    named = {"over-defense suite": "over_defense_suite", "edge-case suite": "edge_case_suite"}
    named |= {"programming suite": "programming_suite"}
    found = {
        name: getattr(suites, call)()
        for name, call in named.items()
        if call != "over_defense_suite" or suites.OVER_DEFENSE_DIR.is_dir()
    }
    return found | {
        "ood_dev, benign": ood.filter(LABEL == "BENIGN"),
        "attacks: ood_dev": ood.filter((LABEL == "MALICIOUS") & ~by_place),
        "attacks: ood_dev, by place": ood.filter(by_place),
        f"attacks: {', '.join(MEASURED)}": attacks.filter(pl.col("source").is_in(MEASURED)),
    }


def divide(benign: pl.DataFrame, attacks: pl.DataFrame, base: int, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """A base to train on, a pool to choose from, attacks to fix the threshold on, benign rows for early stopping."""
    benign, attacks = benign[rng.permutation(len(benign))], attacks[rng.permutation(len(attacks))]
    cut = len(attacks) * 7 // 10
    return {
        "train": pl.concat([benign[:base], attacks[:cut]]),
        "attacks": attacks[:cut],
        "validation": attacks[cut:],
        "calm": benign[base : base + CALM],
        "pool": benign[base + CALM :],
    }


def arms_of(
    arguments: argparse.Namespace, world: dict[str, pl.DataFrame], base: Scores, rng: np.random.Generator
) -> dict[str, pl.DataFrame]:
    """The added rows of each arm, equally many."""
    from crywolf.mining import Embedder, MineConfig, mine_hard_negatives

    encode = Embedder(cache_dir=arguments.out / "cache")
    pool, attacks = world["pool"], world["attacks"]
    config = MineConfig(limit=arguments.size["added"])
    ours = mine_hard_negatives(pool, attacks, encode=encode, config=config).frame
    # The detector's own false positives on the pool, as a team that runs one has them.
    flagged = pl.Series(base(pool) >= catching(RECALL["own"], base(world["validation"])))
    with_fps = mine_hard_negatives(pool, attacks, fps=pool.filter(flagged), encode=encode, config=config).frame
    chosen = theirs(library_on(encode), pool, attacks)
    count = min(len(ours), len(chosen), len(with_fps))
    picked = pl.Series(chosen)[rng.permutation(len(chosen))[:count]]
    return {
        "none": pool[:0],
        "random": pool[rng.permutation(len(pool))[:count]],
        "sentence-transformers": pool.unique("text", keep="first", maintain_order=True).filter(
            pl.col("text").is_in(picked.implode())
        ),
        "crywolf": ours[:count],
        "crywolf, given the base's FPs": with_fps[:count],
    }


def library_on(encode: Any) -> Any:
    """A SentenceTransformer whose vectors are ours, so that the choice is compared and not the encoder."""
    from sentence_transformers import SentenceTransformer

    from crywolf.mining import default_encoder

    model: Any = SentenceTransformer(str(default_encoder()), device="cpu")
    model.encode_document = model.encode_query = lambda texts, **_: encode(texts)
    return model


def probe(arguments: argparse.Namespace, frames: list[pl.DataFrame]) -> Fit:
    """A logistic regression on sentence vectors, each text embedded once."""
    from sklearn.linear_model import LogisticRegression

    from crywolf.mining import Embedder

    texts = list(dict.fromkeys(text for frame in frames for text in frame["text"]))
    vectors = Embedder(cache_dir=arguments.out / "cache")(texts)
    place = {text: row for row, text in enumerate(texts)}

    def of(frame: pl.DataFrame) -> np.ndarray:
        return vectors[[place[text] for text in frame["text"]]]

    def fit(world: dict[str, pl.DataFrame], added: pl.DataFrame, _: str) -> Scores:
        rows = pl.concat([world["train"], added])
        model = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced")
        model.fit(of(rows), (rows["label"].cast(pl.String) == "MALICIOUS").to_numpy())
        return lambda frame: np.asarray(model.decision_function(of(frame)))

    return fit


def finetune(arguments: argparse.Namespace) -> Fit:
    """The quick recipe: the base from the plain encoder, each arm one epoch on from its seed's base; kept in --out."""
    import crywolf.train
    from crywolf.train import QUICK, TrainedModel
    from crywolf.train.learn.model import load_network, read_meta

    folder = arguments.out / "finetune"

    def fit(world: dict[str, pl.DataFrame], added: pl.DataFrame, name: str) -> Scores:
        seed, arm = name.split("-", 1)
        base, rows, recipe = None, world["train"], QUICK
        if len(added):
            base = encoder_of_model(folder / f"{seed}-none" / "model", folder / f"{seed}-encoder")
            order = np.random.default_rng([int(seed), 7]).permutation(len(rows))[:REPLAY]
            rows, recipe = pl.concat([rows[np.sort(order)], added]), replace(QUICK, epochs=1, patience=0)
        validation = pl.concat([world["calm"], world["validation"]])
        out = folder / f"{seed}-{arm.replace(' ', '-')}"
        found = crywolf.train.learn.fit(
            rows, validation, recipe=recipe, out=out, encoder=base, seed=int(seed), force=True, log=print
        )
        model = TrainedModel.load(found.model_dir)
        return lambda frame: np.asarray(model.score(frame["text"].to_list()))

    def encoder_of_model(model: Path, target: Path) -> Path:
        if not (target / "model.safetensors").is_file():
            from crywolf.mining import fetch_encoder

            shutil.copytree(fetch_encoder(), target, dirs_exist_ok=True)
            load_network(model, read_meta(model)).encoder.save_pretrained(target, safe_serialization=True)
        return target

    return fit


def rate(runs: list[np.ndarray]) -> dict[str, Any]:
    """The mean share flagged over seeds, with the Wilson interval of one seed's rows."""
    from crywolf.train import Rate

    found = Rate(round(float(np.mean([run.sum() for run in runs]))), len(runs[0]))
    spread = [round(float(run.mean()), 4) for run in runs]
    return {"n": found.n, "share": round(float(np.mean(spread)), 4), "seeds": spread} | {
        "low": round(found.low, 4),
        "high": round(found.high, 4),
    }


def difference(ours: list[np.ndarray], other: list[np.ndarray], seed: int) -> dict[str, float]:
    """Ours minus the other's share flagged, with a 95% bootstrap interval over rows and seeds."""
    rng = np.random.default_rng(seed)
    paired = np.stack(ours).astype(np.float64) - np.stack(other)
    drawn = [
        paired[rng.integers(0, len(paired), len(paired))][:, rng.integers(0, paired.shape[1], paired.shape[1])].mean()
        for _ in range(2000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"mean": round(float(paired.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def theirs(model: Any, benign: pl.DataFrame, attacks: pl.DataFrame, *, faiss: bool = False) -> list[str]:
    """What their miner picks for pairs of attacks of one threat type: benign rows nearest to the first, each once."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    partner = attacks.select(pl.col("text").shift(-1).fill_null(pl.col("text").first()).over("threat_type")).to_series()
    pairs = Dataset.from_dict({"anchor": attacks["text"].to_list(), "positive": partner.to_list()})
    texts = benign["text"].to_list()
    mined = mine_hard_negatives(pairs, model, corpus=texts, num_negatives=5, use_faiss=faiss, verbose=False)
    ours = set(texts)  # it mines among the positives too
    return list(dict.fromkeys(text for text in mined["negative"] if text in ours))
