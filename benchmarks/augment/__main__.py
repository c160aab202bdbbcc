"""Which generator's data cuts held-out false positives most, at the same budget and without costing recall?

A base detector is trained without the sources that its false positives are then harvested from; 200 of them go to each
generator, each gives the same number of samples, and each arm trains on from the base with the same recipe on the same
originals, the 200 and its samples. What is measured no arm has trained on. `make bench-augment` runs it, with QUICK=1
for one seed and a probe on cached embeddings. Every step is kept in --out and reused (a changed generator is not seen:
delete its arms, --out/full/NAME-SEED). It writes docs/bench/augment.json and augment.md.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from detectors import base_encoder, finetune, probe, training_rows
from generators import NAMES, generate, missing
from numpy.typing import NDArray
from ours import grow_samples
from quality import quality
from tables import markdown
from world import FP_SOURCES, LABEL, Score, World, build, candidates, open_session, prepare

from crywolf import stages
from crywolf.data import make_corpus
from crywolf.train import TrainedModel
from crywolf.workspace import fingerprint

OURS = "crywolf"
NONE = "none"
FP_TARGET = 0.01


def main() -> None:
    """Run all arms and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with benign_pool, malicious_pool, ood_dev")
    parser.add_argument("--out", type=Path, default=Path("work/bench-augment"), help="where everything is kept")
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"), help="where the tables go")
    parser.add_argument("--quick", action="store_true", help="one seed, a probe on cached embeddings")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--benign", type=int, default=6000, help="benign originals of the base, drawn by chance")
    parser.add_argument("--malicious", type=int, default=2500, help="attacks of the base, drawn by chance")
    parser.add_argument("--harvest", type=int, default=None, help="rows that FPs are harvested from [quick: 8000]")
    parser.add_argument("--fps", type=int, default=None, help="false positives for each generator [200; quick: 80]")
    parser.add_argument("--samples", type=int, default=2000, help="samples that each arm adds")
    parser.add_argument("--replay", type=int, default=2000, help="originals that each arm trains on beside them")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="only these generators")
    arguments = parser.parse_args()
    arguments.fps = arguments.fps or (80 if arguments.quick else 200)
    keep_settings(arguments)
    start = time.perf_counter()
    world, base = open_world(arguments)
    names = [name for name in (NONE, *NAMES, OURS) if name not in missing()]
    names = [name for name in names if not arguments.only or name in (*arguments.only, NONE)]
    seeds = 1 if arguments.quick else arguments.seeds
    # The base is one and the same whatever the seed.
    arms = {
        name: [run_arm(world, base, name, seed, arguments) for seed in range(1 if name == NONE else seeds)]
        for name in names
    }
    result = {
        "kind": "quick: probe on embeddings" if arguments.quick else "fine-tuned on from the base",
        "settings": {
            key: getattr(arguments, key) for key in ("fps", "samples", "replay", "epochs", "benign", "malicious")
        },
        "seeds": seeds,
        "fp_sources": list(FP_SOURCES),
        "counts": world.counts,
        "rows": {name: frame.height for name, frame in {**world.benign, **world.attacks}.items()},
        "missing": missing(),
        "arms": arms,
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    arguments.docs.mkdir(parents=True, exist_ok=True)
    name = "augment-quick" if arguments.quick else "augment"
    (arguments.docs / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (arguments.docs / f"{name}.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


def keep_settings(arguments: argparse.Namespace) -> None:
    """Note what --out is of; refuse to go on from another run, whose arms and scores would be taken for this one's."""
    names = ("fps", "samples", "replay", "epochs", "benign", "malicious", "harvest")
    settings = {name: getattr(arguments, name) for name in names}
    note = arguments.out / ("quick.json" if arguments.quick else "full.json")
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"{arguments.out} holds a run with other settings ({note}); name another --out")
    arguments.out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def open_world(arguments: argparse.Namespace) -> tuple[World, Score]:
    """Train the base (or find it trained), harvest its false positives, and lay out the world."""
    session = open_session(arguments.corpus, arguments.out, benign=arguments.benign, malicious=arguments.malicious)
    split = prepare(session)
    if arguments.quick:
        base = probe(split.train, session.encode)
    else:
        package = stages.train_detector(session, "base", split.train, split)
        base = TrainedModel.load(package.parent / "model" / "model").score
    limit = arguments.harvest or (8_000 if arguments.quick else 40_000)
    rows = candidates(split, limit=limit, seed=0)
    kind = "probe" if arguments.quick else "base"
    calm = split.validation.filter(LABEL == "BENIGN")
    threshold = own_threshold(kept(session.config.out, f"{kind} validation", calm, base))
    flagged = kept(session.config.out, f"{kind} harvest", rows, base) >= threshold
    world = build(session, split, arguments.corpus, rows, flagged, given=arguments.fps)
    return replace(world, kind="quick" if arguments.quick else "full", threshold=threshold), base


def kept(out: Path, name: str, rows: pl.DataFrame, score: Score) -> NDArray[np.float64]:
    """Score rows, or read the scores of an earlier run."""
    path = out / "scores" / f"{fingerprint({'name': name, 'ids': rows['id'].to_list()})}.npy"
    if path.is_file():
        return np.asarray(np.load(path, allow_pickle=False))
    scores = np.asarray(score(rows["text"].to_list()), dtype=np.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, scores, allow_pickle=False)
    return scores


def own_threshold(benign: NDArray[np.float64]) -> float:
    """The lowest threshold that flags at most 1% of the benign validation rows."""
    scores = np.sort(benign)[::-1]
    return float(np.nextafter(scores[int(FP_TARGET * len(scores))], np.inf))


def run_arm(world: World, base: Score, name: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Generate, train and measure one arm with one seed; done once."""
    folder = arguments.out / ("quick" if arguments.quick else "full") / f"{name.replace(' ', '-')}-{seed}"
    path = folder / "measured.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    began = time.perf_counter()
    samples, seconds = samples_of(world, base, name, seed, arguments, folder / "samples.parquet")
    score = base if name == NONE else train_arm(world, samples, folder, seed, arguments)
    measured: dict[str, Any] = {"samples": samples.height, "seconds_to_grow": seconds}
    measured |= measure(world, base, score)
    if name != NONE:
        benign = samples.filter(LABEL == "BENIGN")
        prompts = dict(world.fps.select("id", "text").iter_rows())
        texts, origins = benign["text"].to_list(), benign["origin_id"].to_list()
        measured["quality"] = quality(texts, origins, prompts, encode=world.session.encode)
    path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    print(f"{name}, seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    return measured


def samples_of(
    world: World, base: Score, name: str, seed: int, arguments: argparse.Namespace, path: Path
) -> tuple[pl.DataFrame, float]:
    """The samples of a generator, and the seconds that it took; those of an earlier run are kept."""
    note = path.with_suffix(".json")
    if path.is_file() and note.is_file():
        return pl.read_parquet(path), float(json.loads(note.read_text(encoding="utf-8")))
    began = time.perf_counter()
    samples = make_samples(world, base, name, seed, arguments)
    seconds = round(time.perf_counter() - began, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    samples.write_parquet(path)
    note.write_text(json.dumps(seconds), encoding="utf-8")
    return samples, seconds


def make_samples(world: World, base: Score, name: str, seed: int, arguments: argparse.Namespace) -> pl.DataFrame:
    """The samples of a generator, as contract rows; exactly as many as asked for, or all it has."""
    if name == NONE:
        return world.fps.head(0)
    if name == OURS:
        return grow_samples(world, base, world.threshold, n=arguments.samples, seed=seed)
    rows = generate(name, world.fps.select("id", "text", "category"), arguments.samples, seed)
    # A tool may leave a prompt empty; what cannot be a row is not one.
    rows = rows.filter(pl.col("text").str.strip_chars() != "")
    return make_corpus(rows.select("text", "origin_id", "how"), source="augmented", label="BENIGN")


def train_arm(world: World, samples: pl.DataFrame, folder: Path, seed: int, arguments: argparse.Namespace) -> Score:
    """Train an arm on the same originals and false positives as every other arm of its seed, and its samples."""
    if arguments.quick:
        return probe(training_rows(world, samples, replay=world.split.train.height, seed=seed), world.session.encode)
    rows = training_rows(world, samples, replay=arguments.replay, seed=seed)
    encoder = base_encoder(arguments.out / "base" / "model" / "model", arguments.out / "base-encoder")
    return finetune(rows, world, encoder=encoder, folder=folder / "fit", epochs=arguments.epochs, seed=seed)


def measure(world: World, base: Score, score: Score) -> dict[str, Any]:
    """Flagged rows of each slice at the base's recall: its recall on validation, and that on held-out attacks."""
    validation = world.split.validation.filter(LABEL == "MALICIOUS")
    kind = "base" if world.kind == "full" else "probe"
    threshold = world.threshold
    before = float((kept(world.session.config.out, f"{kind} validation", validation, base) >= threshold).mean())
    matched = at_recall(score(validation["text"].to_list()), before)
    benign = {name: score(frame["text"].to_list()) for name, frame in world.benign.items()}
    attacks = {name: score(frame["text"].to_list()) for name, frame in world.attacks.items()}
    outside = [name for name in world.attacks if name != "test split"]
    base_outside = [kept(world.session.config.out, f"{kind} {name}", world.attacks[name], base) for name in outside]
    recall_outside = float(np.mean([(scores >= threshold).mean() for scores in base_outside]))
    equal = at_mean_recall([attacks[name] for name in outside], recall_outside)
    return {
        "threshold": matched,
        "threshold_equal": equal,
        "recall_validation": before,
        "recall_outside": recall_outside,
        "flagged": {name: int((scores >= matched).sum()) for name, scores in {**benign, **attacks}.items()},
        "flagged_equal": {name: int((scores >= equal).sum()) for name, scores in {**benign, **attacks}.items()},
    }


def at_recall(scores: NDArray[np.float64], recall: float) -> float:
    """The highest threshold that still catches such a share."""
    ranked = np.sort(scores)[::-1]
    return float(ranked[max(int(np.ceil(recall * len(ranked))) - 1, 0)])


def at_mean_recall(groups: Sequence[NDArray[np.float64]], recall: float) -> float:
    """The highest threshold at which the mean recall over groups is still as large."""
    for threshold in np.unique(np.concatenate(groups))[::-1]:
        if np.mean([(scores >= threshold).mean() for scores in groups]) >= recall:
            return float(threshold)
    return 0.0


if __name__ == "__main__":
    main()
