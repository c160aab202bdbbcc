"""The published guard stackone-defender as a DETECTOR: `guard:score`, at its model's own threshold.

Needs `pip install stackone-defender` and onnxruntime; its model lies in the package. Texts in, scores in [0, 1] out.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.52  # `highRiskThreshold` in the model's own configuration, version 0.9.4


@lru_cache(maxsize=1)
def _model() -> Any:
    from stackone_defender.classifiers.onnx_classifier import OnnxClassifier

    return OnnxClassifier()


def score(texts: Sequence[str]) -> NDArray[np.float64]:
    """Score each text alone, as the guard's own runtime does."""
    return np.array([_model().classify(text) for text in texts], dtype=np.float64)


score.threshold = THRESHOLD  # type: ignore[attr-defined]  # where a DETECTOR that is a function says its own
