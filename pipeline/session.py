"""One run: its configuration, its folder, what it says to people, and the encoder that guards and mining share.

Takes a `Config` and a `Console`; the stages take a `Session` and hand it on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crywolf.mining import Embedder
from crywolf.train import Recipe, find_recipe

from .config import Config
from .console import Console
from .origin import Origin
from .reading import Reader
from .workspace import Workspace

_NOT_THE_RECIPE_S = (
    *("recipe", "encoder", "teachers", "grown_weight", "hard_weight", "grown_budget", "hold_recall", "replay"),
)


@dataclass
class Session:
    """One run: configuration and where it came from, workspace, console, the encoder that guards and mining share."""

    config: Config
    console: Console
    cache: Path
    force: bool = False
    origin: Origin | None = None

    @property
    def workspace(self) -> Workspace:
        """The run's folder."""
        return Workspace(self.config.out, self.force)

    @cached_property
    def reader(self) -> Reader:
        """Reads the configured files and says which rows it left out."""
        return Reader(self.console, self.config.data.max_rejected)

    @cached_property
    def embedder(self) -> Embedder:
        """The sentence encoder of guards and mining, its vectors cached on disk."""
        return Embedder(cache_dir=self.cache)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts to unit vectors, (n, d), with a progress bar."""
        with self.console.progress(f"embedding {len(texts):,} texts") as progress:
            return self.embedder(texts, progress=progress)

    def rng(self, stage: str) -> np.random.Generator:
        """Return a stage's own generator: what another stage draws does not move it."""
        return np.random.default_rng([self.config.seed, *stage.encode()])

    @property
    def recipe(self) -> Recipe:
        """The configured recipe with the configuration's changes."""
        section = self.config.train.model_dump(exclude_none=True)
        for key in _NOT_THE_RECIPE_S:
            section.pop(key, None)
        return Recipe.from_mapping(section, base=find_recipe(self.config.train.recipe))
