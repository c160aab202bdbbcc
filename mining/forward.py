"""A BERT sentence encoder run without its library: mean pooling, unit length, no padding to speak of, a core a batch.

Takes an encoder folder of the one architecture that most small sentence encoders have, and texts; gives (positions,
vectors) batch by batch. What it costs is matrix products, not bookkeeping: one tokenizer call for many texts, batches
of like token counts, and a thread a core, each with a batch of its own, so that no core waits for another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .memory import give_back

Exact = Literal["fp32", "bf16"]
Batch = tuple[NDArray[np.int64], NDArray[np.float32]]

_EMBEDDINGS = tuple(f"embeddings.{name}_embeddings.weight" for name in ("word", "position", "token_type"))
_TIDY_EVERY = 16  # batches
_MEAN_ONLY = "pooling_mode_mean_tokens"


@dataclass(frozen=True)
class Plan:
    """An encoder that this module can run: its folder, weights file and the sizes that matter."""

    folder: Path
    weights: Path
    layers: int
    heads: int
    width: int
    positions: int
    epsilon: float


def plan_of(folder: Path) -> Plan | None:
    """Return how to run the encoder, or None if it is of another kind; then its own library has to."""
    weights = sorted(folder.glob("*.safetensors"))
    try:
        config = _json(folder / "config.json")
        if len(weights) != 1 or not (folder / "tokenizer.json").is_file():
            return None
        if not (_is_plain_bert(config) and _pools_by_mean(folder) and _reads_text_as_it_is(folder)):
            return None
        plan = Plan(
            folder,
            weights[0],
            int(config["num_hidden_layers"]),
            int(config["num_attention_heads"]),
            int(config["hidden_size"]),
            int(config["max_position_embeddings"]),
            float(config.get("layer_norm_eps", 1e-12)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return plan if _has_weights(plan) else None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _is_plain_bert(config: dict[str, Any]) -> bool:
    return (
        config.get("model_type") == "bert"
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


def _pools_by_mean(folder: Path) -> bool:
    """Return whether the modules are a transformer, the mean over its tokens, and at most a normalization."""
    modules = _json(folder / "modules.json")
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or modules[0]["path"]:
        return False
    pooling = _json(folder / modules[1]["path"] / "config.json")
    modes = {name for name, on in pooling.items() if name.startswith("pooling_mode_") and on is True}
    return modes == {_MEAN_ONLY} or (not modes and pooling.get("pooling_mode") == "mean")


def _reads_text_as_it_is(folder: Path) -> bool:
    """Return whether nothing but the tokenizer touches the text: no prompt in front, no lower-casing of its own."""
    settings: dict[str, Any] = {}
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        if (folder / name).is_file():
            settings |= _json(folder / name)
    return not settings.get("default_prompt_name") and not settings.get("do_lower_case")


def _has_weights(plan: Plan) -> bool:
    from safetensors import safe_open

    with safe_open(plan.weights, "np") as file:
        names = set(file.keys())
    last = f"encoder.layer.{plan.layers - 1}.output.dense.weight"
    return {*_EMBEDDINGS, last} <= names and plan.width % plan.heads == 0


class BertForward:
    """The encoder in memory.

    Args:
        plan: Which encoder.
        max_length: Tokens read of each text.
        batch_tokens: Tokens, padding included, in one batch.
        precision: Of the matrix products; sums over the residual stream, layer norms and the mean are float32.
        threads: Batches that run at once on a processor; None takes torch's count.
        device: "cpu", "cuda", ...
    """

    def __init__(
        self,
        plan: Plan,
        *,
        max_length: int,
        batch_tokens: int,
        precision: Exact,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        import torch
        from tokenizers import Tokenizer

        self._plan = plan
        self._batch_tokens = batch_tokens
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._type = torch.bfloat16 if precision == "bf16" else torch.float32
        self._threads = 1 if self._device.type != "cpu" else (threads or torch.get_num_threads())
        self._tokenizer = Tokenizer.from_file(str(plan.folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(min(max_length, plan.positions))
        self._tokenizer.no_padding()
        self._read_weights()

    def run(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Yield (positions, unit vectors) batch by batch, texts of like token counts together."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        batches = list(self._batches(lengths))
        if self._threads < 2 or len(batches) < 2:
            for done, rows in enumerate(batches):
                yield rows, self._vectors([ids[row] for row in rows], lengths[rows])
                _tidy(done)
            return
        with _workers(self._threads) as pool:
            parts = pool.map(lambda rows: self._vectors([ids[row] for row in rows], lengths[rows]), batches)
            for done, (rows, vectors) in enumerate(zip(batches, parts, strict=True)):
                yield rows, vectors
                _tidy(done)

    def _batches(self, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield rows, the longest first, as many as fit into the tokens of a batch."""
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(self._batch_tokens // max(int(lengths[order[start]]), 1), 1)
            yield order[start : start + size]
            start += size

    def _vectors(self, ids: list[list[int]], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        width = int(lengths[0])  # the longest comes first
        tokens = np.zeros((len(ids), width), dtype=np.int64)
        tokens[np.arange(width) < lengths[:, None]] = np.concatenate([np.asarray(row, dtype=np.int64) for row in ids])
        with torch.inference_mode():
            counts = torch.from_numpy(lengths).to(self._device)
            out = self._forward(torch.from_numpy(tokens).to(self._device), counts, padded=bool(lengths[-1] != width))
            return np.asarray(out.cpu().numpy(), dtype=np.float32)

    def _forward(self, tokens: Any, lengths: Any, *, padded: bool) -> Any:
        import torch
        from torch.nn import functional

        width = tokens.shape[1]
        real = torch.arange(width, device=self._device) < lengths[:, None]
        mask = real[:, None, None, :] if padded else None
        x = self._norm(functional.embedding(tokens, self._words) + self._positions[:width], self._first_norm)
        for layer in self._layers:
            attended = functional.linear(self._attend(x.to(self._type), layer["qkv"], mask), *layer["out"])
            x = self._norm(x + attended, layer["norm"])
            inner = functional.gelu(functional.linear(x.to(self._type), *layer["up"]))
            x = self._norm(x + functional.linear(inner, *layer["down"]), layer["last"])
        mean = (x * real[:, :, None]).sum(dim=1) / lengths[:, None] if padded else x.mean(dim=1)
        return functional.normalize(mean, dim=1, eps=1e-12)

    def _attend(self, x: Any, weights: tuple[Any, Any], mask: Any) -> Any:
        from torch.nn import functional

        rows, width, _ = x.shape
        heads = functional.linear(x, *weights).view(rows, width, 3, self._plan.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended.transpose(1, 2).reshape(rows, width, -1)

    def _norm(self, x: Any, weights: tuple[Any, Any]) -> Any:
        from torch.nn import functional

        return functional.layer_norm(x, (self._plan.width,), *weights, self._plan.epsilon)

    def _read_weights(self) -> None:
        import torch
        from safetensors.torch import load_file

        found = load_file(self._plan.weights)

        def pair(name: str, kind: Any = torch.float32) -> tuple[Any, Any]:
            return tuple(found[f"{name}.{part}"].to(self._device, kind) for part in ("weight", "bias"))  # type: ignore[return-value]

        def joined(name: str) -> tuple[Any, Any]:
            parts = [pair(f"{name}.{part}", self._type) for part in ("query", "key", "value")]
            return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])

        words, positions, kinds = (found[name].to(self._device, torch.float32) for name in _EMBEDDINGS)
        self._words, self._positions = words, positions + kinds[0]
        self._first_norm = pair("embeddings.LayerNorm")
        self._layers = [
            {
                "qkv": joined(f"{name}.attention.self"),
                "out": pair(f"{name}.attention.output.dense", self._type),
                "norm": pair(f"{name}.attention.output.LayerNorm"),
                "up": pair(f"{name}.intermediate.dense", self._type),
                "down": pair(f"{name}.output.dense", self._type),
                "last": pair(f"{name}.output.LayerNorm"),
            }
            for name in (f"encoder.layer.{number}" for number in range(self._plan.layers))
        ]


def _tidy(done: int) -> None:
    if done % _TIDY_EVERY == 0:
        give_back()


def _workers(threads: int) -> ThreadPoolExecutor:
    """Return threads that each compute alone; what torch does on other threads stays as it was."""
    import torch

    before, started = torch.get_num_threads(), threading.Barrier(threads)

    def alone() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(threads, initializer=alone)
    # All of them start now: each sets torch's count for itself, and the last word on it for the process is ours.
    list(pool.map(lambda _: None, range(threads)))
    torch.set_num_threads(before)
    return pool
