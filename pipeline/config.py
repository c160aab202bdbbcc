"""crywolf.yaml: what `train`, `retrain` and `feedback round` work on, read once and checked before any work starts.

Takes a YAML file, gives one frozen `Config`; paths in the file are relative to the file. Unknown keys are errors that
name the nearest known one.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from crywolf.data import BadInput

if TYPE_CHECKING:
    from crywolf.train.learn.tracking import Tracking


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _listed(value: Any) -> Any:
    """Take one value for a list of one."""
    return [value] if isinstance(value, str | Path) else value


def _target(value: str) -> str:
    """Take what a threshold can be chosen by."""
    from crywolf.train.learn.target import Target

    try:
        Target.parse(value)
    except BadInput as error:
        raise PydanticCustomError("target", "{reason}", {"reason": str(error)}) from None
    return value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Goal = Annotated[str, AfterValidator(_target)]
"""What a threshold must reach: `fp 1%`, `recall 98%`, or `cost 1:20 at 1%`; see `train.learn.target`."""


class DataConfig(_Section):
    """Where the original data is, and what must stay out of training."""

    benign: Paths = Field(min_length=1)
    malicious: Paths = Field(min_length=1)
    fps: Path | None = None
    prompts: Path | None = None
    kept_fps: float = Field(default=0.2, ge=0, le=0.9)
    holdouts: Paths = ()
    holdout_sources: Names = ()
    benign_limit: int | None = Field(default=None, ge=1)
    malicious_limit: int | None = Field(default=None, ge=1)
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    embedded: bool = False
    calibration: Paths = ()


class AugmentSection(_Section):
    """How false positives are grown."""

    per_fp: int = Field(default=15, ge=1, le=200)
    noise_share: float = Field(default=0.05, ge=0, le=0.5)
    twins: bool = True
    languages: Names | None = None
    guard_margin: float = Field(default=0.10, ge=0, le=1)


class MiningSection(_Section):
    """How hard negatives are chosen."""

    enabled: bool = True
    per_anchor: int | None = Field(default=None, ge=1)


class TrainSection(_Section):
    """How the classifier is fitted; whatever is left out keeps the recipe's value."""

    recipe: Literal["quick", "full", "broad", "incremental"] = "quick"
    encoder: str | None = None
    epochs: int | None = Field(default=None, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    focal_gamma: float | None = Field(default=None, ge=0, le=5)
    select_by: Literal["f1", "fp_at_recall"] | None = None
    select_recall: float | None = Field(default=None, ge=0.5, le=1)
    max_length: int | None = Field(default=None, ge=8, le=512)
    benign_weight: float | None = Field(default=None, gt=0)
    malicious_weight: float | None = Field(default=None, gt=0)
    fp_target: float | None = Field(default=None, gt=0, le=0.5)
    strict: Goal | None = None
    balanced: Goal | None = None
    lenient: Goal | None = None
    hold_recall: bool = True
    grown_weight: float = Field(default=1.0, gt=0)
    hard_weight: float = Field(default=1.5, gt=0)
    grown_budget: int | None = Field(default=None, ge=0)
    freeze_layers: int | None = Field(default=None, ge=0)
    replay: float = Field(default=1.0, ge=0)
    pretrain: Literal["technical", "benign"] | None = None
    pretrain_rows: int | None = Field(default=None, ge=0)
    contrastive_rows: int | None = Field(default=None, ge=0)
    teachers: Paths = ()
    distill: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_threshold(self) -> "TrainSection":
        # The recipe would take `balanced` and say nothing of the other, which may come from the command line.
        if self.fp_target is not None and self.balanced is not None:
            raise PydanticCustomError("target", "fp_target and balanced both choose the threshold: leave one out")
        return self

    @model_validator(mode="after")
    def _teachers_teach(self) -> "TrainSection":
        if bool(self.teachers) != bool(self.distill):
            raise PydanticCustomError("teachers", "teachers and distill (above 0) need each other: set both or neither")
        return self


class TrackingSection(_Section):
    """Where trainings are recorded, and what the machine costs; nothing of it changes a result."""

    # It may hold a password, and a report shows the whole configuration.
    uri: SecretStr | None = None
    experiment: str = "crywolf"
    report_to: Names = ()
    price_per_hour: float | None = Field(default=None, ge=0)

    def where(self) -> "Tracking":
        """Return what a training takes.

        Raises:
            BadInput: a reporter that is not known; it is named.
        """
        from crywolf.train.learn.tracking import Tracking

        uri = None if self.uri is None else self.uri.get_secret_value()
        return Tracking(uri, self.experiment, self.report_to)


class EvaluateSection(_Section):
    """What the new detector is measured on, beside the test split and the embedded suites."""

    benign_test: Path | None = None
    test_share: float = Field(default=0.5, gt=0, lt=1)
    suites: Paths = ()
    baseline: str | None = None
    robustness: bool = True


class FeedbackSection(_Section):
    """Where feedback is kept, and how a round grows it."""

    store: Path = Path("feedback.sqlite")
    per_fp: int = Field(default=10, ge=1, le=200)


class Config(_Section):
    """The whole of crywolf.yaml."""

    out: Path
    seed: int = Field(default=0, ge=0, lt=2**32)
    data: DataConfig
    augment: AugmentSection = AugmentSection()
    mining: MiningSection = MiningSection()
    train: TrainSection = TrainSection()
    tracking: TrackingSection = TrackingSection()
    evaluate: EvaluateSection = EvaluateSection()
    feedback: FeedbackSection = FeedbackSection()


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        BadInput: it is missing, not YAML, or a value cannot be used; names every offending key.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path}: not there; `crywolf init` writes one to start from") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{path}: cannot be read as YAML ({reason})") from error
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: expected sections such as `data:`; `crywolf init` writes an example")
    return _anchored(checked(raw, path), path.resolve().parent)


def checked(raw: dict[str, Any], source: Path | str) -> Config:
    """Return raw values as a configuration.

    Raises:
        BadInput: a value cannot be used; names `source` and every offending key.
    """
    try:
        # A section whose keys are all commented out is there, and empty.
        return Config.model_validate({key: value for key, value in raw.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(_problem(dict(entry)) for entry in error.errors())
        raise BadInput(f"{source}: {problems}") from None


def _problem(entry: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in entry["loc"])
    if entry["type"] != "extra_forbidden":
        return f"{where}: {entry['msg']}"
    near = difflib.get_close_matches(str(entry["loc"][-1]), _keys(entry["loc"][:-1]), n=1)
    return f"{where}: no such key" + (f", did you mean {near[0]!r}?" if near else "")


def _keys(loc: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in loc:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)


def _anchored(config: Config, folder: Path) -> Config:
    """Make every path of the configuration relative to the folder of its file."""

    def anchor(path: Path | None) -> Path | None:
        return None if path is None else folder / path

    data = config.data.model_copy(
        update={
            "benign": tuple(folder / path for path in config.data.benign),
            "malicious": tuple(folder / path for path in config.data.malicious),
            "holdouts": tuple(folder / path for path in config.data.holdouts),
            "calibration": tuple(folder / path for path in config.data.calibration),
            "fps": anchor(config.data.fps),
            "prompts": anchor(config.data.prompts),
        }
    )

    def anchor_folder(name: str | None) -> str | None:
        # A DETECTOR or encoder may also be a URL, a function or a name: only a folder that is there is a path.
        return str(folder / name) if name is not None and (folder / name).is_dir() else name

    teachers = tuple(folder / path for path in config.train.teachers)
    train = config.train.model_copy(update={"encoder": anchor_folder(config.train.encoder), "teachers": teachers})
    suites = tuple(folder / path for path in config.evaluate.suites)
    baseline = anchor_folder(config.evaluate.baseline)
    measured = config.evaluate.model_copy(
        update={"benign_test": anchor(config.evaluate.benign_test), "suites": suites, "baseline": baseline}
    )
    feedback = config.feedback.model_copy(update={"store": folder / config.feedback.store})
    store = config.tracking.where().relative_to(folder).store
    tracking = config.tracking.model_copy(update={"uri": None if store is None else SecretStr(store)})
    update = {
        "out": folder / config.out,
        "data": data,
        "train": train,
        "tracking": tracking,
        "evaluate": measured,
        "feedback": feedback,
    }
    return config.model_copy(update=update)
