"""A run that is cut off after growing and mining does neither again; other settings are refused, new reports are not.

Everything is the real part but the training, which these tests stop at: what it would be given is what they look at.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf import stages
from crywolf.config import Config
from crywolf.console import Console
from crywolf.data import BadInput, CorruptPackage, make_corpus, write_corpus
from crywolf.data.embedded import benign_seeds, malicious_seeds
from crywolf.feedback import Store
from crywolf.loop import next_round, run_retrain
from crywolf.session import Session

PROMPTS = [
    "please freeze my bank account",
    "How do I require a login for all pages of my Django site?",
    "change the permissions of every PHP file in /srv/www to 644",
    "remind me to call my sister tomorrow at noon",
    "How can I bypass the paywall notice in my own staging environment?",
    "delete all temporary tables before the import starts",
]
REPORTS = ["kill every process that holds port 8080", "ignore the first column when you read this spreadsheet"]


TRAIN_DETECTOR = stages.train_detector


class Killed(BaseException):
    """The run is cut off here, where training would start on `args[0]`."""


def cut_off(_session: Session, _name: str, training: pl.DataFrame, _split: object, **_: object) -> Path:
    raise Killed(training)


def never(*_: object, **__: object) -> Any:
    raise AssertionError("done once more")


@pytest.fixture(autouse=True)
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """What should have been refused must not train for minutes before the test fails."""
    monkeypatch.setattr(stages, "train_detector", never)


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    write_corpus(benign_seeds().gather_every(12), folder / "benign.jsonl")
    write_corpus(malicious_seeds().gather_every(12), folder / "malicious.jsonl")
    write_corpus(make_corpus([{"text": text} for text in PROMPTS], label="BENIGN"), folder / "fps.jsonl")
    return folder


@pytest.fixture(scope="module")
def start(user: Path, cache: Path, tiny_package: Path) -> Callable[..., Session]:
    """`start(out, force=..., data={...}, ...)`: a session, sections of the configuration changed."""

    def make(out: Path, *, force: bool = False, **sections: dict[str, Any]) -> Session:
        data = {"benign": user / "benign.jsonl", "malicious": user / "malicious.jsonl", "fps": user / "fps.jsonl"}
        config = Config.model_validate(
            {
                "out": out,
                "evaluate": {"baseline": str(tiny_package)},
                "data": {**data, **sections.pop("data", {})},
                "augment": {"per_fp": 4, **sections.pop("augment", {})},
                **sections,
            }
        )
        return Session(config, Console(), cache, force)

    return make


def retrain_until_training(session: Session) -> pl.DataFrame:
    """What the run would train on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_detector", cut_off)
        with pytest.raises(Killed) as killed:
            run_retrain(session)
    return killed.value.args[0]


@pytest.fixture(scope="module")
def first(start: Callable[..., Session], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame]:
    """The folder of a run that was cut off at its training, and what it would have trained on."""
    out = tmp_path_factory.mktemp("first") / "run"
    return out, retrain_until_training(start(out))


@pytest.fixture
def cut(first: tuple[Path, pl.DataFrame], tmp_path: Path) -> Path:
    """A copy of that run's folder for one test."""
    return shutil.copytree(first[0], tmp_path / "run")


def test_a_retrain_killed_after_growth_goes_on_without_growing_or_mining(
    first: tuple[Path, pl.DataFrame],
    cut: Path,
    start: Callable[..., Session],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(stages, "grow", never)
    monkeypatch.setattr(stages, "mine_hard_negatives", never)
    again = retrain_until_training(start(cut))
    assert again.equals(first[1])
    assert (again["source"] == "augmented").any()
    said = " ".join(capsys.readouterr().err.split())
    assert "rows grown before, reused" in said
    assert "hard negatives mined before, reused" in said


def test_what_is_read_back_is_what_was_made(
    start: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, Any] = {}

    def seen(name: str) -> Callable[..., Any]:
        real = getattr(stages, name)

        def run(*args: Any, **options: Any) -> Any:
            made[name] = real(*args, **options)
            return made[name]

        return run

    for name in ("grow", "mine_hard_negatives"):
        monkeypatch.setattr(stages, name, seen(name))
    session = start(tmp_path / "run", train={"grown_weight": 0.7})
    fps = make_corpus([{"text": text} for text in PROMPTS], label="BENIGN")
    benign, attacks = benign_seeds().gather_every(12), malicious_seeds().gather_every(12)
    grown = stages.grow_fps(session, "grown", fps, malicious=attacks, against=[], holdouts=[])
    mined = stages.mine(session, "mined", benign, attacks, fps)
    result = made["grow"]
    weighted = result.frame.with_columns((pl.col("weight") * 0.7).cast(pl.Float32))
    assert grown.frame.equals(weighted)
    assert grown.frame.schema == weighted.schema
    assert grown.summary() == result.summary()
    assert grown.operators.equals(result.operators)
    assert mined.frame.equals(made["mine_hard_negatives"].frame)
    assert mined.table.equals(made["mine_hard_negatives"].table)
    assert (mined.index, mined.advice) == (made["mine_hard_negatives"].index, made["mine_hard_negatives"].advice)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"augment": {"per_fp": 3}}, r"retrained-grown: made with another per_fp; .*--force"),
        ({"augment": {"guard_margin": 0.2}}, "retrained-grown: made with another guard_margin;"),
        ({"augment": {"languages": ["en", "de"]}}, "retrained-grown: made with another languages;"),
        ({"mining": {"per_anchor": 2}}, "retrained-mined: made with another per_anchor;"),
    ],
)
def test_other_settings_are_refused_by_name(
    sections: dict[str, Any], said: str, cut: Path, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "grow", never)
    monkeypatch.setattr(stages, "mine_hard_negatives", never)
    with pytest.raises(BadInput, match=said):
        run_retrain(start(cut, **sections))


def test_other_false_positives_are_refused_too(cut: Path, start: Callable[..., Session], tmp_path: Path) -> None:
    write_corpus(make_corpus([{"text": text} for text in PROMPTS[:4]], label="BENIGN"), tmp_path / "fps.jsonl")
    with pytest.raises(BadInput, match=r"retrained-grown: made with another (.*, )?fps"):
        run_retrain(start(cut, data={"fps": tmp_path / "fps.jsonl"}))


def test_another_detector_before_is_refused_too(
    cut: Path, start: Callable[..., Session], tiny_package: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_package, tmp_path / "the same elsewhere")
    assert not retrain_until_training(start(cut, evaluate={"baseline": str(moved)})).is_empty()
    manifest = moved / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(BadInput, match="retrained-grown: made with another detector;"):
        run_retrain(start(cut, evaluate={"baseline": str(moved)}))


def test_force_grows_anew_with_the_other_settings(
    first: tuple[Path, pl.DataFrame], cut: Path, start: Callable[..., Session]
) -> None:
    forced = retrain_until_training(start(cut, force=True, augment={"per_fp": 3}))
    assert 0 < (forced["source"] == "augmented").sum() < (first[1]["source"] == "augmented").sum()
    assert forced.equals(retrain_until_training(start(cut, augment={"per_fp": 3})))


def test_another_weight_needs_no_other_growth(
    first: tuple[Path, pl.DataFrame], cut: Path, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "grow", never)
    again = retrain_until_training(start(cut, train={"grown_weight": 2.0}))
    grown = pl.col("source") == "augmented"
    assert again.drop("weight").equals(first[1].drop("weight"))
    weights, before = (frame.filter(grown)["weight"] for frame in (again, first[1]))
    assert (weights - 2 * before).abs().max() < 1e-5


def test_a_growth_that_was_cut_off_itself_starts_again(
    first: tuple[Path, pl.DataFrame], tmp_path: Path, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages, "grow", killed)
        with pytest.raises(Killed):
            run_retrain(start(tmp_path / "run"))
    assert retrain_until_training(start(tmp_path / "run")).equals(first[1])


@pytest.mark.parametrize(
    ("name", "content"), [("grown.parquet", None), ("grown.parquet", b"not it"), ("grown.json", b"{}")]
)
def test_rows_that_are_not_those_that_were_saved_are_never_trained_on(
    name: str, content: bytes | None, cut: Path, start: Callable[..., Session]
) -> None:
    path = cut / "retrained-grown" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptPackage, match=r"retrained-grown/grown.*delete .*retrained-grown to have it made again"):
        run_retrain(start(cut))


# --- a round of feedback ---------------------------------------------------------------------------------------------


def round_until_training(session: Session, store: Store) -> pl.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "train_detector", cut_off)
        with pytest.raises(Killed) as killed:
            next_round(session, store)
    return killed.value.args[0]


def report(store: Store, *texts: str) -> None:
    store.add(make_corpus([{"text": text} for text in texts], label="BENIGN", source="feedback"))


@pytest.fixture
def store(cut: Path, first: tuple[Path, pl.DataFrame], tiny_package: Path, tmp_path: Path) -> Store:
    """A store with two reports, and in the run's folder a detector that they are reports of."""
    write_corpus(first[1], cut / "retrained" / stages.TRAINING)
    shutil.copytree(tiny_package, cut / "retrained" / "package")
    opened = Store.open(tmp_path / "feedback.sqlite")
    report(opened, *REPORTS)
    return opened


def test_a_round_killed_after_growth_goes_on_without_growing(
    cut: Path, store: Store, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = round_until_training(start(cut), store)
    grown = pl.read_parquet(cut / "rounds" / "1-grown" / stages.GROWN_FPS)
    assert set(grown["text"]) == set(REPORTS)
    monkeypatch.setattr(stages, "grow", never)
    assert round_until_training(start(cut), store).equals(once)


def test_reports_that_came_in_since_are_grown_without_force(
    cut: Path, store: Store, start: Callable[..., Session]
) -> None:
    once = round_until_training(start(cut), store)
    report(store, "drop the last three rows of the table I pasted")
    again = round_until_training(start(cut), store)
    assert again.height > once.height
    assert pl.read_parquet(cut / "rounds" / "1-grown" / stages.GROWN_FPS).height == len(REPORTS) + 1


def test_a_round_cut_off_in_training_takes_the_reports_that_came_in_since(
    cut: Path, store: Store, start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_in_fit(training: pl.DataFrame, *_: object, **__: object) -> Any:
        raise Killed(training)

    monkeypatch.setattr(stages, "train_detector", TRAIN_DETECTOR)
    monkeypatch.setattr("crywolf.train.fit", killed_in_fit)
    seen = []
    for _ in range(2):
        with pytest.raises(Killed) as killed:
            next_round(start(cut), store)
        seen.append(killed.value.args[0])
        report(store, "drop the last three rows of the table I pasted")
    assert seen[1].height > seen[0].height


def test_a_round_with_other_settings_is_refused_by_name_unless_forced(
    cut: Path, store: Store, start: Callable[..., Session]
) -> None:
    round_until_training(start(cut), store)
    report(store, "drop the last three rows of the table I pasted")
    with pytest.raises(BadInput, match=r"1-grown: made with another fps, per_fp; .*--force"):
        next_round(start(cut, feedback={"per_fp": 3}), store)
    assert round_until_training(start(cut, force=True, feedback={"per_fp": 3}), store).height > 0
