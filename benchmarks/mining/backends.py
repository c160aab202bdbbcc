"""The encoders that benchmarks/mining compares: each a callable, texts to unit vectors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

BACKENDS = {
    "SentenceTransformer.encode, fp32": {"backend": "library", "precision": "fp32"},
    "SentenceTransformer.encode, bf16": {"backend": "library", "precision": "bf16"},
    "ours, fp32": {"backend": "ours", "precision": "fp32"},
    "ours, bf16": {"backend": "ours", "precision": "bf16"},
    "ours, bf16, 1 thread": {"backend": "ours", "precision": "bf16", "threads": 1},
    "ours, bf16, 2 processes": {"backend": "processes", "precision": "bf16"},
    "ONNX Runtime, fp32, sorted": {"backend": "onnx", "precision": "fp32"},
    "ONNX Runtime, dynamic INT8, sorted": {"backend": "onnx", "precision": "int8"},
}


def encoder_of(task: dict[str, Any], folder: Path) -> Callable[[list[str]], np.ndarray]:
    """The backend of a task as texts -> unit vectors."""
    if task["backend"] == "library":
        return plain_library(task["precision"])
    if task["backend"] == "onnx":
        return with_onnx(folder, task["precision"])
    if task["backend"] == "processes":
        pool = ProcessPoolExecutor(2, initializer=start_worker, initargs=(task["precision"],))
        return lambda texts: np.concatenate(list(pool.map(work, halves(texts))))[
            np.argsort(np.concatenate(places(texts)))
        ]
    from crywolf.mining import Embedder

    return Embedder(precision=task["precision"], threads=task.get("threads"))


def plain_library(precision: str) -> Callable[[list[str]], np.ndarray]:
    """`SentenceTransformer.encode` as its manual has it."""
    import torch
    from sentence_transformers import SentenceTransformer

    from crywolf.mining import default_encoder

    model: Any = SentenceTransformer(str(default_encoder()), device="cpu")
    model.max_seq_length = 128
    if precision == "bf16":
        model = model.to(torch.bfloat16)

    def encode(texts: list[str]) -> np.ndarray:
        found = model.encode(texts, convert_to_tensor=True, show_progress_bar=False).float().numpy()
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)

    return encode


_WORKER: list[Any] = []


def start_worker(precision: Any) -> None:
    import torch

    from crywolf.mining import Embedder

    torch.set_num_threads(1)
    _WORKER.append(Embedder(precision=precision, threads=1))


def work(texts: list[str]) -> np.ndarray:
    return np.asarray(_WORKER[0](texts))


def places(texts: Sequence[str]) -> list[np.ndarray]:
    order = np.argsort([len(text) for text in texts], kind="stable")
    return [order[0::2], order[1::2]]


def halves(texts: Sequence[str]) -> list[list[str]]:
    return [[texts[place] for place in half] for half in places(texts)]


def with_onnx(folder: Path, precision: str) -> Callable[[list[str]], np.ndarray]:
    """The same encoder in ONNX Runtime: sorted batches, all graph optimizations, mean and norm in numpy."""
    import onnxruntime as ort
    from tokenizers import Tokenizer

    from crywolf.mining import default_encoder

    files = {"fp32": folder / "encoder.onnx", "int8": folder / "encoder.int8.onnx"}
    write_onnx(files["fp32"], files["int8"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = ort.InferenceSession(str(files[precision]), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(default_encoder() / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.no_padding()

    def encode(texts: list[str]) -> np.ndarray:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        lengths = np.array([len(row) for row in ids])
        order, start = np.argsort(-lengths, kind="stable"), 0
        out = np.empty((len(texts), 384), dtype=np.float32)
        while start < len(order):
            width = int(lengths[order[start]])
            rows = order[start : start + max(2048 // width, 1)]
            mask = (np.arange(width) < lengths[rows][:, None]).astype(np.int64)
            tokens = np.zeros_like(mask)
            tokens[mask > 0] = np.concatenate([ids[row] for row in rows])
            (hidden,) = session.run(None, {"input_ids": tokens, "attention_mask": mask})
            mean = (hidden * mask[:, :, None]).sum(axis=1)
            out[rows] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            start += len(rows)
        return out

    return encode


def write_onnx(plain: Path, quantized: Path) -> None:
    """The default encoder as ONNX, in full precision with attention and norms fused, and with INT8 matrix products."""
    if quantized.is_file():
        return
    import contextlib
    import io
    import logging

    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    from crywolf.mining import default_encoder

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(default_encoder(), attn_implementation="eager")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    logging.disable(logging.WARNING)
    ids = torch.ones((2, 7), dtype=torch.int64)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("tokens", max=512)}
    raw = plain.with_suffix(".raw.onnx")
    with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        torch.onnx.export(
            Hidden().eval(),
            (ids, torch.ones_like(ids)),
            str(raw),
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            opset_version=18,
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
            dynamo=True,
            external_data=False,
        )
        fused = optimize_model(str(raw), model_type="bert", num_heads=12, hidden_size=384, opt_level=1)
        fused.save_model_to_file(str(plain))
        quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8, per_channel=True)
