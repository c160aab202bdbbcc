"""The detectors that the arms are measured with: a probe on cached embeddings (seconds), or a fine-tuned encoder.

Takes training rows, gives a `score` (texts to P(malicious), (n,)). Every arm of a run uses the same maker.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from world import Score, World

from crywolf.data import Encode
from crywolf.train import QUICK, TrainedModel, fit


def probe(rows: pl.DataFrame, encode: Encode) -> Score:
    """Fit a logistic regression on the encoder's vectors."""
    from sklearn.linear_model import LogisticRegression

    vectors = encode(rows["text"].to_list())
    target = (rows["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    model = LogisticRegression(C=10.0, max_iter=2000).fit(vectors, target, sample_weight=rows["weight"].to_numpy())

    def score(texts: Sequence[str]) -> NDArray[np.float64]:
        return np.asarray(model.predict_proba(encode(list(texts)))[:, 1])

    return score


def finetune(rows: pl.DataFrame, world: World, *, encoder: Path, folder: Path, epochs: int, seed: int) -> Score:
    """Train on from an encoder (the base's) with the quick recipe; a run that was cut goes on where it was."""
    result = fit(
        rows,
        world.split.validation,
        recipe=replace(QUICK, epochs=epochs, patience=0, batch_size=16),
        out=folder,
        encoder=encoder,
        seed=seed,
        log=world.session.console.say,
    )
    return TrainedModel.load(result.model_dir).score


def base_encoder(model: Path, folder: Path) -> Path:
    """Write the encoder of a trained detector as an encoder's folder, so that arms can start from it."""
    if (folder / "model.safetensors").is_file():
        return folder
    from crywolf.mining import fetch_encoder
    from crywolf.train.learn.model import load_network, read_meta

    shutil.copytree(fetch_encoder(), folder, dirs_exist_ok=True)
    network = load_network(model, read_meta(model))
    network.encoder.save_pretrained(folder, safe_serialization=True)
    return folder


def training_rows(world: World, added: pl.DataFrame, *, replay: int, seed: int) -> pl.DataFrame:
    """The rows of an arm: originals and the false positives, the same in every arm of a seed, and what the arm adds."""
    order = np.random.default_rng([seed, 7]).permutation(world.split.train.height)[:replay]
    rows = pl.concat([world.split.train[np.sort(order)], world.fps, added])
    return rows.filter(~pl.col("id").is_in(world.split.validation["id"].implode()))
