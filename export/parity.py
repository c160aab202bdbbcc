"""How far the quantized model is from the torch model it came from, measured as the Detector runs: one prompt a time.

Takes both models and a labelled frame, gives the differences in probability, the decisions that changed, and the
accuracy lost, each with its n.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from crywolf.data import Progress

from .detector import Detector, platt


@dataclass(frozen=True)
class Parity:
    """Torch against INT8 on the same prompts.

    Attributes:
        n: prompts compared.
        max_difference: largest absolute difference of the calibrated probabilities.
        mean_difference: mean absolute difference.
        changed: decisions that differ at the same threshold.
        accuracy_torch: share of right decisions of the torch model.
        accuracy_int8: share of right decisions of the quantized model.
        auroc_torch: ranking quality of the torch model, None where one class is missing.
        auroc_int8: ranking quality of the quantized model.
    """

    n: int
    max_difference: float
    mean_difference: float
    changed: int
    accuracy_torch: float
    accuracy_int8: float
    auroc_torch: float | None
    auroc_int8: float | None

    @property
    def accuracy_lost(self) -> float:
        """Accuracy lost by quantizing, as a share; negative where INT8 did better."""
        return self.accuracy_torch - self.accuracy_int8

    @property
    def passed(self) -> bool:
        """Whether less than 1% of accuracy was lost."""
        return self.accuracy_lost < 0.01

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return {**asdict(self), "accuracy_lost": self.accuracy_lost, "passed": self.passed}


def measure(module: Any, detector: Detector, frame: pl.DataFrame, *, progress: Progress | None = None) -> Parity:
    """Compare the torch `module` with the packaged `detector` on the rows of `frame` (columns text, label)."""
    texts = frame["text"].to_list()
    malicious = (frame["label"].cast(pl.String) == "MALICIOUS").to_numpy()
    torch_scores = torch_alone(module, detector, texts, progress=progress)
    int8_scores = detector.score(texts)
    difference = np.abs(torch_scores - int8_scores)
    torch_flags, int8_flags = torch_scores >= detector.threshold, int8_scores >= detector.threshold
    return Parity(
        n=len(texts),
        max_difference=float(difference.max(initial=0.0)),
        mean_difference=float(difference.mean()) if len(texts) else 0.0,
        changed=int((torch_flags != int8_flags).sum()),
        accuracy_torch=float((torch_flags == malicious).mean()) if len(texts) else 1.0,
        accuracy_int8=float((int8_flags == malicious).mean()) if len(texts) else 1.0,
        auroc_torch=_auroc(malicious, torch_scores),
        auroc_int8=_auroc(malicious, int8_scores),
    )


def torch_alone(
    module: Any, detector: Detector, texts: Sequence[str], *, progress: Progress | None = None
) -> NDArray[np.float64]:
    """Score each text with the torch module alone and unpadded, tokenized and calibrated as `detector` does."""
    import torch

    module = module.eval().float()
    scores = np.empty(len(texts), dtype=np.float64)
    with torch.inference_mode():
        # One prompt a time is the point here: it is how the Detector runs.
        for i, text in enumerate(texts):
            encoding = detector.encode(text)
            ids, mask = torch.tensor([encoding.ids]), torch.tensor([encoding.attention_mask])
            logits = module(ids, mask)[0][0]
            scores[i] = platt(float(logits[1] - logits[0]), detector.info.scale, detector.info.bias)
            if progress and (i % 50 == 49 or i + 1 == len(texts)):
                progress(i + 1, len(texts))
    return scores


def _auroc(malicious: NDArray[np.bool_], scores: NDArray[np.float64]) -> float | None:
    from sklearn.metrics import roc_auc_score

    if malicious.all() or not malicious.any():
        return None
    return float(roc_auc_score(malicious, scores))
