"""`crywolf train` and `crywolf retrain`: the loop on your own data, from crywolf.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from crywolf.config import Config, checked, load_config
from crywolf.console import Console
from crywolf.options import FILE, SEED, cache, cache_dir

F = TypeVar("F", bound=Callable[..., Any])
RECIPE = click.Choice(["quick", "full", "broad", "incremental"])


LOCAL = "sqlite:///mlruns.db"

track = click.option(
    "--track",
    is_flag=False,
    flag_value=LOCAL,
    default=None,
    metavar="[URI]",
    help=f"Record trainings with MLflow at this URI, or, with none given, in {LOCAL}.",
)


def _shared(function: F) -> F:
    """Add the options that both commands have: the configuration, and what may be changed from the command line."""
    options = (
        click.option("--config", "config", type=FILE, required=True, help="crywolf.yaml; `crywolf init` writes one."),
        click.option("--recipe", type=RECIPE, default=None, help="Overrides train.recipe."),
        click.option("--encoder", default=None, help="Overrides train.encoder: a folder or a Hugging Face name."),
        click.option("--epochs", type=click.IntRange(1), default=None, help="Overrides train.epochs."),
        click.option("--benign-weight", type=float, default=None, help="Overrides train.benign_weight."),
        click.option("--fp-target", type=float, default=None, help="Overrides train.fp_target."),
        click.option(
            "--pretrain",
            type=click.Choice(["technical", "benign"]),
            default=None,
            help="Overrides train.pretrain: first train the encoder further on this slice of your benign text.",
        ),
        click.option("--out", type=FILE, default=None, help="Overrides out, the run's folder."),
        click.option("--seed", type=SEED, default=None, help="Overrides seed."),
        click.option("--force", is_flag=True, help="Make steps again whose settings changed."),
        click.option(
            "--price-per-hour",
            type=click.FloatRange(0),
            default=None,
            help="What this machine costs: trainings of 200 steps or more say their time and price before they start.",
        ),
        track,
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables."),
        cache,
    )
    for option in reversed(options):
        function = option(function)
    return function


def changed(
    config: Config,
    out: Path | None,
    seed: int | None,
    train: dict[str, Any],
    mining: dict[str, Any],
    tracking: dict[str, Any],
) -> Config:
    """Return the configuration with what the command line overrides, checked like the file.

    Raises:
        BadInput: an option's value cannot be used; it is named as the key that it overrides.
        MissingExtra: what `tracking` asks for is not installed.
    """
    update: dict[str, Any] = {"out": out, "seed": seed}
    values = {**config.model_dump(), **{key: value for key, value in update.items() if value is not None}}
    for section, overrides in (("train", train), ("mining", mining), ("tracking", tracking)):
        values[section] |= {key: value for key, value in overrides.items() if value is not None}
    chosen = checked(values, "options that override the configuration")
    chosen.tracking.where().check()
    return chosen


@click.command()
@_shared
def train(
    config: Path,
    out: Path | None,
    seed: int | None,
    force: bool,
    as_json: bool,
    cache: Path | None,
    track: str | None,
    price_per_hour: float | None,
    **overrides: Any,
) -> None:
    """Split the original data, train a detector on the training fold, package it, and measure it.

    The split (80/10/10, whole near-duplicate clusters) is made once and saved in the run's folder. A run that was
    stopped, killed even, goes on from its last finished epoch when the same command is given again. The verdict is
    shown for information: a first detector that fails its gates is no failed command, so the exit code is 0.

    \b
    Example:
      crywolf init && crywolf train --config crywolf.yaml
    """
    from crywolf.loop import run_train
    from crywolf.origin import Origin, given_words
    from crywolf.session import Session

    from .evaluate import show_evaluation, show_gates

    console = Console(as_json=as_json)
    tracking = {"uri": track, "price_per_hour": price_per_hour}
    file = load_config(config)
    chosen = changed(file, out, seed, overrides, {}, tracking)
    session = Session(chosen, console, cache_dir(cache), force, Origin(config, file, given_words()))
    result = run_train(session)
    show_evaluation(console, result.evaluation, None)
    show_gates(console, result.gates)
    console.result("package", str(result.package), f"{result.package}: the detector")
    console.finish()


@click.command()
@_shared
@click.option("--incremental", is_flag=True, help="Train the model before a little further: --recipe incremental.")
@click.option("--grown-weight", type=float, default=None, help="Overrides train.grown_weight.")
@click.option("--hard-weight", type=float, default=None, help="Overrides train.hard_weight.")
@click.option("--grown-budget", type=int, default=None, help="Overrides train.grown_budget.")
@click.option("--hard-negatives/--no-hard-negatives", default=None, help="Overrides mining.enabled.")
@click.option("--per-anchor", type=click.IntRange(1), default=None, help="Overrides mining.per_anchor.")
@click.option("--report", type=FILE, default=None, help="HTML report.  [default: report.html in the run's folder]")
@click.option("--show-prompts", is_flag=True, help="Show the hardest false positives' text in the report.")
def retrain(
    config: Path,
    out: Path | None,
    seed: int | None,
    force: bool,
    as_json: bool,
    cache: Path | None,
    incremental: bool,
    hard_negatives: bool | None,
    per_anchor: int | None,
    report: Path | None,
    show_prompts: bool,
    track: str | None,
    price_per_hour: float | None,
    **overrides: Any,
) -> None:
    """Grow the false positives, mine hard negatives, retrain in full, and compare with the detector before.

    FPs come from data.fps, or are the ones that the detector before raises on a part of evaluate.benign_test; the other
    part is only measured on, because a test set that lost its FPs to training proves nothing. Those in or near
    validation, test and holdouts are never grown; a fifth, by cluster, is kept aside to see what becomes of FPs that
    the model never met. With --incremental the model before is not trained anew but moved a little (early layers
    frozen, learning rate 1e-6, four epochs) on what is new and as many old rows again (train.replay), so that it does
    not forget. Exit code 1 when a must gate fails or is inconclusive.

    \b
    Example:
      crywolf train --config crywolf.yaml && crywolf retrain --config crywolf.yaml
      crywolf retrain --config crywolf.yaml --price-per-hour 0.72 --track http://mlflow.example:5000
    """
    from crywolf.data import GateFailed, check_target
    from crywolf.loop import run_retrain
    from crywolf.origin import Origin, given_words
    from crywolf.reporting import retrain_report
    from crywolf.session import Session
    from crywolf.train.learn.tracking import attach

    from .evaluate import show_evaluation, show_gates

    console = Console(as_json=as_json)
    if incremental:
        overrides["recipe"] = "incremental"
    mining = {"enabled": hard_negatives, "per_anchor": per_anchor}
    tracking = {"uri": track, "price_per_hour": price_per_hour}
    file = load_config(config)
    chosen = changed(file, out, seed, overrides, mining, tracking)
    session = Session(chosen, console, cache_dir(cache), force, Origin(config, file, given_words()))
    path = report or chosen.out / "report.html"
    # The run's own report goes with the run; another file may be anybody's.
    check_target(path, force=force or report is None)
    result = run_retrain(session)
    show_retrained(console, result)
    show_evaluation(console, result.after, result.comparison)
    show_gates(console, result.gates)
    retrain_report(session, result, path, show_prompts=show_prompts)
    if not show_prompts:  # no prompt leaves this machine
        attach(chosen.tracking.where(), result.package.parent / "model", [path], warn=console.warn)
    console.result("package", str(result.package), f"{result.package}: the new detector")
    console.result("report", str(path), f"{path}: the report")
    console.finish()
    if not result.gates.passed:
        raise GateFailed(result.gates.summary)


def show_retrained(console: Console, result: Any) -> None:
    """Show what was grown, mined and put together."""
    from .augment import show_growth
    from .mine import show_mining

    show_growth(console, result.growth)
    if result.mining is not None:
        show_mining(console, result.mining)
    for note in result.assembly.notes:
        console.warn(note)
    kept = [[f"kept: {part}", rows] for part, rows in result.assembly.kept.items()]
    if result.assembly.lent:
        kept.append(["hard negatives in the originals: weight raised", result.assembly.lent])
    dropped = [[f"dropped: {reason}", rows] for reason, rows in result.assembly.dropped.items()]
    console.table("assembly", "Training table", ["what", "rows"], kept + dropped)
