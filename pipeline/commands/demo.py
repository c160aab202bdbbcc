"""`crywolf demo`: the whole loop on the embedded data."""

import shutil
from pathlib import Path

import click

from crywolf.console import Console
from crywolf.options import FILE, SEED


@click.command()
@click.option("-o", "--out", type=FILE, default=Path("crywolf-demo"), show_default=True, help="Folder of the demo.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of everything random.")
@click.option("--force", is_flag=True, help="Empty the folder first if it is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, no tables.")
def demo(out: Path, seed: int, force: bool, as_json: bool) -> None:
    """Run the whole loop on the embedded data: train, harvest false positives, grow, mine, retrain, a feedback round.

    Ends with a table of FP rates and recall before and after, an HTML report, and packages to try with
    `crywolf predict`. Takes eleven minutes on two cores. Gates that do not pass are shown; the demo ends with 0.
    """
    from crywolf.commands.evaluate import show_evaluation, show_gates
    from crywolf.commands.feedback import show_round
    from crywolf.commands.train import show_retrained
    from crywolf.data import BadInput
    from crywolf.demo import MARK, run_demo, show_demo

    if out.exists():
        if not force:
            raise BadInput(f"{out}: already there; give --force to empty it, or another folder with -o")
        if not out.is_dir():
            raise BadInput(f"{out}: is a file; the demo fills a folder, choose another with -o")
        if not (out / MARK).is_file() and any(out.iterdir()):
            raise BadInput(f"{out}: does not look like a demo's folder; remove it yourself or choose another")
        shutil.rmtree(out)
    console = Console(as_json=as_json)
    result = run_demo(out, console, seed=seed)
    show_retrained(console, result.retrained)
    show_evaluation(console, result.retrained.after, result.retrained.comparison, by_all=("threat_type",))
    show_gates(console, result.retrained.gates)
    if result.round is not None:
        show_round(console, result.round)
    show_demo(console, result)
    console.finish()
