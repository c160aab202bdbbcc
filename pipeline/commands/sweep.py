"""`crywolf sweep`: search class weight, focal gamma and learning rate for the lowest FP rate at a fixed recall."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crywolf.config import Config, load_config
from crywolf.console import Console
from crywolf.options import FILE, SEED, cache, cache_dir

from .train import RECIPE, changed, track

if TYPE_CHECKING:
    import polars as pl

    from crywolf.session import Session
    from crywolf.train import Split
    from crywolf.train.learn.sweep import SweepResult


@click.command()
@click.option("--config", "config", type=FILE, required=True, help="crywolf.yaml; `crywolf init` writes one.")
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Trainings in all.")
@click.option(
    "--recall",
    type=click.FloatRange(0.5, 1),
    default=0.95,
    show_default=True,
    help="Share of the validation attacks that each trial's threshold must catch; the FP rate there is compared.",
)
@click.option("--recipe", type=RECIPE, default=None, help="Overrides train.recipe: where the search starts.")
@click.option("--encoder", default=None, help="Overrides train.encoder: a folder or a Hugging Face name.")
@click.option("--epochs", type=click.IntRange(1), default=None, help="Overrides train.epochs.")
@click.option("--out", type=FILE, default=None, help="Overrides out, the run's folder.")
@click.option("--seed", type=SEED, default=None, help="Overrides seed.")
@track
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")
@cache
def sweep(
    config: Path,
    trials: int,
    recall: float,
    out: Path | None,
    seed: int | None,
    track: str | None,
    as_json: bool,
    cache: Path | None,
    **overrides: Any,
) -> None:
    """Train the configured recipe with other weights, focal gammas and learning rates, and say which has fewest FPs.

    Each trial is a training on the rows that `retrain` put together, else on those of `train`, judged on the validation
    fold; trials that lag behind the others are ended early. The first is the recipe as it is. Give the same command
    again to go on where it was stopped, or with more --trials to search on. The winner is written to sweep/best.yaml in
    the run's folder, as a `train:` section to paste.

    \b
    Example:
      crywolf sweep --config crywolf.yaml --trials 20
    """
    from crywolf.session import Session
    from crywolf.train.learn.sweep import check_sweep
    from crywolf.train.learn.sweep import sweep as search

    check_sweep()
    console = Console(as_json=as_json)
    chosen = changed(load_config(config), out, seed, overrides, {}, {"uri": track})
    session = Session(chosen, console, cache_dir(cache))
    training, split = _rows(session)
    with console.progress("sweep") as progress:
        result = search(
            training,
            split.validation,
            recipe=session.recipe,
            out=chosen.out / "sweep",
            trials=trials,
            recall=recall,
            encoder=chosen.train.encoder,
            seed=chosen.seed,
            tracking=chosen.tracking.where(),
            progress=progress,
            log=console.say,
        )
    path = chosen.out / "sweep" / "best.yaml"
    _write_best(path, chosen, result)
    table = result.trials
    console.table(
        "trials", f"Trials, FP rate at {recall:.0%} recall", table.columns, [list(row) for row in table.rows()]
    )
    console.result("fp_rate", result.fp_rate.to_dict(), result.text)
    console.result("best", str(path), f"{path}: the settings to paste into {config.name}")
    console.finish()


def _rows(session: "Session") -> tuple["pl.DataFrame", "Split"]:
    """The training rows of the newest step that has some, else those that `train` would put together; and the split."""
    from crywolf import stages
    from crywolf.data import empty_corpus, read_corpus
    from crywolf.inputs import read_inputs
    from crywolf.loop import BASE, RETRAINED

    inputs = read_inputs(session, fps_may_come_later=True)
    split = stages.prepare(session, inputs.originals)
    for step in (RETRAINED, BASE):
        path = session.config.out / step / stages.TRAINING
        if path.is_file():
            session.console.say(f"sweep on the training rows of {path}")
            return read_corpus(path).frame, split
    holdouts = stages.standing_holdouts(inputs, split)
    return stages.join_training(session, split.train, empty_corpus(), None, holdouts).frame, split


def _write_best(path: Path, config: Config, result: "SweepResult") -> None:
    import yaml

    from crywolf.data import atomic_path

    given = config.train.model_dump(exclude_unset=True, exclude_none=True)
    best = {"recipe": config.train.recipe, **given, **result.settings()}
    best |= {"select_by": result.best.select_by, "select_recall": result.recall}
    text = yaml.safe_dump({"train": best}, sort_keys=False)
    with atomic_path(path, force=True) as temporary:
        temporary.write_text(f"# crywolf sweep, {result.text}\n{text}", encoding="utf-8")
