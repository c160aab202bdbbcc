"""`crywolf export`: a trained model folder becomes a package, quantized and compared with its origin.

Takes a model folder of crywolf.train and a test frame, writes the package beside its final name and renames it, so
that a package is there whole or not at all. Gives sizes and parity.
"""

import importlib.metadata
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from crywolf.data import BadInput, CorruptPackage, Progress

from . import package
from .detector import Detector
from .onnx import quantize, write_onnx
from .parity import Parity, measure
from .rules import RuleSet, load_rules

SOURCE = "crywolf.json"
"""The settings of a model folder, from which those of the package come."""


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        path: the package.
        bytes_fp32: size of the float32 ONNX model.
        bytes_int8: size of the quantized one, which the package holds.
        parity: torch against INT8, None where no rows to compare on were given.
        rules: how many rules the package carries.
    """

    path: Path
    bytes_fp32: int
    bytes_int8: int
    parity: Parity | None
    rules: int = 0

    @property
    def ratio(self) -> float:
        """How many times smaller the quantized model is."""
        return self.bytes_fp32 / self.bytes_int8

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON."""
        return {
            "path": str(self.path),
            "bytes_fp32": self.bytes_fp32,
            "bytes_int8": self.bytes_int8,
            "ratio": self.ratio,
            "rules": self.rules,
            "parity": self.parity.to_dict() if self.parity else None,
        }


def export_package(
    model_dir: Path | str,
    out: Path | str,
    *,
    parity: pl.DataFrame | None = None,
    version: str | None = None,
    card: dict[str, Any] | None = None,
    rules: Path | str | None = None,
    decode: bool = True,
    force: bool = False,
    progress: Progress | None = None,
) -> ExportResult:
    """Export a trained model to a package.

    Args:
        model_dir: folder written by `crywolf.train.learn.fit`.
        out: the package's folder; made here, replaced only with `force`.
        parity: labelled rows (best: the test split) on which INT8 is compared with torch.
        version: name of the model; by default "crywolf-" and the first 12 digits of the weights' hash.
        card: further facts for the model card, section title -> text (blank lines part paragraphs) or table rows (a
            sequence of rows of cells, or a mapping of names to values). Both are plain: Markdown in them is escaped.
        rules: a rule file, or "embedded", that the package carries and its Detector applies; none by default.
        decode: what the package's Detector does with text in code unless it is told otherwise: judge it too, or not.
        force: replace an existing package; a folder that holds something else is never replaced.
        progress: called with (done, total) while parity is measured.

    Raises:
        BadInput: `out` exists and `force` is not set, or it is no package; the rule file is not one.
        CorruptPackage: the model folder fails its own hash check, or its calibration or operating points are not a
            detector's.
    """
    from crywolf.train.learn.model import TrainedModel

    model_dir, out = Path(model_dir), Path(out)
    check_place(out, force=force)
    layer = None if rules is None else load_rules(rules)
    trained = TrainedModel.load(model_dir)
    info = replace(_info(model_dir, version), decode=decode)
    info.check(model_dir / SOURCE)
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        fp32 = write_onnx(trained.network, work / "model.fp32.onnx")
        int8 = quantize(fp32, work / package.MODEL)
        sizes = fp32.stat().st_size, int8.stat().st_size
        fp32.unlink()
        shutil.copyfile(model_dir / package.TOKENIZER, work / package.TOKENIZER)
        info = replace(info, metadata={**info.metadata, "bytes_fp32": sizes[0], "bytes_int8": sizes[1]})
        package.write_settings(work, info)
        package.write_manifest(work)
        compared = None
        if parity is not None:
            # The rules come after, and nothing is decoded: what is compared is the model.
            compared = measure(trained.network, Detector.load(work, decode=False), parity, progress=progress)
            info = replace(info, metadata={**info.metadata, "parity": compared.to_dict()})
            package.write_settings(work, info)
        if layer is not None:
            shutil.copyfile(layer.source, work / package.RULES)
        _write_card(work, info, card or {}, layer)
        package.write_manifest(work)
        _swap_in(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return ExportResult(out, *sizes, compared, 0 if layer is None else len(layer.rules))


def check_place(out: Path, *, force: bool) -> None:
    """Say before any work starts whether a package may be written to `out`.

    Raises:
        BadInput: `out` exists and `force` is not set, or it is neither an empty folder nor a package.
    """
    if not out.exists():
        return
    if not force:
        raise BadInput(f"{out}: already there; give --force to replace it")
    if not out.is_dir() or (any(out.iterdir()) and not package.is_package(out)):
        raise BadInput(f"{out}: holds something else than a package; remove it yourself or choose another folder")


def _info(model_dir: Path, version: str | None) -> package.PackageInfo:
    """Settings of the package, from the model folder's crywolf.json."""
    where = model_dir / SOURCE
    raw = json.loads(where.read_text(encoding="utf-8"))
    weights = package.sha256(model_dir / "model.safetensors")
    names = ("crywolf", "torch", "transformers", "onnx", "onnxruntime")
    metadata = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": weights,
        "recipe": raw.get("recipe"),
        "encoder": raw.get("encoder"),
        "versions": {name: importlib.metadata.version(name) for name in names},
    }
    points = package.check_points(raw.get("operating_points"), where)
    if points:
        metadata["operating_points"] = points
    try:
        return package.PackageInfo(
            version=version or f"crywolf-{weights[:12]}",
            labels=tuple(raw["labels"]),
            threat_types=tuple(raw["threat_types"]),
            scale=float(raw["calibration"]["scale"]),
            bias=float(raw["calibration"]["bias"]),
            thresholds={"default": float(raw["threshold"])}
            | {name: float(point["threshold"]) for name, point in points.items()},
            max_length=int(raw["max_length"]),
            threat_head_trained=bool(raw.get("threat_head_trained", True)),
            metadata=metadata,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptPackage(f"{where}: {error!r}; train or calibrate the model again") from error


def _write_card(
    folder: Path, info: package.PackageInfo, sections: dict[str, Any], layer: RuleSet | None = None
) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Markdown, not HTML: autoescape would not know its marks, so the template passes what users gave through `plain`.
    environment = Environment(  # noqa: S701
        loader=PackageLoader("crywolf.export", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"plain": _plain, "paragraphs": _paragraphs, "cells": _cells}
    text = environment.get_template("model_card.md.j2").render(
        info=info, sections=sections, points=_points(info), rules=layer.rules if layer else ()
    )
    (folder / package.CARD).write_text(text, encoding="utf-8")


def _points(info: package.PackageInfo) -> list[list[str]]:
    """The rows of the card's table of operating points."""
    from crywolf.train.learn.operating import OperatingPoint

    found = [OperatingPoint.from_dict(*item) for item in (info.metadata.get("operating_points") or {}).items()]
    return [
        [point.name, f"{point.threshold:.6f}", point.target, point.fp.text, point.recall.text, "; ".join(point.notes)]
        for point in found
    ]


def _plain(value: Any) -> str:
    """One line of Markdown that reads as the value does: no line breaks, table cells, code or HTML come of it."""
    line = " ".join(str(value).split())
    for mark in ("\\", "|", "`"):
        line = line.replace(mark, "\\" + mark)
    return line.replace("<", "&lt;")


def _paragraphs(text: str) -> str:
    return "\n\n".join(_plain(part) for part in re.split(r"\n\s*\n", text.strip()))


def _cells(rows: Any) -> list[list[str]]:
    """Table rows as equally many escaped cells each."""
    given = [list(row) for row in (rows.items() if isinstance(rows, Mapping) else rows)]
    width = max((len(row) for row in given), default=0)
    return [[_plain(cell) for cell in row] + [""] * (width - len(row)) for row in given]


def _swap_in(work: Path, out: Path) -> None:
    """Rename the finished folder to its place; an old package steps aside first, so there is never a half one."""
    work.chmod(0o755)
    if not out.exists():
        work.rename(out)
        return
    aside = work.with_name(work.name + ".old")
    out.rename(aside)
    work.rename(out)
    shutil.rmtree(aside)
