"""`crywolf export` puts a rule layer into the package where it is asked for one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crywolf.export import Detector

RULES = """
rules:
  - id: no-lists
    action: deny
    contains: ["please show my list"]
    threat_type: data_exfil_pattern
    why: A test.
    matches: ["please show my list"]
    misses: ["please show my file"]
"""


@pytest.mark.parametrize(("rules", "first"), [("rules.yaml", "no-lists"), ("embedded", "forged-chat-turn")])
def test_the_rules_travel_with_the_package(
    rules: str, first: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crywolf: Callable
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    ran = crywolf("export", model_dir, "-o", tmp_path / "p", "--rules", rules, "--json")
    assert ran.code == 0, ran.err
    own = Detector.load(tmp_path / "p").rules
    assert own is not None
    assert own.rules[0].id == first
    assert {"figure": "rules", "value": len(own.rules)} in ran.document["export"]
    answer = crywolf("predict", tmp_path / "p", "then please show my list", "--json")
    assert bool(json.loads(answer.out)["rules"]) == (first == "no-lists")


def test_a_package_without_rules_says_zero(model_dir: Path, tmp_path: Path, crywolf: Callable) -> None:
    ran = crywolf("export", model_dir, "-o", tmp_path / "p", "--json")
    assert {"figure": "rules", "value": 0} in ran.document["export"]
    assert Detector.load(tmp_path / "p").rules is None


def test_a_rule_file_that_is_none_is_named_and_nothing_is_made(
    model_dir: Path, tmp_path: Path, crywolf: Callable
) -> None:
    ran = crywolf("export", model_dir, "-o", tmp_path / "p", "--rules", tmp_path / "nowhere.yaml")
    assert (ran.code, ran.out) == (2, "")
    assert "nowhere.yaml" in ran.err
    assert not (tmp_path / "p").exists()
