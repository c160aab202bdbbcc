"""Recipes compared on sources that they were not trained on, and the published guard beside them.

`--part screen` trains every recipe of recipes.yaml on each `--fold` of sources; `--part loso` leaves each source out
once with the recipe `broad`; `--part tables` writes docs/bench/recipes.json and .md from what is there. Run all of it
with `make bench-recipes`; every training resumes, and what is done is not done again.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tables
import world
import yaml
from numpy.typing import NDArray

from crywolf.data import read_corpus
from crywolf.mining import Embedder
from crywolf.train import Recipe, TrainedModel, find_recipe, fit

HERE = Path(__file__).parent
SCREEN = "2"  # the fold that recipes are screened on unless told: role-plays, where over-defense is worst
RECIPES = HERE / "recipes.yaml"
Score = Callable[[Sequence[str]], NDArray[np.float64]]


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with benign_pool, malicious_pool, ood_dev")
    parser.add_argument("--handoff", type=Path, required=True, help="folder with the false positives to grow")
    parser.add_argument("--grown", type=Path, help="rows grown before, instead of growing them")
    parser.add_argument("--out", type=Path, default=Path("work/recipes"))
    parser.add_argument("--docs", type=Path, default=Path("docs/bench"))
    parser.add_argument("--part", choices=["screen", "loso", "guard", "tables"], action="append")
    parser.add_argument("--only", action="append", help="recipes or, for loso, folds, by name")
    parser.add_argument("--fold", action="append", choices=list(world.FOLDS), help=f"to screen on ({SCREEN}); repeat")
    parser.add_argument("--rows", type=int, default=24_000, help="rows that a training sees")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.part or ["screen", "loso", "guard", "tables"]:
        {"screen": screen, "loso": loso, "guard": guard, "tables": write}[part](arguments)


def screen(arguments: argparse.Namespace) -> None:
    """Train every recipe on every fold asked for."""
    recipes: dict[str, dict[str, Any]] = yaml.safe_load(RECIPES.read_text(encoding="utf-8"))
    for fold_name in dict.fromkeys(arguments.fold or [SCREEN]):
        for name, values in recipes.items():
            if not arguments.only or name in arguments.only:
                measure(arguments, screen_name(fold_name, name), fold_name, values)


def screen_name(fold_name: str, recipe: str) -> str:
    """What a recipe screened on a fold is called: its file of margins and its folder of the model."""
    return f"screen-{fold_name}-{recipe}"


def loso(arguments: argparse.Namespace) -> None:
    """Leave every source out once."""
    for name in world.FOLDS:
        if not arguments.only or name in arguments.only:
            measure(arguments, f"loso-{name}", name, {"base": "broad"})


def measure(arguments: argparse.Namespace, name: str, fold_name: str, values: dict[str, Any]) -> None:
    """Train one recipe on one fold and keep its margins on everything held out.

    Args:
        arguments: the command line.
        name: of the file of margins and of the model's folder.
        fold_name: one of `world.FOLDS`.
        values: an entry of recipes.yaml: a recipe's fields, `teachers` beside them, or another `kind`.

    Raises:
        SystemExit: a teacher or a member of an ensemble was not screened on this fold.
    """
    target = arguments.out / f"{name}.json"
    if target.is_file():
        print(f"{name}: done before")
        return
    others = [*values.get("of", ()), *values.get("teachers", ())]
    folders = [model_of(arguments.out, fold_name, other) for other in others]
    corpora = world.load(arguments.corpus, grown(arguments))
    fold = world.fold(corpora, world.FOLDS[fold_name], doubtful=None, seed=arguments.seed)
    start = time.perf_counter()
    score = scorer(arguments, name, fold, values, folders)
    seconds = time.perf_counter() - start
    sets = {**{f"held: {key}": rows for key, rows in fold.held.items()}, **corpora.suites}
    sets |= {
        f"validation ({label.lower()})": fold.validation.filter(label == world.LABEL)
        for label in ("BENIGN", "MALICIOUS")
    }
    found = {key: [round(float(s), 4) for s in score(rows["text"].to_list())] for key, rows in sets.items()}
    result = {"fold": fold_name, "recipe": values, "rows": fold.train.height, "seconds": seconds, "scores": found}
    target.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"{name}: {seconds:.0f} s")


def model_of(out: Path, fold_name: str, recipe: str) -> Path:
    """The model that screening a recipe on a fold left."""
    folder = out / "models" / screen_name(fold_name, recipe) / "model"
    if not folder.is_dir():
        raise SystemExit(f"{folder}: not there; screen {recipe!r} on fold {fold_name} first")
    return folder


def scorer(
    arguments: argparse.Namespace, name: str, fold: world.Fold, values: dict[str, Any], folders: Sequence[Path]
) -> Score:
    """What an entry of recipes.yaml scores with, trained if it is to be; `folders` hold the models that it names."""
    kind = values.get("kind", "fine-tune")
    if kind == "probe":
        return probe(fold)
    if kind == "ensemble":
        return ensemble(folders)
    return tuned(arguments, name, fold, values, folders)


def ensemble(folders: Sequence[Path]) -> Score:
    """The mean of the models' margins: log odds averaged, none of them calibrated."""
    models = [TrainedModel.load(folder) for folder in folders]
    return lambda texts: np.asarray(np.mean([model.margins(texts) for model in models], axis=0), dtype=np.float64)


def tuned(
    arguments: argparse.Namespace, name: str, fold: world.Fold, values: dict[str, Any], teachers: Sequence[Path]
) -> Score:
    """Fine-tune; the scores are margins, so that thresholds can be placed afterwards."""
    fields = {key: value for key, value in values.items() if key != "teachers"}
    recipe = Recipe.from_mapping(fields, base=find_recipe("broad"))
    recipe = replace(recipe, epochs=1, epoch_rows=arguments.rows, average=0, name=name)
    out = arguments.out / "models" / name
    result = fit(fold.train, fold.validation, recipe=recipe, out=out, seed=arguments.seed, teachers=teachers, log=print)
    return TrainedModel.load(result.model_dir).margins


def probe(fold: world.Fold) -> Score:
    """A logistic regression on the encoder's vectors: the baseline that anything must beat."""
    from sklearn.linear_model import LogisticRegression

    from crywolf.train.rows.mix import Mix, draws

    embedder = Embedder(cache_dir=Path("work/recipes/vectors"))
    target = (fold.train["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    weight = draws(fold.train, Mix(), fold.train.height)
    model = LogisticRegression(C=10.0, max_iter=500).fit(
        embedder(fold.train["text"].to_list()), target, sample_weight=weight
    )
    return lambda texts: np.asarray(model.decision_function(embedder(list(texts))), dtype=np.float64)


def guard(arguments: argparse.Namespace) -> None:
    """Score everything that is ever held out with the published guard."""
    import guard as published

    target = arguments.out / "guard.json"
    if target.is_file():
        return
    corpora = world.load(arguments.corpus, grown(arguments))
    found = {}
    for sources in world.FOLDS.values():
        for name, rows in world.fold(corpora, sources, doubtful=None, seed=arguments.seed).held.items():
            found[f"held: {name}"] = published.score(rows["text"].to_list()).round(4).tolist()
    for name, rows in corpora.suites.items():
        found[name] = published.score(rows["text"].to_list()).round(4).tolist()
    target.write_text(json.dumps({"threshold": published.THRESHOLD, "scores": found}) + "\n", encoding="utf-8")


def grown(arguments: argparse.Namespace) -> Path:
    """The rows grown from the handoff's false positives; made once."""
    if arguments.grown:
        return Path(arguments.grown)
    target = arguments.out / "grown.parquet"
    if not target.is_file():
        corpus, handoff = arguments.corpus, arguments.handoff
        crywolf = str(Path(sys.executable).parent / "crywolf")
        command = [crywolf, "augment", "--from-fps", handoff / "benign_test_results.json"]
        command += ["--prompts", handoff / "benign_prompts.jsonl.gz", "--malicious", corpus / "malicious_pool.jsonl.gz"]
        command += ["--against", corpus / "benign_pool.jsonl.gz", "--holdout", corpus / "ood_dev.jsonl.gz"]
        subprocess.run([str(word) for word in [*command, "-o", target]], check=True)
    read_corpus(target)
    return target


def write(arguments: argparse.Namespace) -> None:
    """Write the tables."""
    tables.write(arguments.out, arguments.docs)


if __name__ == "__main__":
    main()
