"""The callables that one room takes from another, so that imports run one way only.

A lower room that needs an encoder, a detector or a progress bar takes one of these; the pipeline wires them.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors, (n, d)."""

Score: TypeAlias = Callable[[Sequence[str]], NDArray[np.float64]]
"""Texts to P(malicious) in [0, 1], (n,)."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total) during long work."""
