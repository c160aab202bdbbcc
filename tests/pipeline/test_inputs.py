"""What a run reads is checked before any work, and what it is measured on never loses its hard rows to training."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from crywolf import stages
from crywolf.augment import nearest_reference
from crywolf.config import Config
from crywolf.console import Console
from crywolf.data import BadInput, make_corpus, read_corpus, write_corpus
from crywolf.data.embedded import benign_prompts_path, benign_seeds, malicious_seeds
from crywolf.feedback import Store
from crywolf.inputs import read_inputs
from crywolf.loop import next_round, run_train
from crywolf.session import Session
from crywolf.stages import prepare
from crywolf.train import Split

PROMPTS = read_corpus(benign_prompts_path(), label="BENIGN").frame


def session(folder: Path, **sections: dict[str, Any]) -> Session:
    benign, malicious = benign_seeds().gather_every(12), malicious_seeds().gather_every(12)
    write_corpus(benign, folder / "benign.jsonl", force=True)
    write_corpus(malicious, folder / "malicious.jsonl", force=True)
    data = {"benign": folder / "benign.jsonl", "malicious": folder / "malicious.jsonl", **sections.pop("data", {})}
    config = Config.model_validate({"out": folder / "run", "data": data, **sections})
    return Session(config, Console(as_json=True), folder / "cache")


def test_a_source_to_hold_out_that_is_not_there_is_refused(tmp_path: Path) -> None:
    run = session(tmp_path, data={"holdout_sources": "ticketz"})
    with pytest.raises(BadInput, match="ticketz"):
        prepare(run, read_inputs(run).originals)


def test_the_first_detector_is_kept_from_the_user_s_test_sets_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = benign_seeds().gather_every(12).head(20)
    write_corpus(golden, tmp_path / "golden.jsonl")
    run = session(tmp_path, evaluate={"suites": tmp_path / "golden.jsonl"})
    split = prepare(run, read_inputs(run).originals)
    assert set(split.train["id"]) & set(golden["id"])

    class ReachedError(Exception):
        """Training would start now, on its first argument."""

    def stop(_session: Session, _name: str, training: pl.DataFrame, _split: Split, **_: object) -> Path:
        raise ReachedError(training)

    monkeypatch.setattr(stages, "train_detector", stop)
    with pytest.raises(ReachedError) as reached:
        run_train(run)
    training = reached.value.args[0]
    assert not set(training["id"]) & set(golden["id"])
    assert len(training) > len(split.train) / 2


@pytest.mark.parametrize("name", ["benign_test", "programming", "kept_fps", "mine_whole"])
def test_a_suite_that_takes_a_name_of_ours_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    write_corpus(benign_seeds().head(5), tmp_path / f"{name}.jsonl")
    with pytest.raises(BadInput, match=name):
        read_inputs(session(tmp_path, evaluate={"suites": tmp_path / f"{name}.jsonl"}))


def test_attacks_in_the_benign_test_set_are_refused_before_any_work(tmp_path: Path) -> None:
    write_corpus(malicious_seeds().head(5), tmp_path / "tested.jsonl")
    with pytest.raises(BadInput, match="5 rows of the benign test set"):
        read_inputs(session(tmp_path, evaluate={"benign_test": tmp_path / "tested.jsonl"}))


def test_a_test_set_that_false_positives_come_from_is_parted_before_it_is_scored(tmp_path: Path) -> None:
    prompts = PROMPTS.gather_every(8)
    siblings = make_corpus([{"text": f"{text}!"} for text in prompts["text"].head(20)], label="BENIGN")
    write_corpus(siblings.vstack(make_corpus(prompts.select("text"), label="BENIGN")), tmp_path / "tested.jsonl")
    own = read_inputs(session(tmp_path, evaluate={"benign_test": tmp_path / "tested.jsonl"}))
    assert min(len(own.tested), len(own.harvested)) > 0.4 * len(prompts)
    assert (nearest_reference(own.harvested["text"].to_list(), own.tested["text"].to_list()) < 0).all()
    again = read_inputs(session(tmp_path, evaluate={"benign_test": tmp_path / "tested.jsonl"}))
    assert again.tested.equals(own.tested)
    # False positives of somebody else on the same set part it in the same way.
    write_corpus(make_corpus(prompts.select("text").head(5), label="BENIGN"), tmp_path / "fps.jsonl")
    evaluated = {"benign_test": tmp_path / "tested.jsonl"}
    given = read_inputs(session(tmp_path, data={"fps": tmp_path / "fps.jsonl"}, evaluate=evaluated))
    assert given.tested.equals(own.tested)


def test_a_test_set_that_no_false_positive_comes_from_is_whole(tmp_path: Path) -> None:
    prompts = PROMPTS.gather_every(20)
    write_corpus(make_corpus(prompts.select("text"), label="BENIGN"), tmp_path / "tested.jsonl")
    write_corpus(make_corpus([{"text": "is kill -9 safe?"}], label="BENIGN"), tmp_path / "fps.jsonl")
    evaluated = {"benign_test": tmp_path / "tested.jsonl"}
    found = read_inputs(session(tmp_path, data={"fps": tmp_path / "fps.jsonl"}, evaluate=evaluated))
    assert (len(found.tested), len(found.harvested)) == (len(prompts), 0)


def test_a_first_detector_can_be_trained_before_its_false_positives_are_there(tmp_path: Path) -> None:
    run = session(tmp_path, data={"fps": tmp_path / "later.json"})
    assert read_inputs(run, fps_may_come_later=True).originals.frame.height > 0
    with pytest.raises(BadInput, match=r"later\.json"):
        read_inputs(run)


def test_a_round_builds_on_no_other_run_s_detector(tmp_path: Path) -> None:
    run, store = session(tmp_path), Store.open(tmp_path / "feedback.sqlite")
    other = tmp_path / "other" / "rounds" / "1"
    (other / "detector" / "package").mkdir(parents=True)
    write_corpus(benign_seeds().head(3), other / "detector" / "training.parquet")
    store.record_round(1, str(other), {}, [])
    with pytest.raises(BadInput, match="no detector to build on"):
        next_round(run, store)


def test_a_round_whose_last_detector_is_gone_falls_back_on_no_older_one(tmp_path: Path) -> None:
    run, store = session(tmp_path), Store.open(tmp_path / "feedback.sqlite")
    older = tmp_path / "run" / "retrained"
    (older / "package").mkdir(parents=True)
    write_corpus(benign_seeds().head(3), older / "training.parquet")
    store.record_round(1, str(tmp_path / "run" / "rounds" / "1"), {}, [])
    with pytest.raises(BadInput, match="the last round's detector is gone"):
        next_round(run, store)


def test_a_teacher_that_is_not_there_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"gone: no model folder"):
        read_inputs(session(tmp_path, train={"teachers": tmp_path / "gone", "distill": 0.5}))


def test_teachers_reach_the_training_and_are_a_part_of_its_key(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReachedError(Exception):
        """The fit would start now, with these options."""

    def stop(*_: object, **options: Any) -> None:
        raise ReachedError(options)

    monkeypatch.setattr("crywolf.train.fit", stop)
    lesson = {"recipe": "broad", "distill": 0.5, "teachers": [model_dir]}
    run = session(tmp_path, train=lesson)
    split = prepare(run, read_inputs(run).originals)
    with pytest.raises(ReachedError) as reached:
        stages.train_detector(run, "base", split.train, split)
    options = reached.value.args[0]
    assert (options["teachers"], options["recipe"].distill) == ((model_dir,), 0.5)
    moved = shutil.copytree(model_dir, tmp_path / "moved")
    with pytest.raises(ReachedError):  # the same teacher elsewhere: the step goes on
        stages.train_detector(session(tmp_path, train=lesson | {"teachers": [moved]}), "base", split.train, split)
    twice = session(tmp_path, train=lesson | {"teachers": [moved, model_dir]})
    with pytest.raises(BadInput, match="made with another teachers"):
        stages.train_detector(twice, "base", split.train, split)
