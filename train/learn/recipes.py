"""Recipes: every number that training depends on, in one frozen object.

`FULL` is the handoff's recipe with the class weights put on the side where they make a false positive dearer; `QUICK`
trains MiniLM on two CPU cores in minutes and serves the demo. A recipe checks itself when it is made, so that a wrong
value is refused before any row is read.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from crywolf.data import LABELS, BadInput

from ..rows.mix import Mix
from .calibrate import LENIENT, STRICT
from .target import Target

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
Scheduler: TypeAlias = Literal["linear", "cosine", "constant_with_warmup"]
ThresholdBound: TypeAlias = Literal["point", "upper"]
SelectBy: TypeAlias = Literal["f1", "fp_at_recall"]
PretrainOn: TypeAlias = Literal["technical", "benign"]


@dataclass(frozen=True)
class Recipe:
    """How to train, calibrate and choose the threshold.

    Attributes:
        name: What the recipe is called in logs and in the model's folder.
        mix: Draw each epoch by shares of parts and sources instead of taking every row once; None does not.
        epoch_rows: Rows of a drawn epoch; None draws as many as there are.
        epochs: The most epochs to train; early stopping may end sooner.
        batch_size: Rows a step.
        learning_rate: The peak, after warm-up.
        weight_decay: AdamW's, on matrices only (not on biases and norms).
        warmup_steps: Steps of linear warm-up, never more than `warmup_cap` of all steps.
        warmup_cap: The largest share of all steps that warm-up may take; short runs would otherwise never reach the
            learning rate.
        scheduler: What the learning rate does after warm-up.
        patience: Epochs without a better one, by `select_by`, after which training stops; 0 disables early stopping.
        select_by: What makes an epoch the best on validation: the highest `f1` at even odds of the scores as they are,
            or the lowest FP rate at the threshold that keeps `select_recall` (`fp_at_recall`), which asks how well the
            scores part the two whatever the threshold will be.
        select_recall: The share of validation attacks that `fp_at_recall` keeps.
        dropout: On the pooled vector and in the encoder's hidden layers; the attention's own is left as it is, but
            for 0, which turns it off too.
        max_length: Tokens a prompt is cut to.
        crop: Share of an epoch's BENIGN rows, hard negatives apart, that are cut to a random window of their tokens, so
            that no label is marked by its length; see `pieces`.
        pack: Share of an epoch's rows, of both labels, that are joined with a window of a BENIGN row; see `pieces`.
        benign_weight: Weight of a BENIGN row in the loss. Above 1 it makes a false positive dearer.
        malicious_weight: Weight of a MALICIOUS row in the loss. Above 1 it makes a missed attack dearer, and with it
            raises false positives.
        focal_gamma: 0 is plain cross-entropy; larger values spend the loss on rows that the model still gets wrong.
        threat_weight: Share of the threat-type head's loss; 0 leaves that head untrained.
        label_smoothing: Share of the target given to the other label (Szegedy et al. 2016).
        distill: Share of the classification loss whose target is not the label but the mean of teachers' P(MALICIOUS)
            (Hinton et al. 2015); above 0 it needs `fit(..., teachers=...)`.
        distill_temperature: What both sides' log odds are divided by in that share; the higher, the more the teachers'
            doubts count beside their verdicts.
        average: The last epochs whose weights are averaged into the model (Izmailov et al. 2018); 0 takes the best
            epoch alone.
        pretrain: Go on training the encoder, before anything else, on the user's benign rows without their labels
            (unsupervised SimCSE, Gao et al. 2021): `technical` takes the categories programming and technical_docs,
            `benign` all; None does not.
        pretrain_rows: Rows that it shows, each in two passes; 0 takes each row of the slice once, 10,000 at most.
        pretrain_learning_rate: Its learning rate at the start, falling in a line to 0.
        contrastive_rows: Rows of a warm-up that draws attacks together and apart from the benign rows nearest to them,
            before the classifier is trained (supervised contrastive loss, Khosla et al. 2020); 0 leaves it out.
        contrastive_negatives: Benign rows, near to it, that each attack brings into its batch.
        contrastive_pool: The most benign rows that these are looked for among, and the most attacks.
        contrastive_temperature: The lower, the more the nearest rows count.
        contrastive_learning_rate: The warm-up's learning rate at the start, falling in a line to 0.
        freeze_embeddings: Keep the token embeddings as they came.
        freeze_layers: The lowest encoder layers that are kept as they came.
        precision: `auto` takes bfloat16 where the machine computes it natively, else float32.
        max_grad_norm: Gradients are clipped to this norm.
        fp_target: The FP rate on benign validation rows that the threshold must keep.
        threshold_bound: `point` holds the measured FP rate to `fp_target`, `upper` its 95% upper bound.
        min_recall: If given, a threshold that would lose more recall than this is lowered, and the note says so.
        strict: Target of the operating point `strict`: `fp 1%`, `recall 98%`, or `cost 1:20 at 1%` (of a false positive
            : of a missed attack, share of attacks in the traffic); see `target.Target`.
        balanced: Target of the detector's own threshold, in the place of `fp_target`.
        lenient: Target of the operating point `lenient`.
    """

    name: str = "full"
    mix: Mix | None = None
    epoch_rows: int | None = None
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup_steps: int = 1000
    warmup_cap: float = 0.1
    scheduler: Scheduler = "linear"
    patience: int = 3
    select_by: SelectBy = "f1"
    select_recall: float = 0.95
    dropout: float = 0.1
    max_length: int = 256
    crop: float = 0.0
    pack: float = 0.0
    benign_weight: float = 1.5
    malicious_weight: float = 1.0
    focal_gamma: float = 1.0
    threat_weight: float = 0.3
    label_smoothing: float = 0.0
    distill: float = 0.0
    distill_temperature: float = 2.0
    average: int = 0
    pretrain: PretrainOn | None = None
    pretrain_rows: int = 0
    pretrain_learning_rate: float = 3e-5
    contrastive_rows: int = 0
    contrastive_negatives: int = 2
    contrastive_pool: int = 10_000
    contrastive_temperature: float = 0.1
    contrastive_learning_rate: float = 5e-5
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    precision: Precision = "auto"
    max_grad_norm: float = 1.0
    fp_target: float = 0.01
    threshold_bound: ThresholdBound = "point"
    min_recall: float | None = None
    strict: str = STRICT
    balanced: str | None = None
    lenient: str = LENIENT

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise BadInput(f"recipe {self.name!r}: {name} is {value}; it must lie between {low:g} and {high:g}")
        if self.pretrain_rows and self.pretrain is None:
            raise BadInput(f"recipe {self.name!r}: pretrain_rows is {self.pretrain_rows}, but pretrain names no slice")
        for target in (self.strict, self.balanced, self.lenient):
            if target is not None:
                Target.parse(target)

    def rows_an_epoch(self, rows: int) -> int:
        """Rows that an epoch sees of a training set."""
        return rows if self.mix is None else self.epoch_rows or rows

    @property
    def class_weights(self) -> tuple[float, float]:
        """The weights in the order of LABELS: (BENIGN, MALICIOUS)."""
        return (self.benign_weight, self.malicious_weight)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, base: "Recipe | str | None" = None) -> "Recipe":
        """A recipe from a configuration section, or from what `to_mapping` gave, by an earlier version too.

        Args:
            values: Fields by name. `base` or `recipe` names the recipe to start from, `class_weights` may be given as
                `{BENIGN: 1.5, MALICIOUS: 1.0}`.
            base: The recipe to start from if `values` names none; `full` if both are missing.

        Raises:
            BadInput: Unknown keys (with the nearest known one), options that are gone and were in use, or values of the
                wrong type or out of range.
        """
        given = without_gone(values)
        named = given.pop("base", None) or given.pop("recipe", None) or base or "full"
        start = named if isinstance(named, Recipe) else find_recipe(str(named))
        weights = given.pop("class_weights", None)
        if weights is not None:
            given = _spread_class_weights(weights) | given
        if isinstance(given.get("mix"), Mapping):
            given["mix"] = _mix(given["mix"])
        known = {field.name for field in dataclasses.fields(cls)}
        for key in given:
            if key not in known:
                raise BadInput(f"recipe: unknown key {key!r}{_did_you_mean(key, [*known, 'class_weights', 'base'])}")
        return dataclasses.replace(start, **{key: _from_yaml(key, value) for key, value in given.items()})

    def to_mapping(self) -> dict[str, Any]:
        """All fields as plain values, for JSON and YAML."""
        return dataclasses.asdict(self)

    def warmup(self, total_steps: int) -> tuple[int, str | None]:
        """Warm-up steps for a run of `total_steps`, and the note to print if the cap cut them."""
        cap = int(total_steps * self.warmup_cap)
        if self.warmup_steps <= cap:
            return self.warmup_steps, None
        return cap, (
            f"warm-up cut from {self.warmup_steps:,} to {cap:,} steps: at most {self.warmup_cap:.0%} of this run's "
            f"{total_steps:,} steps"
        )


_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, 1000),
    "batch_size": (1, 8192),
    "learning_rate": (1e-9, 1.0),
    "weight_decay": (0.0, 1.0),
    "warmup_steps": (0, 10_000_000),
    "warmup_cap": (0.0, 1.0),
    "patience": (0, 1000),
    "select_recall": (0.5, 1.0),
    "dropout": (0.0, 0.5),
    "max_length": (8, 8192),
    "crop": (0.0, 1.0),
    "pack": (0.0, 1.0),
    "benign_weight": (0.001, 1000.0),
    "malicious_weight": (0.001, 1000.0),
    "focal_gamma": (0.0, 5.0),
    "threat_weight": (0.0, 10.0),
    "label_smoothing": (0.0, 0.5),
    "distill": (0.0, 1.0),
    "distill_temperature": (0.1, 100.0),
    "average": (0, 1000),
    "pretrain_rows": (0, 10_000_000),
    "pretrain_learning_rate": (1e-9, 1.0),
    "contrastive_rows": (0, 10_000_000),
    "contrastive_negatives": (1, 16),
    "contrastive_pool": (2, 100_000),
    "contrastive_temperature": (0.01, 10.0),
    "contrastive_learning_rate": (1e-9, 1.0),
    "epoch_rows": (1, 1_000_000_000),
    "freeze_layers": (0, 200),
    "max_grad_norm": (0.01, 1000.0),
    "fp_target": (0.0, 0.5),
    "min_recall": (0.0, 1.0),
}


GONE = ("cue_dropout", "r_drop")
"""Options that are no more: token-cue dropout and R-Drop. Folders of earlier versions name them, most of them as 0."""


def without_gone(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's fields by name without the options that are gone; BadInput if one of these is not 0, which was off."""
    for name in GONE:
        value = values.get(name, 0)
        if isinstance(value, bool) or value != 0:
            raise BadInput(f"recipe: {name} is {value!r}, but there is no such option any more; leave it out")
    return {name: value for name, value in values.items() if name not in GONE}


def find_recipe(name: str) -> Recipe:
    """The built-in recipe of this name; BadInput with the nearest name if there is none."""
    if name not in RECIPES:
        raise BadInput(f"unknown recipe {name!r}{_did_you_mean(name, list(RECIPES))}; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def _did_you_mean(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _spread_class_weights(weights: Any) -> dict[str, Any]:
    if not isinstance(weights, Mapping):
        raise BadInput(f"recipe: class_weights must map {' and '.join(LABELS)} to numbers, not {weights!r}")
    spread: dict[str, Any] = {}
    for label, weight in weights.items():
        name = str(label).upper()
        if name not in LABELS:
            raise BadInput(f"recipe: class_weights has {label!r}{_did_you_mean(name, list(LABELS))}")
        spread[f"{name.lower()}_weight"] = weight
    return spread


def _mix(shares: Mapping[str, Any]) -> Mix:
    known = [field.name for field in dataclasses.fields(Mix)]
    for key in shares:
        if key not in known:
            raise BadInput(f"recipe: mix has no part {key!r}{_did_you_mean(str(key), known)}")
    return Mix(**shares)


def _from_yaml(key: str, value: Any) -> Any:
    """YAML reads `2e-5` as a string (it wants `2.0e-5`); a person means the number."""
    kind = {field.name: field.type for field in dataclasses.fields(Recipe)}[key]
    if kind in (float, float | None) and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _check_type(name: str, value: Any, kind: Any) -> None:
    if kind in (bool, str, str | None):
        good = isinstance(value, kind)
    elif kind == int | None:
        good = value is None or (isinstance(value, int) and not isinstance(value, bool))
    elif kind == Mix | None:
        good = value is None or isinstance(value, Mix)
    elif kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif kind is float or kind == float | None:
        good = (isinstance(value, int | float) and not isinstance(value, bool)) or (value is None and kind is not float)
    else:
        optional = kind == PretrainOn | None
        choices = get_args(PretrainOn if optional else kind)
        good = value in choices or (optional and value is None)
        if not good:
            raise BadInput(f"recipe: {name} is {value!r}; it must be one of {', '.join(choices)}")
    if not good:
        wanted = getattr(kind, "__name__", str(kind))
        raise BadInput(f"recipe: {name} is {value!r}; it must be of type {wanted}")


FULL = Recipe()

# For MiniLM on two cores: with the embeddings and the two lowest layers frozen a step takes two thirds of its time.
QUICK = Recipe(
    name="quick",
    epochs=3,
    learning_rate=1e-4,
    warmup_steps=100,
    patience=2,
    max_length=128,
    freeze_embeddings=True,
    freeze_layers=2,
)

# Many sources, each epoch drawn anew by shares: what held best on sources that were not trained on (docs/results.md).
BROAD = Recipe(
    name="broad",
    mix=Mix(),
    epoch_rows=25_000,
    epochs=5,
    learning_rate=3e-4,
    warmup_steps=300,
    patience=0,
    dropout=0.0,
    max_length=256,
    focal_gamma=0.0,
    average=2,
    freeze_embeddings=True,
    freeze_layers=2,
    fp_target=0.02,
)

# An existing model, moved a little: early layers frozen, a learning rate too small to forget at.
INCREMENTAL = Recipe(
    name="incremental",
    epochs=4,
    learning_rate=1e-6,
    warmup_steps=100,
    patience=0,
    max_length=256,
    freeze_embeddings=True,
    freeze_layers=3,
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (FULL, QUICK, BROAD, INCREMENTAL)}
