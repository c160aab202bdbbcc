"""Searching weights, focal gamma and learning rate for the lowest FP rate at a fixed recall.

Takes a training and a validation frame and the recipe to start from; trains one model a trial, ends those that lag
behind the median of the others, and gives the trials and the best recipe. Everything is kept in one folder, the study
in a SQLite database there: the same call goes on where it was stopped, a killed trial from its last whole epoch.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from crywolf.data import BadInput, CrywolfError, MissingExtra
from crywolf.data.types import Progress

from ..measure.intervals import Rate
from ..measure.metrics import fp_rate_at_recall
from .calibrate import malicious_mask
from .fit import fit
from .model import TrainedModel
from .recipes import Recipe
from .tracking import Tracking

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

STUDY = "sweep.sqlite"
NAME = "crywolf sweep"
KNOBS = ("benign_weight", "focal_gamma", "learning_rate")
"""The recipe's fields that are searched."""
_TRIALS = "trials"
_KEY = "fingerprint"
_STOPPED = "stopped"
_BROKEN = "broken"


@dataclass(frozen=True)
class Space:
    """Where a sweep searches; each pair is the lowest and the highest value.

    Attributes:
        benign_weight: Weight of a BENIGN row in the loss, drawn on a logarithmic scale.
        focal_gamma: Of the focal loss, drawn evenly.
        learning_rate: As factors of the recipe's own, drawn on a logarithmic scale.
    """

    benign_weight: tuple[float, float] = (0.5, 5.0)
    focal_gamma: tuple[float, float] = (0.0, 3.0)
    learning_rate: tuple[float, float] = (0.2, 5.0)

    def __post_init__(self) -> None:
        for name in KNOBS:
            low, high = getattr(self, name)
            if not (0 <= low < high) or (low == 0 and name != "focal_gamma"):
                raise BadInput(f"sweep: {name} from {low:g} to {high:g}; give a lower and a higher bound above 0")


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        trials: One row a trial, in their order: trial, state (`done`, `pruned`, `failed`), benign_weight, focal_gamma,
            learning_rate, epochs, fp_rate, low, high, f1. fp_rate is that of the finished model on validation at the
            recall, with its 95% interval; for a pruned trial that of its last epoch, without one.
        best: The start recipe with the values of the best trial.
        best_trial: Its number.
        fp_rate: Its FP rate at the recall.
        start: That of the recipe as it was; None if its trial did not finish.
        recall: The share of validation attacks that is kept.
    """

    trials: pl.DataFrame
    best: Recipe
    best_trial: int
    fp_rate: Rate
    start: Rate | None
    recall: float

    @property
    def text(self) -> str:
        """For people, in one line."""
        before = "" if self.start is None else f" (as it was: {self.start.text})"
        finished = self.trials.filter(pl.col("state") == "done").height
        return (
            f"trial {self.best_trial}: FP rate {self.fp_rate.text} at {self.recall:.0%} recall{before}; the lowest of "
            f"{finished} on the rows that chose it, so measure it on others before believing it"
        )

    def settings(self) -> dict[str, float]:
        """The best values by field, rounded to four digits, for the `train:` section of crywolf.yaml."""
        return {name: float(f"{getattr(self.best, name):.4g}") for name in KNOBS}


def check_sweep() -> None:
    """Refuse before any work starts.

    Raises:
        MissingExtra: Optuna is not installed.
    """
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        raise MissingExtra("a sweep needs Optuna: pip install 'crywolf[sweep]'")


def sweep(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    *,
    recipe: Recipe,
    out: str | os.PathLike[str],
    trials: int = 20,
    recall: float = 0.95,
    space: Space | None = None,
    encoder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    tracking: Tracking | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] | None = None,
) -> SweepResult:
    """Search `KNOBS` with Optuna: TPE proposes (Bergstra et al. 2011), the median of earlier trials prunes.

    Trial 0 is the recipe as it is. Each trial is a training of its own, with the same rows and seed; epochs are chosen
    by FP rate at the recall, and from the second epoch on a trial is ended where it is worse than the median of the
    five or more before.

    Args:
        train: Contract rows to learn from.
        validation: Original rows, both labels among them: the search is judged on these.
        recipe: Where to start; all but `KNOBS` and the choice of epochs stays as it is.
        out: The sweep's folder.
        trials: How many there are to be in all, those of earlier calls included.
        recall: Share of the validation attacks that is kept, from 0.5 to 1.
        space: Where to search.
        encoder: As for `fit`.
        seed: Of the search and of every training.
        tracking: As for `fit`: each trial is recorded.
        progress: Called with (trials done, trials in all).
        log: Called with a line a trial and with the lines of its training.

    Raises:
        BadInput: The folder holds another sweep; a label is missing from validation; a value is out of range.
        MissingExtra: Optuna is not installed.
        CrywolfError: No trial finished.
    """
    check_sweep()
    if recipe.distill:
        raise BadInput("sweep: a recipe with distill needs teachers, which a sweep has none of; leave both out")
    if trials < 1:
        raise BadInput(f"sweep: {trials} trials; at least 1 is needed")
    malicious = malicious_mask(validation)
    if not malicious.any() or malicious.all():
        raise BadInput("sweep: validation needs rows of both labels to be judged on")
    start = replace(recipe, select_by="fp_at_recall", select_recall=recall)
    space = space or Space()
    folder, say = Path(out).resolve(), log or _silent
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder), _quiet_optuna():
        study = _open(folder, _fingerprint(train, validation, start, space, encoder, seed), seed)
        _clean_up(study, start)

        def run(trial: "Trial") -> float:
            chosen = replace(start, **_proposed(trial, start, space))
            return _trial(trial, chosen, train, validation, folder, encoder, seed, tracking, say)

        while (done := _finished(study)) < trials:
            if progress:
                progress(done, trials)
            study.optimize(
                run, n_trials=1, catch=(CrywolfError,), callbacks=[lambda _, trial: say(_line(trial, recall))]
            )
        if progress:
            progress(done, trials)
        return _result(study, start, recipe, int((~malicious).sum()), recall)


def _silent(_: str) -> None:
    return None


def _proposed(trial: "Trial", start: Recipe, space: Space) -> dict[str, Any]:
    rate = start.learning_rate
    return {
        "benign_weight": trial.suggest_float("benign_weight", *space.benign_weight, log=True),
        "focal_gamma": trial.suggest_float("focal_gamma", *space.focal_gamma),
        "learning_rate": trial.suggest_float(
            "learning_rate", space.learning_rate[0] * rate, space.learning_rate[1] * rate, log=True
        ),
    }


def _trial(
    trial: "Trial",
    recipe: Recipe,
    train: pl.DataFrame,
    validation: pl.DataFrame,
    folder: Path,
    encoder: str | os.PathLike[str] | None,
    seed: int,
    tracking: Tracking | None,
    say: Callable[[str], None],
) -> float:
    """Train one; its FP rate at the recall."""
    from optuna import TrialPruned

    def judge(entry: dict[str, Any]) -> None:
        trial.report(entry["fp_at_recall"], int(entry["epoch"]))
        trial.set_user_attr("epochs", int(entry["epoch"]))
        trial.set_user_attr("f1", entry["f1"])
        if trial.should_prune():
            raise TrialPruned

    # Named by its values: a trial that was killed is proposed again and finds its checkpoints.
    name = hashlib.sha256(json.dumps(trial.params, sort_keys=True).encode()).hexdigest()[:12]
    out = folder / _TRIALS / name
    say(f"trial {trial.number}: {', '.join(f'{knob} {getattr(recipe, knob):.4g}' for knob in KNOBS)}")
    try:
        result = fit(
            train,
            validation,
            recipe=recipe,
            out=out,
            encoder=encoder,
            seed=seed,
            tracking=tracking,
            on_epoch=judge,
            log=say,
        )
    except (TrialPruned, CrywolfError) as error:
        if isinstance(error, CrywolfError):
            trial.set_user_attr(_BROKEN, str(error))
            say(f"trial {trial.number}: {error}")
        shutil.rmtree(out, ignore_errors=True)
        raise
    margins = TrainedModel.load(result.model_dir).margins(validation["text"].to_list())
    found = malicious_mask(validation)
    rate = fp_rate_at_recall(margins[~found], margins[found], recipe.select_recall)
    trial.set_user_attr("epochs", len(result.history))
    trial.set_user_attr("f1", result.history[result.best_epoch - 1]["f1"])
    # Its figures are in the study; its weights can be trained again.
    shutil.rmtree(out, ignore_errors=True)
    return rate.value


def _fingerprint(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    start: Recipe,
    space: Space,
    encoder: str | os.PathLike[str] | None,
    seed: int,
) -> dict[str, str]:
    def rows(frame: pl.DataFrame) -> str:
        columns = frame.select("id", pl.col("label").cast(pl.String), pl.col("weight").cast(pl.Float64)).sort("id")
        return _hash(columns.write_csv())

    return {
        "training rows": rows(train),
        "validation rows": rows(validation),
        "recipe": _hash(json.dumps(start.to_mapping(), sort_keys=True)),
        "space": _hash(repr(space)),
        "encoder": _hash("" if encoder is None else os.fspath(encoder)),
        "seed": str(seed),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _open(folder: Path, fingerprint: dict[str, str], seed: int) -> "Study":
    import optuna

    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY}",
        study_name=NAME,
        direction="minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        load_if_exists=True,
    )
    before = study.user_attrs.get(_KEY)
    if before is None:
        study.set_user_attr(_KEY, fingerprint)
    elif before != fingerprint:
        changed = ", ".join(name for name, value in fingerprint.items() if before.get(name) != value)
        raise BadInput(f"{folder}: holds another sweep (it differs in: {changed}); choose another folder")
    # The sampler remembers nothing of an earlier process: with the same seed it would propose the same again.
    study.sampler = optuna.samplers.TPESampler(seed=(seed + len(study.trials)) % 2**32)
    return study


def _clean_up(study: "Study", start: Recipe) -> None:
    """Propose the recipe itself first; propose again what an earlier call was stopped or killed in."""
    from optuna.trial import TrialState

    if not study.trials:
        study.enqueue_trial({name: getattr(start, name) for name in KNOBS})
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    again = [trial for trial in study.get_trials(states=(TrialState.FAIL,)) if _was_stopped(trial, study)]
    study.set_user_attr(_STOPPED, [*study.user_attrs.get(_STOPPED, []), *(trial.number for trial in again)])
    for trial in again:
        study.enqueue_trial(trial.params)


def _was_stopped(trial: "FrozenTrial", study: "Study") -> bool:
    """Whether a trial failed because the process ended, not by itself, and has not been proposed again yet."""
    return _BROKEN not in trial.user_attrs and trial.number not in study.user_attrs.get(_STOPPED, [])


def _finished(study: "Study") -> int:
    """Trials that count: all that are over but those that were stopped."""
    from optuna.trial import TrialState

    over = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return len({trial.number for trial in over} - set(study.user_attrs.get(_STOPPED, [])))


def _line(trial: "FrozenTrial", recall: float) -> str:
    from optuna.trial import TrialState

    if trial.state == TrialState.COMPLETE:
        return f"trial {trial.number}: FP rate {trial.value:.2%} at {recall:.0%} recall"
    return f"trial {trial.number}: {_STATES[trial.state.name]}"


_STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "failed"}
_SCHEMA = {
    "trial": pl.Int64(),
    "state": pl.String(),
    **{name: pl.Float64() for name in KNOBS},
    "epochs": pl.Int64(),
    "fp_rate": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "f1": pl.Float64(),
}


def _result(study: "Study", start: Recipe, recipe: Recipe, n_benign: int, recall: float) -> SweepResult:
    rows: dict[int, dict[str, Any]] = {}
    rates: dict[int, Rate] = {}
    stopped = study.user_attrs.get(_STOPPED, [])
    for trial in study.trials:
        if trial.number in stopped or trial.state.name == "WAITING":
            continue
        state = _STATES[trial.state.name]
        last = trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None
        rate = Rate(round(trial.value * n_benign), n_benign) if state == "done" and trial.value is not None else None
        if rate is not None:
            rates[trial.number] = rate
        rows[trial.number] = {
            "trial": trial.number,
            "state": state,
            **{name: trial.params.get(name) for name in KNOBS},
            "epochs": trial.user_attrs.get("epochs"),
            "fp_rate": last if rate is None else rate.value,
            "low": None if rate is None else rate.low,
            "high": None if rate is None else rate.high,
            "f1": trial.user_attrs.get("f1"),
        }
    if not rates:
        raise CrywolfError("sweep: no trial finished; the lines above say why")
    table = pl.DataFrame(list(rows.values()), schema=_SCHEMA)
    itself = [number for number in rates if all(rows[number][name] == getattr(start, name) for name in KNOBS)]
    # Among equals, of which there are many where validation is small, the higher F1.
    best = min(rates, key=lambda number: (rates[number].value, -(rows[number]["f1"] or 0.0), number))
    chosen: dict[str, Any] = {name: float(rows[best][name]) for name in KNOBS}
    return SweepResult(
        trials=table,
        best=replace(recipe, select_by=start.select_by, select_recall=recall, **chosen),
        best_trial=best,
        fp_rate=rates[best],
        start=rates[itself[0]] if itself else None,
        recall=recall,
    )


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """This room reports through `log`; Optuna's own lines would say it twice."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep a second process out of the folder; the lock dies with its process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system: go without
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadInput(f"{folder}: another process is sweeping there; wait for it or choose another") from error
        yield
