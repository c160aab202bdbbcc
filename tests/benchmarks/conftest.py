"""Puts benchmarks/augment on the path, as `python benchmarks/augment` does: its modules are no package."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks" / "augment"
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))
