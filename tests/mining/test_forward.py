"""Our own forward pass gives sentence-transformers' vectors, and only takes encoders that it can run right."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crywolf.mining import Embedder, default_encoder
from crywolf.mining.forward import BertForward, plan_of

TEXTS = ["hi", "", "How do I kill a process that ignores SIGTERM?", "请把这段话翻译成英文。", "word " * 300] + [
    f"{'a longer text about nothing ' * (n % 7)}{n}" for n in range(60)
]


def vectors(model: BertForward, texts: list[str]) -> np.ndarray:
    out = np.full((len(texts), 384), np.nan, dtype=np.float32)
    for rows, part in model.run(texts):
        out[rows] = part
    return out


def opened(**options: Any) -> BertForward:
    plan = plan_of(default_encoder())
    assert plan is not None
    return BertForward(plan, **{"max_length": 128, "batch_tokens": 512, "precision": "fp32", **options})


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model: Any = SentenceTransformer(str(default_encoder()), device="cpu")
    model.max_seq_length = 128
    return np.asarray(model.encode(TEXTS, normalize_embeddings=True))


@pytest.mark.parametrize("threads", [1, 3])
def test_vectors_are_those_of_sentence_transformers(reference: np.ndarray, threads: int) -> None:
    np.testing.assert_allclose(vectors(opened(threads=threads), TEXTS), reference, atol=2e-5)


def test_half_precision_is_near_and_does_not_hang_on_the_batch(reference: np.ndarray) -> None:
    half = opened(precision="bf16")
    together = vectors(half, TEXTS)
    assert (together * reference).sum(axis=1).min() > 0.999
    alone = np.concatenate([vectors(half, [text]) for text in TEXTS[:12]])
    assert (alone * together[:12]).sum(axis=1).min() > 0.9999


def test_threads_of_its_own_leave_torch_s_as_they_were() -> None:
    import torch

    before, running = torch.get_num_threads(), threading.active_count()
    vectors(opened(threads=3), TEXTS)
    assert torch.get_num_threads() == before
    assert threading.active_count() == running
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [before]


def copied(tmp_path: Path) -> Path:
    """The default encoder's folder with its weights linked, to change its settings."""
    folder = tmp_path / "encoder"
    shutil.copytree(default_encoder(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").symlink_to(default_encoder() / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"model_type": "roberta"}),
        ("config.json", {"position_embedding_type": "relative_key"}),
        ("config.json", {"num_hidden_layers": 12}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("sentence_bert_config.json", {"do_lower_case": True}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
    ],
)
def test_an_encoder_of_another_kind_is_left_to_its_library(tmp_path: Path, file: str, change: dict[str, Any]) -> None:
    folder = copied(tmp_path)
    assert plan_of(folder) is not None
    settings = json.loads((folder / file).read_text()) | change
    (folder / file).write_text(json.dumps(settings))
    assert plan_of(folder) is None


def test_a_dense_layer_on_top_or_broken_settings_are_left_to_the_library(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    assert plan_of(folder) is None
    (folder / "modules.json").write_text("{")
    assert plan_of(folder) is None


def test_the_library_gives_the_same_and_keeps_a_cache_of_its_own(tmp_path: Path, reference: np.ndarray) -> None:
    folder = copied(tmp_path)
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256, "do_lower_case": True}))
    assert pooling["pooling_mode_mean_tokens"]
    other = Embedder(folder, precision="fp32", cache_dir=tmp_path / "cache")
    assert other.backend == "library"
    np.testing.assert_allclose(other(TEXTS[:8]), reference[:8], atol=2e-5)
    assert other.key != Embedder(precision="fp32").key
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [other.key]
