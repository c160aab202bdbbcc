import hashlib
import json
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from crywolf.data import BadInput, RunManifest, file_hash, make_corpus, write_corpus


def test_file_hash_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "f").write_bytes(content)
    assert file_hash(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_a_missing_input_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        RunManifest("augment").add_input(tmp_path / "none")


def test_the_manifest_says_what_was_read_done_and_written(tmp_path: Path) -> None:
    given = tmp_path / "fps.jsonl"
    given.write_text("{}")
    out = write_corpus(make_corpus([{"text": "a secret prompt", "label": 0}]), tmp_path / "out.jsonl")
    manifest = RunManifest("augment", {"per_fp": 15, "seed": 0, "against": [given]})
    manifest.add_input(given)
    with manifest.time("grow"):
        time.sleep(0.01)
    with pytest.raises(ValueError), manifest.time("grow"):  # noqa: PT012 - the block is what fails
        time.sleep(0.01)
        raise ValueError
    manifest.count("rows", 1)
    manifest.count("dropped", {"duplicate_within": 2})
    manifest.add_output(out)
    path = manifest.write(out)
    assert path == tmp_path / "out.jsonl.manifest.json"
    said = json.loads(path.read_text())
    assert said["command"] == "augment"
    assert said["parameters"] == {"per_fp": 15, "seed": 0, "against": [str(given)]}
    assert said["inputs"] == [{"path": str(given), "sha256": file_hash(given), "bytes": 2}]
    assert said["outputs"] == [{"path": str(out), "sha256": file_hash(out), "bytes": out.stat().st_size}]
    assert {"python", "crywolf", "polars", "torch"} <= set(said["versions"])
    assert said["counts"] == {"rows": 1, "dropped": {"duplicate_within": 2}}
    assert said["timings"]["grow"] >= 0.02
    assert datetime.fromisoformat(said["started"]) <= datetime.fromisoformat(said["finished"])
    assert "secret" not in path.read_text()


def test_a_folder_gets_a_run_manifest_and_its_files_are_hashed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_text("b")
    manifest = RunManifest("export")
    first = manifest.write(tmp_path)
    assert first == tmp_path / "run.manifest.json"
    manifest.add_output(tmp_path)
    assert [entry["path"] for entry in manifest.outputs] == [str(tmp_path / "a"), str(tmp_path / "sub" / "b")]


def test_versions_are_read_without_importing() -> None:
    code = "import sys; from crywolf.data import RunManifest; RunManifest('x').to_dict(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
