"""A target says in one line what a threshold is chosen by, and is refused where it says nothing."""

import pytest

from crywolf.data import BadInput
from crywolf.train.learn.target import Target


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("fp 1%", Target("fp", bound=0.01)),
        ("FP <= 0.001", Target("fp", bound=0.001)),
        ("fp 1e-3", Target("fp", bound=0.001)),
        (" recall >= 98% ", Target("recall", bound=0.98)),
        ("cost 1:20 at 1%", Target("cost", fp_cost=1, miss_cost=20, prevalence=0.01)),
        ("cost 0.5 : 8 at 0.05", Target("cost", fp_cost=0.5, miss_cost=8, prevalence=0.05)),
    ],
)
def test_a_line_is_read_as_it_is_meant(line: str, target: Target) -> None:
    found = Target.parse(line)
    assert found.kind == target.kind
    assert found.text == target.text


@pytest.mark.parametrize(
    "line",
    [
        "",
        "fp",
        "98%",
        "recall 120%",
        "recall 0",
        "fp 100%",
        "fp -1%",
        "cost 1:20",
        "cost 0:1 at 1%",
        "cost 1:2 at 100%",
    ],
)
def test_a_line_that_says_no_target_is_refused(line: str) -> None:
    with pytest.raises(BadInput, match="target"):
        Target.parse(line)


def test_a_target_prints_itself_in_words() -> None:
    assert Target.parse("fp 0.1%").text == "FP rate at most 0.1%"
    assert "a missed attack at 20, 1% attacks" in Target.parse("cost 1:20 at 1%").text


def test_a_cost_weighs_both_mistakes_by_how_often_they_can_happen() -> None:
    target = Target.parse("cost 2:30 at 10%")
    assert target.cost(fp_rate=0.05, recall=0.9) == pytest.approx(0.9 * 2 * 0.05 + 0.1 * 30 * 0.1)
