"""Any other sentence encoder, run by sentence-transformers itself; slower, and right for every architecture it knows.

Takes an encoder folder and texts, gives (positions, vectors) batch by batch, like `forward.BertForward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .forward import Batch, Exact

_CHARS_PER_TOKEN = 3  # a low guess, for sizing batches


class SentenceForward:
    """The encoder in memory; the arguments are those of `BertForward`, but that threads are set for the process."""

    def __init__(
        self,
        folder: Path,
        *,
        max_length: int,
        batch_tokens: int,
        precision: Exact,
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        if threads is not None:
            torch.set_num_threads(threads)
        with _quiet():
            model: Any = SentenceTransformer(
                str(folder), device=device, local_files_only=True, model_kwargs={"use_safetensors": True}
            )
        model.max_seq_length = max_length
        model = model.eval()
        self._model = model.to(torch.bfloat16) if precision == "bf16" else model
        self._max_length, self._batch_tokens = max_length, batch_tokens

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._model.get_embedding_dimension())

    def run(self, texts: Sequence[str]) -> Iterator[Batch]:
        """Yield (positions, unit vectors) batch by batch, texts of like length together."""
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            tokens = min(int(lengths[order[start]]) // _CHARS_PER_TOKEN + 2, self._max_length)
            rows = order[start : start + max(self._batch_tokens // tokens, 1)]
            part = [texts[row] for row in rows]
            found = self._model.encode(part, batch_size=len(part), show_progress_bar=False, convert_to_tensor=True)
            vectors = found.float().cpu().numpy()
            # Normalized here and in float32, whatever the model's own last layer and precision do.
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            yield rows, np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
            start += len(rows)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the weight-loading bars: a library says nothing on its own."""
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it so
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # likewise
