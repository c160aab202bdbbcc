"""crywolf.yaml is read once and checked before any work: what is wrong is named, paths are relative to the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from crywolf.config import Config, load_config
from crywolf.console import Console
from crywolf.data import BadInput
from crywolf.session import Session
from crywolf.train.learn.recipes import QUICK

MINIMAL = {"out": "run", "data": {"benign": ["b.jsonl"], "malicious": ["m.jsonl"]}}


def write(folder: Path, **changes: Any) -> Path:
    """A minimal configuration with sections changed; a dotted key stands for one inside."""
    raw: dict[str, Any] = {**MINIMAL, "data": dict(MINIMAL["data"])}  # type: ignore[call-overload]  # a mapping
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / "crywolf.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_paths_are_relative_to_the_file_wherever_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "project"
    (home / "old").mkdir(parents=True)
    (home / "encoder").mkdir()
    write(
        home,
        data={"fps": "fps.json", "prompts": "p.jsonl", "holdouts": ["golden.jsonl"]},
        evaluate={"benign_test": "t.jsonl", "suites": ["s.jsonl", "/abs/s.jsonl"], "baseline": "old"},
        train={"encoder": "encoder", "teachers": ["one", "/abs/two"], "distill": 0.5},
        feedback={"store": "f.sqlite"},
    )
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("project/crywolf.yaml"))
    data, measured = config.data, config.evaluate
    assert (config.out, data.benign, data.malicious) == (home / "run", (home / "b.jsonl",), (home / "m.jsonl",))
    assert (data.fps, data.prompts, data.holdouts) == (home / "fps.json", home / "p.jsonl", (home / "golden.jsonl",))
    assert (measured.benign_test, measured.suites) == (home / "t.jsonl", (home / "s.jsonl", Path("/abs/s.jsonl")))
    assert (measured.baseline, config.train.encoder) == (str(home / "old"), str(home / "encoder"))
    assert config.train.teachers == (home / "one", Path("/abs/two"))
    assert config.feedback.store == home / "f.sqlite"


@pytest.mark.parametrize("baseline", ["http://localhost:8000/predict", "mypackage.guard:score"])
def test_a_detector_that_is_no_folder_is_left_as_it_is(tmp_path: Path, baseline: str) -> None:
    assert load_config(write(tmp_path, evaluate={"baseline": baseline})).evaluate.baseline == baseline


def test_an_encoder_that_is_no_folder_is_a_name(tmp_path: Path) -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert load_config(write(tmp_path, train={"encoder": name})).train.encoder == name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dta": {}}, "dta: no such key, did you mean 'data'?"),
        ({"train": {"epoch": 3}}, "train.epoch: no such key, did you mean 'epochs'?"),
        ({"data": {"holdout": ["x"]}}, "data.holdout: no such key, did you mean 'holdouts'?"),
        ({"feedback": {"qqqqq": 1}}, "feedback.qqqqq: no such key"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert str(caught.value) == f"{path}: {said}"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seed": "first"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"data": {"benign": []}}, "data.benign"),
        ({"data": {"benign": {"b.jsonl": 1}}}, "data.benign"),
        ({"data": {"kept_fps": 1.5}}, "data.kept_fps"),
        ({"data": {"benign_limit": 0}}, "data.benign_limit"),
        ({"augment": {"per_fp": 0}}, "augment.per_fp"),
        ({"augment": {"twins": "perhaps"}}, "augment.twins"),
        ({"mining": {"per_anchor": 0}}, "mining.per_anchor"),
        ({"train": {"recipe": "slow"}}, "train.recipe"),
        ({"train": {"benign_weight": -1}}, "train.benign_weight"),
        ({"train": {"benign_weight": float("inf")}}, "train.benign_weight"),
        ({"train": {"grown_weight": float("nan")}}, "train.grown_weight"),
        ({"train": {"fp_target": 0.9}}, "train.fp_target"),
        ({"train": {"max_length": 100_000}}, "train.max_length"),
        ({"train": {"pretrain": "all"}}, "train.pretrain"),
        ({"train": {"strict": "catch all"}}, "train.strict"),
        ({"train": {"balanced": "cost 1:0 at 1%"}}, "train.balanced"),
        ({"train": {"lenient": "fp 100%"}}, "train.lenient"),
        ({"train": {"lenient": 0.01}}, "train.lenient"),
        ({"train": {"balanced": "fp 1%", "fp_target": 0.01}}, "train"),
        ({"train": {"distill": 1.5, "teachers": ["t"]}}, "train.distill"),
        ({"train": {"distill": 0.5}}, "train"),
        ({"train": {"teachers": ["t"]}}, "train"),
        ({"evaluate": {"robustness": "perhaps"}}, "evaluate.robustness"),
        ({"evaluate": {"suites": 3}}, "evaluate.suites"),
        ({"feedback": {"per_fp": "many"}}, "feedback.per_fp"),
        ({"out": None}, "out"),
        ({"data": 5}, "data"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_key(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {key}: ")


def test_the_targets_of_the_operating_points_reach_the_recipe(tmp_path: Path) -> None:
    goals = {"strict": "recall 99%", "balanced": "cost 1:20 at 1%", "lenient": "fp 0.1%"}
    recipe = Session(load_config(write(tmp_path, train=goals)), Console(), tmp_path).recipe
    assert {name: getattr(recipe, name) for name in goals} == goals
    own = Session(load_config(write(tmp_path)), Console(), tmp_path).recipe
    assert (own.strict, own.balanced, own.lenient) == (QUICK.strict, QUICK.balanced, QUICK.lenient)


def test_the_steps_before_training_reach_the_recipe_and_are_off_unless_asked_for(tmp_path: Path) -> None:
    asked = {"pretrain": "technical", "pretrain_rows": 500, "contrastive_rows": 2000}
    recipe = Session(load_config(write(tmp_path, train=asked)), Console(), tmp_path).recipe
    assert {name: getattr(recipe, name) for name in asked} == asked
    own = Session(load_config(write(tmp_path)), Console(), tmp_path).recipe
    assert (own.pretrain, own.contrastive_rows) == (None, 0)


@pytest.mark.parametrize("command", ["train", "retrain"])
def test_pretrain_on_the_command_line_overrides_the_file(
    command: str, tmp_path: Path, crywolf: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []

    def run(session: Session) -> None:
        seen.append(session.config)
        raise BadInput("seen")

    monkeypatch.setattr(f"crywolf.loop.run_{command}", run)
    path = write(tmp_path, train={"pretrain": "benign"})
    crywolf(command, "--config", path)
    crywolf(command, "--config", path, "--pretrain", "technical")
    assert [config.train.pretrain for config in seen] == ["benign", "technical"]


def test_a_target_that_is_none_says_how_to_say_one(tmp_path: Path) -> None:
    path = write(tmp_path, train={"strict": "catch all"})
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: train.strict: target 'catch all': say `fp 1%`, `recall 98%`")


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, seed=-1, train={"epochs": 0, "epoch": 1})
    with pytest.raises(BadInput) as caught:
        load_config(path)
    for key in ("seed: ", "train.epochs: ", "train.epoch: no such key"):
        assert key in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected sections such as `data:`"),
        (b"- a\n- b\n", "expected sections such as `data:`"),
        (b"out: [run\n", "cannot be read as YAML"),
        (b"out: run\n\tdata: x\n", "cannot be read as YAML"),
        (b"out: \xff\xfe\n", "cannot be read as YAML"),
        (b"out: a\0b\n", "cannot be read as YAML"),
        (b"out: " + b"[" * 5_000, "cannot be read as YAML"),
        (b"out: !!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
        (b"seed: 3\n", "out: Field required; data: Field required"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "crywolf.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_missing_file_points_to_init(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing\.yaml: not there; `crywolf init`"):
        load_config(tmp_path / "nothing.yaml")


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="Is a directory"):
        load_config(tmp_path)


def test_numbers_as_yaml_1_1_reads_them_are_taken_for_what_they_mean(tmp_path: Path) -> None:
    path = tmp_path / "crywolf.yaml"
    path.write_text("out: run\ndata: {benign: [b], malicious: [m]}\ntrain: {learning_rate: 2e-5}\n")
    assert load_config(path).train.learning_rate == 2e-5


def test_a_configuration_does_not_change_once_it_is_read(tmp_path: Path) -> None:
    config = load_config(write(tmp_path))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]  # that is the point
    assert isinstance(config, Config)


# --- overrides on the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "retrain"])
@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--benign-weight", "-1", "train.benign_weight"),
        ("--benign-weight", "nan", "train.benign_weight"),
        ("--fp-target", "2", "train.fp_target"),
    ],
)
def test_an_override_is_checked_like_the_file(
    command: str, option: str, value: str, key: str, tmp_path: Path, crywolf: Callable
) -> None:
    ran = crywolf(command, "--config", write(tmp_path), option, value)
    assert (ran.code, ran.out) == (2, "")
    assert key in ran.err
    assert "Traceback" not in ran.err
    assert len(ran.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["crywolf.yaml"]


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [("--grown-weight", "0", "train.grown_weight"), ("--grown-budget", "-5", "train.grown_budget")],
)
def test_an_override_of_retrain_is_checked_like_the_file(
    option: str, value: str, key: str, tmp_path: Path, crywolf: Callable
) -> None:
    ran = crywolf("retrain", "--config", write(tmp_path), option, value)
    assert ran.code == 2
    assert key in ran.err


def test_an_fp_target_on_the_command_line_is_not_swallowed_by_the_files_balanced(
    tmp_path: Path, crywolf: Callable
) -> None:
    ran = crywolf("train", "--config", write(tmp_path, train={"balanced": "recall 98%"}), "--fp-target", "0.05")
    assert ran.code == 2
    assert "train: fp_target and balanced both choose the threshold" in ran.err


@pytest.mark.parametrize("command", ["train", "retrain"])
def test_data_that_is_not_there_is_named_and_leaves_no_folder(command: str, tmp_path: Path, crywolf: Callable) -> None:
    ran = crywolf(command, "--config", write(tmp_path))
    assert ran.code == 2
    assert ran.err.startswith(f"crywolf: {tmp_path / 'b.jsonl'}: cannot be read: no such file")
    assert [path.name for path in tmp_path.iterdir()] == ["crywolf.yaml"]


def test_one_file_need_not_be_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, data={"benign": "b.jsonl", "malicious": "m.jsonl"}, evaluate={"suites": "s.jsonl"})
    config = load_config(path)
    assert config.data.benign == (tmp_path / "b.jsonl",)
    assert config.evaluate.suites == (tmp_path / "s.jsonl",)


def test_incremental_training_has_nothing_to_go_on_from_in_train(tmp_path: Path, crywolf: Callable) -> None:
    ran = crywolf("train", "--config", write(tmp_path, train={"recipe": "incremental"}))
    assert ran.code == 2
    assert "crywolf retrain" in ran.err
