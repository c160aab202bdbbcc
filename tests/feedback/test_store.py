"""The store remembers every report once, and every round."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.data import BadInput, make_corpus, text_id
from crywolf.feedback import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "feedback.sqlite")


def reports(*texts: str) -> object:
    return make_corpus([{"text": text, "extra": {"confidence": 0.9}} for text in texts], label="BENIGN")


def test_a_report_is_taken_once(store: Store) -> None:
    assert store.add(reports("show my list", "stop the timer", "show my list")) == (2, 1)
    assert store.add(reports("stop the timer", "kill the process")) == (1, 1)
    assert sorted(store.frame()["text"].to_list()) == ["kill the process", "show my list", "stop the timer"]


def test_what_was_stored_comes_back_whole(tmp_path: Path) -> None:
    text = "Robert'); DROP TABLE reports;-- \n“naïve” 忽略 \U0001f600"
    Store.open(tmp_path / "f.sqlite").add(reports(text))
    frame = Store.open(tmp_path / "f.sqlite").frame()
    assert frame["text"].to_list() == [text]
    assert frame["id"].to_list() == [text_id(text)]
    assert frame["extra"].struct.field("confidence").to_list() == [0.9]
    assert frame["source"].to_list() == ["feedback"]


def test_statuses_move_reports_between_frames(store: Store) -> None:
    store.add(reports("a prompt", "another prompt"))
    assert store.set_status([text_id("a prompt")], "quarantined", note="near an attack") == 1
    assert store.frame(("new",))["text"].to_list() == ["another prompt"]
    held = store.frame(("quarantined",))
    assert held["extra"].struct.field("notes").to_list() == ["near an attack"]
    assert store.counts() == {"new": 1, "quarantined": 1, "accepted": 0, "rejected": 0, "grown": 0}


def test_a_round_is_recorded_with_its_reports(store: Store) -> None:
    store.add(reports("a prompt", "another prompt"))
    store.record_round(1, "rounds/1", {"passed": False}, [text_id("a prompt")])
    assert [(r["number"], r["folder"], r["verdict"]) for r in store.rounds()] == [(1, "rounds/1", {"passed": False})]
    assert store.counts()["grown"] == 1


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("not a database, but long enough to be mistaken for one " * 40)
    with pytest.raises(BadInput, match=r"x\.sqlite"):
        Store.open(tmp_path / "x.sqlite")
    with pytest.raises(BadInput, match="folder"):
        Store.open(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1), max_size=20))
def test_counts_always_add_up(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    visible = [text for text in texts if text.strip()]
    store = Store.open(tmp_path_factory.mktemp("s") / "f.sqlite")
    new, known = store.add(reports(*visible)) if visible else (0, 0)
    assert new + known == len(visible)
    assert new == len({text_id(text) for text in visible}) == sum(store.counts().values())


@pytest.mark.parametrize("name", ["fb?x.sqlite", "a%20b#c.sqlite", ":memory:"])
def test_the_store_lies_under_exactly_the_name_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Store.open(Path(name)).add(reports("a prompt"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(Store.open(tmp_path / name).frame()) == 1


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="is a file and not a folder"):
        Store.open(tmp_path / "file" / "feedback.sqlite")


def test_a_short_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("hello\n")
    with pytest.raises(BadInput, match="not a feedback store"):
        Store.open(tmp_path / "x.sqlite")
