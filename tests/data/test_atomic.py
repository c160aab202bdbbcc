from pathlib import Path

import pytest

from crywolf.data import BadInput, atomic_path, check_target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_whole_and_alone(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "out.csv.gz") as temporary:
        assert temporary.parent == tmp_path / "new"
        assert temporary.suffixes[-2:] == [".csv", ".gz"]
        temporary.write_text("done")
        assert not (tmp_path / "new" / "out.csv.gz").exists()
    assert (tmp_path / "new" / "out.csv.gz").read_text() == "done"
    assert names(tmp_path / "new") == ["out.csv.gz"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_the_work_fails(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "out") as temporary:  # noqa: PT012 - the block is what fails
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == []


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "out", force=True) as temporary:  # noqa: PT012 - the block is what fails
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["out"]


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(BadInput, match=r"exists already.*--force"), atomic_path(tmp_path / "out") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "out").read_text() == "old"
    with atomic_path(tmp_path / "out", force=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "out").read_text() == "new"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="appeared"), atomic_path(tmp_path / "out") as temporary:  # noqa: PT012 - the block is what fails
        temporary.write_text("mine")
        (tmp_path / "out").write_text("theirs")
    assert (tmp_path / "out").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder"):
        check_target(tmp_path, force=True)


def test_a_path_below_a_file_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="not a folder"):
        check_target(tmp_path / "file" / "sub" / "out")


def test_a_path_that_no_file_can_have_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        check_target(tmp_path / ("x" * 300))


def test_writing_nothing_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"), atomic_path(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "stem", ["a" * 194, "a" * 249, "é" * 124], ids=["200 characters", "255 bytes", "two bytes each"]
)
def test_a_long_name_gets_a_random_temporary_one_with_its_suffix(tmp_path: Path, stem: str) -> None:
    target, seen = tmp_path / f"{stem}.jsonl", set()
    for _ in range(2):
        with atomic_path(target, force=True) as temporary:
            temporary.write_text("done")
            seen.add(temporary.name)
    assert len(seen) == 2
    assert all(name.startswith(".tmp-") and name.endswith(f"{stem[:1]}.jsonl") for name in seen)
    assert names(tmp_path) == [target.name]
