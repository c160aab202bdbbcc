"""The command line: `crywolf COMMAND`. Finds commands by name and imports only the one that was asked for.

Takes the process's arguments, gives its exit code: 0 done, 1 a gate failed, 2 bad input. Errors of the house print
their message without a traceback.
"""

import importlib
import sys
from typing import Any

import click

# command -> (module, attribute, first line of its help). The line stands here so that --help imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "Run the whole loop on the embedded data, into ./crywolf-demo."),
    "init": ("init", "init", "Write a commented crywolf.yaml to start from."),
    "augment": ("augment", "augment", "Grow benign training data from a file of false positives."),
    "dedup": ("dedup", "dedup", "Drop near-duplicates within a corpus and against others."),
    "mine-hard-negatives": ("mine", "mine", "Find benign prompts that lie next to attacks."),
    "audit": ("audit", "audit", "Find duplicates, leakage, label errors and shortcuts in training data."),
    "train": ("train", "train", "Split, train and package a detector on the original data."),
    "retrain": ("train", "retrain", "Grow the FPs, mine, retrain, and compare with the detector before."),
    "sweep": ("sweep", "sweep", "Search class weight, focal gamma and learning rate for the fewest FPs."),
    "evaluate": ("evaluate", "evaluate", "Measure any DETECTOR on suites, before/after, with gates."),
    "export": ("export", "export", "Turn a trained model into a quantized package, with parity."),
    "predict": ("predict", "predict", "Judge prompts with a detector."),
    "feedback": ("feedback", "feedback", "Take in production false positives and run a round on them."),
}


GIVEN = "crywolf.given"
"""Where a click context keeps the words of the command line."""


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is used."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context as click does, and keep the words of the command line in it."""
        words = tuple(args)  # click takes them out of the list
        context = super().make_context(info_name, args, parent, **extra)
        context.meta[GIVEN] = words
        return context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None where there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"crywolf.commands.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Resolve as click does, and suggest the nearest command for a mistyped one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See `crywolf --help`."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import importlib.metadata

        click.echo(f"crywolf {importlib.metadata.version('crywolf')}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def cli() -> None:
    """Stop a prompt-threat detector from crying wolf.

    From a file of false positives: grow benign training data, mine hard negatives, retrain, quantize, and prove on
    held-out data that the FP rate fell and recall did not.

    \b
    Start here:
      crywolf demo                                 the whole loop, eleven minutes on two cores
      crywolf augment --from-fps FPS -o OUT        grow your own false positives
      crywolf init                                 a crywolf.yaml for `train` and `retrain`

    Exit codes: 0 done, 1 a gate failed, 2 bad input.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("crywolf: stopped", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except Exception as error:
        code = _show_own(error)
    sys.exit(code if isinstance(code, int) else 0)


def _show_own(error: Exception) -> int:
    """Print an error of the house and return its exit code; anything else is a bug and keeps its traceback."""
    # Imported late: --help must not wait for polars.
    from crywolf.data import CrywolfError

    if not isinstance(error, CrywolfError):
        raise error
    click.echo(f"crywolf: {error}", err=True)
    return error.exit_code


if __name__ == "__main__":
    main()
