"""The audit's figures: shortcuts in, inline SVG strings out, in the manner of the report's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..report.plots import AFTER, ATTACK, BENIGN, CHOSEN, MUTED, _drawing, _percent_axis, _svg
from ..report.texts import plain
from .shortcuts import Shortcut

MAX_CELLS = 12


def auc_by_trait(shortcuts: Sequence[Shortcut], line: float, *, key: str = "auc") -> str:
    """How far each trait alone tells the label: AUC with its interval, flagged traits filled.

    Args:
        shortcuts: those whose AUC could be measured.
        line: from which the interval's lower end is flagged.
        key: prefix of the element ids.
    """
    title = "How well each trait alone tells the label"
    shown = sorted(shortcuts, key=lambda shortcut: shortcut.auc.value)
    with _drawing(key, 1.3 + 0.3 * len(shown)) as (figure, (axes,)):
        for at, shortcut in enumerate(shown):
            auc = shortcut.auc
            axes.errorbar(
                auc.value,
                at,
                xerr=np.array([[auc.value - auc.low], [auc.high - auc.value]]),
                fmt="o" if shortcut.trait.kind == "text" else "D",
                color=ATTACK if shortcut.flagged else AFTER,
                mfc=ATTACK if shortcut.flagged else "none",
                markersize=5.0,
                elinewidth=1.2,
                capsize=2.2,
            )
        axes.axvline(line, color=CHOSEN, linestyle=":", linewidth=1.3)
        axes.axvline(0.5, color=MUTED, linestyle="--", linewidth=1.0)
        axes.set_yticks(range(len(shown)), [shortcut.trait.name for shortcut in shown])
        axes.set_ylim(-0.6, max(len(shown), 1) - 0.4)
        axes.set_xlim(right=1.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("AUC on clusters not seen, with 95% interval; 0.5 is chance, 1 tells the label every time")
        axes.set_title(title)
        return _svg(figure, key, title, f"Dot plot of the AUC of {len(shown)} traits; the table has the numbers.")


def cell_shares(shortcut: Shortcut, *, key: str) -> str:
    """What share of each label's rows lies in each cell of a trait: two bars that ought to be of like length.

    Args:
        shortcut: a trait with cells; the most telling are drawn.
        key: prefix of the element ids.
    """
    title = f"{shortcut.trait.name}: where the rows of each label are"
    shown = shortcut.cells.head(MAX_CELLS).reverse()
    names = [
        f"{plain(cell)[:30]}  ({benign:,} | {attacks:,})"
        for cell, benign, attacks in shown.select("cell", "benign", "malicious").iter_rows()
    ]
    y = np.arange(shown.height, dtype=np.float64)
    with _drawing(key, 1.3 + 0.36 * max(shown.height, 1)) as (figure, (axes,)):
        axes.barh(y + 0.19, shown["benign_share"].to_numpy(), height=0.36, color=BENIGN, label="of the benign rows")
        axes.barh(y - 0.19, shown["malicious_share"].to_numpy(), height=0.36, color=ATTACK, label="of the attacks")
        axes.set_yticks(y, names)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _percent_axis(axes.xaxis)
        axes.set_xlabel("share of the label's rows; behind each name its rows, benign | malicious")
        axes.set_title(title)
        axes.legend(loc="lower right")
        return _svg(figure, key, title, f"Bars for {shown.height} cells; the table has the numbers.")
