"""A run's steps are made once, kept as long as what they were made from stays the same, and never mixed."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crywolf.data import BadInput, CorruptPackage, RunManifest, make_corpus, write_corpus
from crywolf.workspace import MARK, Workspace, fingerprint, load_rows, save_rows

KEY = {"seed": 0, "inputs": {"a.jsonl": "12ab"}, "shares": (0.8, 0.1)}


class Maker:
    """Makes a step's folder, and counts how often it had to."""

    def __init__(self, text: str = "made", *, fail: bool = False) -> None:
        self.text, self.fail, self.found = text, fail, []

    def __call__(self, folder: Path) -> RunManifest:
        self.found.append(sorted(path.name for path in folder.iterdir() if path.name != MARK))
        (folder / "result.txt").write_text(self.text)
        if self.fail:
            raise KeyboardInterrupt
        return RunManifest("step", {"text": self.text})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "run")


def test_a_step_is_made_once_and_then_reused(workspace: Workspace) -> None:
    make = Maker()
    assert workspace.step("splits", KEY, make) == (workspace.root / "splits", False)
    assert workspace.step("splits", {**KEY, "shares": [0.8, 0.1]}, make) == (workspace.root / "splits", True)
    assert make.found == [[]]
    assert sorted(path.name for path in (workspace.root / "splits").iterdir()) == [
        "result.txt",
        "run.manifest.json",
        MARK,
    ]


def test_a_step_made_from_something_else_is_refused_and_what_changed_is_named(workspace: Workspace) -> None:
    workspace.step("base", KEY, Maker("old"))
    with pytest.raises(BadInput, match=r"base: made with another inputs, seed; .*--force") as caught:
        workspace.step("base", {**KEY, "seed": 1, "inputs": {"a.jsonl": "34cd"}}, Maker("new"))
    assert "shares" not in str(caught.value)
    assert (workspace.root / "base" / "result.txt").read_text() == "old"


def test_a_key_that_is_new_or_gone_has_changed(workspace: Workspace) -> None:
    workspace.step("base", KEY, Maker())
    with pytest.raises(BadInput, match="another encoder"):
        workspace.step("base", {**KEY, "encoder": None} | {"encoder": "x"}, Maker())
    with pytest.raises(BadInput, match="another shares"):
        workspace.step("base", {key: value for key, value in KEY.items() if key != "shares"}, Maker())


def test_force_makes_a_changed_step_again_from_nothing(workspace: Workspace) -> None:
    workspace.step("base", KEY, Maker("old"))
    (workspace.root / "base" / "left_over").write_text("")
    forced = Workspace(workspace.root, force=True)
    make = Maker("new")
    assert forced.step("base", {**KEY, "seed": 1}, make, resumable=True)[1] is False
    assert make.found == [[]]
    assert (workspace.root / "base" / "result.txt").read_text() == "new"


def test_force_reuses_a_step_that_has_not_changed(workspace: Workspace) -> None:
    workspace.step("base", KEY, Maker())
    make = Maker()
    assert Workspace(workspace.root, force=True).step("base", KEY, make)[1]
    assert make.found == []


def test_what_may_renew_a_step_makes_it_again_unless_more_has_changed(workspace: Workspace) -> None:
    workspace.step("grown", KEY, Maker("old"))
    with pytest.raises(BadInput, match="another inputs, seed"):
        workspace.step("grown", {**KEY, "inputs": {}, "seed": 1}, Maker(), renewed_by=["inputs"])
    make = Maker("new")
    assert workspace.step("grown", {**KEY, "inputs": {}}, make, renewed_by=["inputs"])[1] is False
    assert make.found == [[]]
    assert workspace.step("grown", {**KEY, "inputs": {}}, make, renewed_by=["inputs"])[1] is True


@pytest.mark.parametrize(("resumable", "found"), [(True, ["result.txt"]), (False, [])])
def test_an_unfinished_step_is_gone_on_with_only_where_it_can_be(
    workspace: Workspace, resumable: bool, found: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        workspace.step("base", KEY, Maker(fail=True), resumable=resumable)
    make = Maker()
    assert workspace.step("base", KEY, make, resumable=resumable)[1] is False
    assert make.found == [found]
    assert workspace.step("base", KEY, make, resumable=resumable)[1] is True


def test_an_unfinished_step_of_other_settings_is_refused_and_with_force_emptied(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt):
        workspace.step("base", KEY, Maker(fail=True), resumable=True)
    with pytest.raises(BadInput, match="another seed"):
        workspace.step("base", {**KEY, "seed": 1}, Maker(), resumable=True)
    make = Maker()
    Workspace(workspace.root, force=True).step("base", {**KEY, "seed": 1}, make, resumable=True)
    assert make.found == [[]]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_no_step_made_is_never_emptied(workspace: Workspace, force: bool) -> None:
    theirs = workspace.root / "base" / "thesis.tex"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    with pytest.raises(BadInput, match="base: is there and was not made by a run"):
        Workspace(workspace.root, force=force).step("base", KEY, Maker())
    assert theirs.read_text() == "years of work"


def made_before_steps(folder: Path) -> None:
    """As runs left their growth before it was a step: results and a manifest, no mark."""
    folder.mkdir(parents=True)
    (folder / "grown.jsonl.gz").write_text("rows")
    RunManifest("grow retrained-grown", {"per_fp": 15}).write(folder)


def test_what_an_earlier_version_made_is_refused_as_that_and_replaced_with_force(workspace: Workspace) -> None:
    folder = workspace.root / "retrained-grown"
    made_before_steps(folder)
    with pytest.raises(BadInput, match=r"retrained-grown: made by an earlier version .*--force") as caught:
        workspace.step("retrained-grown", KEY, Maker())
    assert "not made by a run" not in str(caught.value)
    make = Maker("new")
    assert Workspace(workspace.root, force=True).step("retrained-grown", KEY, make) == (folder, False)
    assert make.found == [[]]
    assert (folder / "result.txt").read_text() == "new"


@pytest.mark.parametrize("manifest", ["half", "[]", '{"command": 3}', '{"command": "webpack", "parameters": {}}'])
def test_a_manifest_of_another_program_gives_no_leave_to_empty_a_folder(workspace: Workspace, manifest: str) -> None:
    theirs = workspace.root / "base"
    theirs.mkdir(parents=True)
    (theirs / "run.manifest.json").write_text(manifest)
    with pytest.raises(BadInput, match="was not made by a run"):
        Workspace(workspace.root, force=True).step("base", KEY, Maker())
    assert (theirs / "run.manifest.json").read_text() == manifest


def test_an_empty_folder_may_be_filled(workspace: Workspace) -> None:
    (workspace.root / "base").mkdir(parents=True)
    assert workspace.step("base", KEY, Maker())[1] is False


@pytest.mark.parametrize("where", ["run", "run/base"])
def test_a_file_in_the_way_is_bad_input(tmp_path: Path, where: str) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("a file")
    with pytest.raises(BadInput, match="base"):
        Workspace(tmp_path / "run").step("base", KEY, Maker())
    assert (tmp_path / where).read_text() == "a file"


def test_steps_do_not_touch_each_other(workspace: Workspace) -> None:
    workspace.step("rounds/1/detector", KEY, Maker("one"))
    workspace.step("rounds/2/detector", {**KEY, "seed": 1}, Maker("two"))
    assert (workspace.root / "rounds" / "1" / "detector" / "result.txt").read_text() == "one"


ROWS = make_corpus(
    [
        {"text": "one", "label": "BENIGN", "weight": 0.1, "extra": {"notes": "n", "threats": [{"rule_id": "r"}]}},
        {"text": "zwei \u2028 \U0001f43a\n", "label": "MALICIOUS", "threat_type": "unknown", "how": "a:b"},
        {"text": "one", "label": "BENIGN", "weight": 1 / 3},
    ]
)


@pytest.mark.parametrize("rows", [ROWS, ROWS.reverse(), ROWS.head(0)])
def test_rows_come_back_as_they_were_with_their_account(rows: pl.DataFrame, tmp_path: Path) -> None:
    account = {"notes": ["ä"], "share": 0.1 + 0.2, "nothing": None}
    save_rows(tmp_path, "grown", rows, account)
    frame, told = load_rows(tmp_path, "grown")
    assert frame.equals(rows)
    assert frame.schema == rows.schema
    assert told == account


def test_rows_of_another_hand_are_corrupt_and_the_folder_to_delete_is_named(tmp_path: Path) -> None:
    save_rows(tmp_path, "grown", ROWS, {})
    write_corpus(ROWS.head(1), tmp_path / "grown.parquet", force=True)
    with pytest.raises(CorruptPackage, match=rf"not the rows that were saved; delete {tmp_path} "):
        load_rows(tmp_path, "grown")


VALUES: Callable = lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)  # noqa: E731 - a strategy
PLAIN = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), VALUES, max_leaves=8)


@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=5), st.randoms())
def test_equal_keys_have_equal_fingerprints_in_any_order(key: dict[str, object], random: object) -> None:
    items = list(key.items())
    random.shuffle(items)  # type: ignore[attr-defined]  # a random.Random
    assert fingerprint(dict(items)) == fingerprint(key)
    assert fingerprint({**key, "one more": 1}) != fingerprint(key)
