"""What benchmarks that write a JSON document and a page have in common."""

import json
import platform
from pathlib import Path
from typing import Any


def write(document: dict[str, Any], page: str, out: Path) -> None:
    """Write the JSON document and the page beside it, each whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((out, json.dumps(document, indent=1) + "\n"), (out.with_suffix(".md"), page)):
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def machine() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
