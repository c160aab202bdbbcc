"""The house keeps its order: imports run one way, nothing shadows or is shadowed."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ["data", "augment", "mining", "train", "export", "feedback", "pipeline"]
HEAVY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "faiss",
    "nlpaug",
    "onnxruntime",
    "matplotlib",
    "sklearn",
    "cleanlab",
    "py3langid",
    "pandas",
    "openai",
}

# A torch module or a Trainer cannot be defined without torch; these are imported inside functions only.
HEAVY_MODULES = {"train/learn/network.py", "train/learn/trainer.py"}


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports absolutely; `crywolf` itself is the face, pipeline."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "crywolf":
                found.add(parts[1] if len(parts) > 1 and parts[1] in ROOMS else "pipeline")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_one_way(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py"))
    assert modules
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for module in modules:
        assert imported_rooms(module) <= allowed, f"{module.relative_to(ROOT)} imports a higher room"


@pytest.mark.parametrize("room", ROOMS)
def test_no_relative_import_leaves_its_room(room: str) -> None:
    for module in sorted((ROOT / room).rglob("*.py")):
        depth = len(module.relative_to(ROOT / room).parts)
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, f"{module.relative_to(ROOT)}:{node.lineno} climbs out of its room"


@pytest.mark.parametrize("room", ROOMS)
def test_heavy_packages_are_imported_late(room: str) -> None:
    for module in sorted((ROOT / room).rglob("*.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            heavy = {name.split(".")[0] for name in names} & HEAVY
            here = module.relative_to(ROOT).as_posix()
            assert not heavy or here in HEAVY_MODULES, f"{here} imports {heavy} at its top"


def test_no_top_level_folder_shadows_the_package() -> None:
    assert not (ROOT / "crywolf").exists()


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)


IMPORT_ALL = "import crywolf, " + ", ".join(f"crywolf.{room}" for room in ROOMS[:-1])


def test_imports_beside_a_strangers_train_and_data(tmp_path: Path) -> None:
    for name in ("train.py", "data.py", "export.py"):
        (tmp_path / name).write_text("raise RuntimeError('a stranger was imported')\n")
    result = run_python(f"{IMPORT_ALL}; print(crywolf.train.__name__)", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "crywolf.train"


def test_imports_from_the_repository_root() -> None:
    result = run_python(f"{IMPORT_ALL}; print(crywolf.data.__name__)", ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "crywolf.data"


def test_importing_the_face_and_rooms_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"{IMPORT_ALL}; import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = run_python(code, tmp_path)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_the_installed_names_are_crywolf_alone(tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m; "
        "print(sorted(p for p, d in m.packages_distributions().items() if 'crywolf' in d))"
    )
    result = run_python(code, tmp_path)
    names = ast.literal_eval(result.stdout)
    assert [n for n in names if not n.startswith("__editable__")] in (["crywolf"], []), names
