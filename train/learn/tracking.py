"""Trainings recorded where a team looks at them: MLflow, by the URI of a tracking server or of a local database.

Takes a `Tracking` (where to) and a training's parameters, epochs, final figures and files; sends numbers, hashes and
settings, never the text of a prompt. The record is a convenience: a server that is down costs one warning and no
training. Weights & Biases and TensorBoard are the transformers Trainer's own reporting, switched on by name.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crywolf.data import BadInput, MissingExtra, atomic_path

LOCAL = "sqlite:///mlruns.db"
"""Where trainings are recorded if no server is named: a database in the working directory."""
RECORD = "tracking.json"
"""In a run's folder: which tracked run it is, so that a resumed training goes on in the same one."""
REPORTERS = ("tensorboard", "wandb")
"""What the transformers Trainer may report to beside; each needs a package of its own."""
EPOCH_METRICS = ("loss", "validation_loss", "fp_rate", "recall", "precision", "f1", "fp_at_recall", "seconds")
"""Figures of an epoch that are recorded; `seconds` are seconds of training and validation, the rates lie in [0, 1]."""

Action = Callable[[Any], None]

_SQLITE = re.compile(r"sqlite:///(?P<path>[^?]+)")
_PARAM_CHARS = 500
_BATCH = 100
# A training must not wait minutes for a dead server.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# What is refused for what it is, and not because nobody answers, is refused again.
_REFUSED = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS")


@dataclass(frozen=True)
class Tracking:
    """Where trainings are recorded.

    Attributes:
        uri: MLflow's tracking URI: `http(s)://...` of a server, `sqlite:///file.db` of a local database, or simply the
            path of such a file. None records nothing with MLflow.
        experiment: MLflow's experiment.
        report_to: Of `REPORTERS`; the transformers Trainer reports its log to them.
    """

    uri: str | None = None
    experiment: str = "crywolf"
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.report_to:
            if name not in REPORTERS:
                raise BadInput(f"tracking: report_to has {name!r}; it knows {', '.join(REPORTERS)}, and MLflow by uri")
        if not self.experiment.strip():
            raise BadInput("tracking: the experiment needs a name")

    @property
    def store(self) -> str | None:
        """The URI as MLflow takes it: that of a database where a path was given."""
        if self.uri is None or "://" in self.uri or self.uri.startswith(("file:", "databricks")):
            return self.uri
        return f"sqlite:///{self.uri}"

    @property
    def shown(self) -> str:
        """The URI without the name and password that it may carry, for logs."""
        return _without_secrets(self.store or "")

    def relative_to(self, folder: Path) -> "Tracking":
        """The same with the path of a local database taken as relative to this folder."""
        found = _SQLITE.fullmatch(self.store or "")
        if found is None:
            return self
        return Tracking(f"sqlite:///{folder / found['path']}", self.experiment, self.report_to)

    def check(self) -> None:
        """Refuse what cannot work, before any work starts.

        Raises:
            MissingExtra: MLflow, or a package that `report_to` names, is not installed.
        """
        if self.uri is not None and not _installed("mlflow"):
            raise MissingExtra("tracking needs MLflow: pip install 'crywolf[mlflow]'")
        if (self.store or "").startswith("sqlite:") and not _installed("alembic"):
            raise MissingExtra("tracking in a local database needs alembic: pip install 'crywolf[mlflow]'")
        for name in self.report_to:
            if not _installed(name):
                raise MissingExtra(f"tracking: report_to {name} needs its package: pip install {name}")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


class Tracker:
    """Records one training with MLflow; with no URI it does nothing.

    What cannot be sent is kept and tried again with the next thing to send, so that a server that was away for a while
    has everything in the end. The first failure is warned of, the others are not.

    Args:
        tracking: Where to.
        folder: The run's folder; `RECORD` in it remembers the tracked run.
        key: What the run is: another one in the same folder is another tracked run.
        warn: Called with the one warning.
    """

    def __init__(self, tracking: Tracking, folder: Path, *, key: str, warn: Callable[[str], None]) -> None:
        self.tracking = tracking
        self.folder = folder
        self.run_id: str | None = None
        self._where = _hash(f"{tracking.store}\n{tracking.experiment}")
        self._key = _hash(key)
        self._warn = warn
        self._warned = False
        self._client: Any = None
        self._unsent: list[Action] = []
        if self.on:
            # MLflow reports its use to its makers; a training tells nobody but the server of itself.
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

    @property
    def on(self) -> bool:
        """Whether anything is recorded."""
        return self.tracking.uri is not None

    def begin(self, params: Mapping[str, Any]) -> None:
        """Open the tracked run, or go on with the one that this folder has, and record the parameters.

        Args:
            params: By name; nested mappings become dotted names.
        """
        if not self.on:
            return
        from mlflow.entities import Param

        flat = [Param(name, str(value)[:_PARAM_CHARS]) for name, value in flattened(params)]
        self._send(self._open)
        for start in range(0, len(flat), _BATCH):
            chunk = flat[start : start + _BATCH]
            self._send(lambda client, chunk=chunk: client.log_batch(self.run_id, params=chunk))  # type: ignore[misc]

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Record an epoch of the history: `EPOCH_METRICS`, at the step of its number."""
        self.metrics({name: entry.get(name) for name in EPOCH_METRICS}, step=int(entry["epoch"]))

    def metrics(self, values: Mapping[str, float | None], *, step: int = 0) -> None:
        """Record figures; those that are None or no number are left out."""
        if not self.on:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        known = [
            Metric(name, float(value), now, step)
            for name, value in values.items()
            if value is not None and math.isfinite(value)
        ]
        self._send(lambda client: client.log_batch(self.run_id, metrics=known))

    def files(self, paths: Sequence[Path]) -> None:
        """Record files, those of them that are there. They must hold no text of prompts."""
        for path in paths:
            if path.is_file():
                self._send(lambda client, path=path: client.log_artifact(self.run_id, str(path)))  # type: ignore[misc]

    def end(self, status: str = "FINISHED") -> None:
        """Close the tracked run: FINISHED, FAILED or KILLED."""
        self._send(lambda client: client.set_terminated(self.run_id, status))

    def reopen(self) -> bool:
        """Take up the tracked run that this folder remembers, whatever it was, to add to it; False if it has none."""
        self.run_id = self._recorded().get("run_id")
        return self.on and self.run_id is not None

    def _send(self, action: Action) -> None:
        if not self.on:
            return
        self._unsent.append(action)
        try:
            with _patience():
                self._client = self._client or _client(self.tracking)
                while self._unsent:
                    self._do(self._unsent[0])
                    del self._unsent[0]
        except Exception as error:  # whatever is wrong with the record, the training goes on
            self._warn_once(error)

    def _do(self, action: Action) -> None:
        try:
            action(self._client)
        except Exception as error:
            if getattr(error, "error_code", None) not in _REFUSED:
                raise
            self._warn_once(error)

    def _warn_once(self, error: Exception) -> None:
        if self._warned:
            return
        self._warned = True
        reason = " ".join(_without_secrets(str(error)).split())[:200]
        self._warn(
            f"tracking at {self.tracking.shown} failed ({type(error).__name__}: {reason}); the training goes on, and "
            "what was not recorded is tried again with each epoch and at the end"
        )

    def _open(self, client: Any) -> None:
        recorded = self._recorded()
        if recorded.get("key") == self._key and _goes_on(client, recorded["run_id"]):
            self.run_id = recorded["run_id"]
            return
        experiment = client.get_experiment_by_name(self.tracking.experiment)
        name = self.folder.parent.name if self.folder.name == "model" else self.folder.name
        run = client.create_run(
            experiment.experiment_id if experiment else self._create_experiment(client), run_name=name
        )
        self.run_id = run.info.run_id
        with atomic_path(self.folder / RECORD, force=True) as temporary:
            content = {"where": self._where, "key": self._key, "run_id": self.run_id}
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _create_experiment(self, client: Any) -> str:
        found = _SQLITE.fullmatch(self.tracking.store or "")
        if found is None:
            return str(client.create_experiment(self.tracking.experiment))
        # Files lie beside their database; MLflow's own choice would be the working directory.
        database = Path(found["path"]).resolve()
        files = database.with_name(f"{database.stem}-artifacts") / self.tracking.experiment
        return str(client.create_experiment(self.tracking.experiment, artifact_location=files.as_uri()))

    def _recorded(self) -> dict[str, str]:
        """What this folder remembers of a run on this server and in this experiment; empty if nothing."""
        try:
            content = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        known = isinstance(content, dict) and content.get("where") == self._where and "run_id" in content
        return {name: str(value) for name, value in content.items()} if known else {}


def open_tracker(tracking: Tracking | None, folder: Path, *, key: str, warn: Callable[[str], None]) -> Tracker:
    """The tracker of a training.

    Args:
        tracking: Where to; None, or one without a URI, records nothing.
        folder: The run's folder.
        key: What the run is: its fingerprint.
        warn: Called with a line if recording fails, once.

    Raises:
        MissingExtra: As `Tracking.check`.
    """
    tracking = tracking or Tracking()
    tracking.check()
    return Tracker(tracking, folder, key=key, warn=warn)


@contextlib.contextmanager
def tracked(tracker: Tracker, params: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Open a tracker for as long as the work takes, and close it with how that ended.

    Args:
        tracker: It records the work.
        params: Gives the parameters; asked only where they are recorded.
    """
    if not tracker.on:
        yield
        return
    tracker.begin(params())
    try:
        yield
    except BaseException as error:
        tracker.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.end()


def attach(tracking: Tracking | None, folder: Path, files: Sequence[Path], *, warn: Callable[[str], None]) -> None:
    """Add files to the tracked run of a training that is over: what was made of its model later.

    Args:
        tracking: As the training was given.
        folder: The run's folder.
        files: They must hold no text of prompts; those that are not there are passed over.
        warn: Called with a line if recording fails, once.
    """
    tracker = open_tracker(tracking, folder, key="", warn=warn)
    if tracker.reopen():
        tracker.files(files)


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of dotted name and value; names as MLflow takes them, what is None left out."""
    for key, value in values.items():
        name = prefix + re.sub(r"[^\w\-./ ]", "_", str(key)).replace(" ", "_")
        if isinstance(value, Mapping):
            yield from flattened(value, f"{name}.")
        elif value is not None:
            yield name, value


def _client(tracking: Tracking) -> Any:
    from mlflow.tracking import MlflowClient

    # It tells of every table that it makes.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=tracking.store)


def _goes_on(client: Any, run_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Short timeouts, unless the environment says otherwise."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _hash(text: str) -> str:
    # The URI may hold a password: a file remembers its hash.
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _without_secrets(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//", text)
