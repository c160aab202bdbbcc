"""The report's figures: frames and arrays in, inline SVG strings out.

Every function draws with matplotlib's object interface (no pyplot, no global state), in colours that readers with any
colour vision can tell apart, and gives the same bytes for the same data. Colours are CSS variables with a fallback, so
a page can switch them for dark mode; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .texts import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1f26", "#5c6672", "#dde2e8", "#fefefe"
BEFORE, AFTER, ATTACK, BENIGN, CHOSEN = "#a3701a", "#0072b2", "#d55e01", "#0072b3", "#7b3f99"
"""Okabe and Ito's palette, darkened for thin lines. Twins differ in one digit, to be separate CSS variables."""
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    BEFORE: "--before",
    AFTER: "--after",
    ATTACK: "--attack",
    BENIGN: "--benign",
    CHOSEN: "--chosen",
}
_WIDTH = 8.0  # inches; the page scales the drawing, so this sets the proportion of text to lines
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a category called "$x$" is a name, not a formula
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": True,
    "legend.facecolor": PAPER,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.6,
}
MAX_GROUPS = 16

Scores = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores and whether each row is an attack."""


@contextmanager
def _drawing(
    key: str, height: float, columns: int = 1, rows: int = 1, **grid: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with its axes, in the house style; the key keeps the element ids of two figures on one page apart."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": key}
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own matplotlibrc must not change a report
        mpl.rcParams.update(style)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **grid)
        yield figure, list(axes.flat)


def _svg(figure: Figure, key: str, title: str, description: str) -> str:
    """The figure as an SVG element that can stand in a page: no prologue, own ids, colours as variables, named."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#([^")]+)', rf"\1#{key}-\2", text)
    text = re.sub(r"font(-family)?: ([\d.]+px )?('[^']*'|[\w-]+)(, ?('[^']*'|[\w-]+))*", _font, text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(f": {colour}", f": var({variable}, {colour})")
    head, body = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    named = f'{head} role="img" aria-labelledby="{key}-t {key}-d">'
    return f'{named}<title id="{key}-t">{_escape(title)}</title><desc id="{key}-d">{_escape(description)}</desc>{body}'


def _font(match: re.Match[str]) -> str:
    """Leave the family to the page, keep the size."""
    return f"font-family: inherit; font-size: {match[2].strip()}" if match[2] else "font-family: inherit"


def _escape(text: str) -> str:
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _percent_axis(axis: Any) -> None:
    """Ticks in per cent with as many digits as they need."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def _count_axis(axis: Any) -> None:
    """Ticks of a logarithmic count axis as plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axis.set_minor_formatter(NullFormatter())


def fp_by_category(
    table: pl.DataFrame, *, key: str = "fp-category", title: str = "False-positive rate by category"
) -> str:
    """Before and after by group, each with its 95% interval.

    Args:
        table: columns group, n, and value, low, high with the endings _after and, if there was an old model, _before.
        key: prefix of the element ids.
        title: said above the figure.
    """
    paired = "value_before" in table.columns
    order = "value_before" if paired else "value_after"
    shown = table.sort(order, "group", descending=[True, False]).head(MAX_GROUPS).reverse()
    names = [f"{plain(group)[:34]}  (n = {n:,})" for group, n in shown.select("group", "n").iter_rows()]
    y = np.arange(shown.height, dtype=np.float64)
    most = max((float(shown[name].max() or 0.0) for name in shown.columns if name.startswith("high_")), default=0.0)  # type: ignore[arg-type]  # float columns
    with _drawing(key, 1.25 + 0.36 * max(shown.height, 1)) as (figure, (axes,)):
        if paired:
            values = shown.select("value_before", "value_after").to_numpy()
            axes.hlines(y, values.min(axis=1), values.max(axis=1), color=GRID, linewidth=4.0, zorder=1)
            _dots(axes, shown, "_before", y + 0.13, BEFORE, "D", "before")
        _dots(axes, shown, "_after", y - (0.13 if paired else 0.0), AFTER, "o", "after" if paired else "measured")
        axes.set_yticks(y, names)
        axes.set_ylim(-0.6, max(shown.height, 1) - 0.4)
        axes.set_xlim(left=-0.012 * most if most else -0.01)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("FP rate, % of benign prompts, with 95% interval")
        _percent_axis(axes.xaxis)
        axes.set_title(title)
        if paired:
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderpad=0.1)
        return _svg(
            figure, key, title, f"Dot plot of the FP rate of {shown.height} groups; the table below has the numbers."
        )


def _dots(
    axes: Axes, table: pl.DataFrame, ending: str, y: NDArray[np.float64], colour: str, mark: str, name: str
) -> None:
    value, low, high = (table[f"{part}{ending}"].to_numpy() for part in ("value", "low", "high"))
    whiskers = np.clip(np.stack([value - low, high - value]), 0.0, None)
    axes.errorbar(
        value, y, xerr=whiskers, fmt=mark, color=colour, markersize=4.6, elinewidth=1.2, capsize=2.2, label=name
    )


def score_distributions(panels: Mapping[str, tuple[Scores, float]], *, key: str = "scores") -> str:
    """How the scores of benign prompts and attacks spread, a panel for each detector, on a logarithmic count axis.

    Args:
        panels: by the detector's name, its (scores, malicious) and its threshold.
        key: prefix of the element ids.
    """
    edges = np.linspace(0.0, 1.0, 41)
    title = "Distribution of scores"
    tallest = 1
    with _drawing(key, 2.9, columns=len(panels), sharey=True) as (figure, all_axes):
        for axes, (name, ((scores, malicious), threshold)) in zip(all_axes, panels.items(), strict=True):
            for mask, colour, style, label in (
                (~malicious, BENIGN, "-", "benign"),
                (malicious, ATTACK, (0, (4, 1.4)), "attacks"),
            ):
                counts, _ = np.histogram(scores[mask], bins=edges)
                axes.stairs(
                    counts,
                    edges,
                    color=colour,
                    linestyle=style,
                    linewidth=1.5,
                    label=f"{label} (n = {int(mask.sum()):,})",
                )
                axes.stairs(counts, edges, color=colour, alpha=0.12, fill=True)
            axes.axvline(threshold, color=CHOSEN, linestyle=":", linewidth=1.4, label=f"threshold {threshold:.3g}")
            axes.set_yscale("symlog", linthresh=1.0)
            _count_axis(axes.yaxis)
            tallest = max(
                tallest, *(int(np.histogram(scores[mask], bins=edges)[0].max()) for mask in (malicious, ~malicious))
            )
            axes.set_ylim(0.0, 3.0 * tallest)
            axes.set_xlim(0.0, 1.0)
            axes.set_xlabel("score, P(malicious)")
            axes.set_title(f"{title}: {plain(name)}" if len(panels) == 1 else plain(name))
            axes.legend(loc="upper right", fontsize=8.0)
        all_axes[0].set_ylabel("prompts (log scale)")
        return _svg(
            figure, key, title, f"Histograms of scores, benign and attacks apart, for {', '.join(map(plain, panels))}."
        )


def threshold_curve(
    curve: pl.DataFrame, chosen: float, *, key: str = "threshold", fp_target: float | None = 0.01
) -> str:
    """FP rate (log scale) and recall against the threshold, the chosen threshold marked.

    Args:
        curve: what `metrics.threshold_curve` gives.
        chosen: the threshold in use.
        key: prefix of the element ids.
        fp_target: an FP rate to draw a line at; None for none.
    """
    title = "FP rate and recall by threshold"
    with _drawing(key, 4.2, rows=2, sharex=True) as (figure, (above, below)):
        parts = (
            (above, "recall", "recall", BENIGN, "recall, % of attacks"),
            (below, "fp_rate", "fp", ATTACK, "FP rate, % of benign (log)"),
        )
        for axes, rate, prefix, colour, label in parts:
            known = curve.filter(pl.col(rate).is_not_null())
            x = known["threshold"].to_numpy()
            low, high = known[f"{prefix}_low"].to_numpy(), known[f"{prefix}_high"].to_numpy()
            # A log axis has no place for zero: the band is let run out below the axis instead of folding over.
            axes.fill_between(x, np.maximum(low, 1e-9), high, color=colour, alpha=0.16, linewidth=0)
            shares = known[rate].to_numpy()
            axes.plot(x, np.where(shares > 0.0, shares, np.nan) if rate == "fp_rate" else shares, color=colour)
            axes.axvline(chosen, color=CHOSEN, linestyle=":", linewidth=1.4)
            axes.set_ylabel(label)
        _percent_axis(above.yaxis)
        _log_percent(below, curve)
        if fp_target is not None:
            below.axhline(fp_target, color=MUTED, linestyle="--", linewidth=1.0)
            below.annotate(
                f"{100 * fp_target:g}%",
                (1.0, fp_target),
                xytext=(-2, 2),
                textcoords="offset points",
                color=MUTED,
                fontsize=8.0,
                ha="right",
            )
        side, shift = ("left", 4) if chosen < 0.75 else ("right", -4)
        above.annotate(
            f"threshold {chosen:.3g}",
            (chosen, 0.02),
            xytext=(shift, 0),
            textcoords="offset points",
            color=CHOSEN,
            ha=side,
            xycoords=("data", "axes fraction"),
            va="bottom",
        )
        below.set_xlabel("threshold: scores at or above it are flagged")
        below.set_xlim(0.0, 1.0)
        above.set_title(f"{title}, bands are 95% intervals")
        return _svg(figure, key, title, f"Two curves over the threshold; the chosen threshold is {chosen:.3g}.")


def _log_percent(axes: Axes, curve: pl.DataFrame) -> None:
    """A log axis in per cent that reaches down to one prompt of all, so that an FP rate of zero falls off its end."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = max(int(curve["benign"].max() or 0), 1)  # type: ignore[arg-type]  # an integer column
    axes.set_yscale("log", nonpositive="clip")
    axes.set_ylim(min(0.5 / rows, 0.05), 1.2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.6g}%"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def reliability_diagram(tables: Mapping[str, pl.DataFrame], *, key: str = "reliability") -> str:
    """Share of attacks against mean score in bins with 95% intervals, the counts of the bins below.

    Args:
        tables: by the detector's name (one or two), what `metrics.reliability` gives.
        key: prefix of the element ids.
    """
    title = "Reliability: does a score of 0.7 mean 70% attacks?"
    looks = ((AFTER, "o"), (BEFORE, "D")) if len(tables) == 1 else ((BEFORE, "D"), (AFTER, "o"))
    with _drawing(key, 4.6, rows=2, sharex=True, height_ratios=[2.6, 1.0]) as (figure, (above, below)):
        above.plot([0.0, 1.0], [0.0, 1.0], color=MUTED, linestyle="--", linewidth=1.0, label="perfect")
        for at, ((name, table), (colour, mark)) in enumerate(zip(tables.items(), looks, strict=False)):
            x, rate = table["mean_score"].to_numpy(), table["rate"].to_numpy()
            whiskers = np.clip(np.stack([rate - table["low"].to_numpy(), table["high"].to_numpy() - rate]), 0.0, None)
            above.errorbar(
                x,
                rate,
                yerr=whiskers,
                fmt=f"{mark}-",
                color=colour,
                markersize=4.6,
                elinewidth=1.1,
                capsize=2.2,
                linewidth=1.1,
                label=plain(name),
            )
            width = table["bin_high"].to_numpy() - table["bin_low"].to_numpy()
            share = 0.86 / len(tables)
            left = table["bin_low"].to_numpy() + width * (0.07 + share * at)
            below.bar(left, table["n"].to_numpy(), width=width * share, align="edge", color=colour, alpha=0.75)
        above.set_ylabel("attacks, % of the bin")
        _percent_axis(above.yaxis)
        above.set_title(title)
        above.legend(loc="upper left")
        below.set_yscale("log")
        _count_axis(below.yaxis)
        below.set_ylim(bottom=0.8)
        below.set_ylabel("prompts (log)")
        below.set_xlabel("mean score of the bin, P(malicious)")
        below.set_xlim(0.0, 1.0)
        return _svg(figure, key, title, f"Reliability of {', '.join(map(plain, tables))} on the rows at hand.")


_WORK = ("epoch", "step", "seconds")


def training_curves(
    history: Sequence[Mapping[str, float | None]], *, best: int | None = None, key: str = "training"
) -> str:
    """Losses and validation measures by epoch: every numeric field is a line, losses in a panel of their own.

    What counts work rather than quality (steps, seconds) is left out: beside it every measure would be a flat line.

    Args:
        history: a mapping for each epoch.
        best: the epoch whose weights were kept.
        key: prefix of the element ids.
    """
    from matplotlib.ticker import MaxNLocator

    title = "Training by epoch"
    names = sorted(
        {name for entry in history for name, value in entry.items() if name not in _WORK and _is_number(value)}
    )
    groups = [part for part in ([n for n in names if "loss" in n], [n for n in names if "loss" not in n]) if part]
    epochs = [float(entry.get("epoch") or at + 1) for at, entry in enumerate(history)]
    styles = (("o-", AFTER), ("D--", ATTACK), ("s:", CHOSEN), ("^-.", BEFORE), ("v-", MUTED))
    with _drawing(key, 2.9, columns=max(len(groups), 1)) as (figure, all_axes):
        for axes, group in zip(all_axes, groups, strict=False):
            for name, (style, colour) in zip(group, cycle(styles), strict=False):
                values = [value if _is_number(value := entry.get(name)) else np.nan for entry in history]
                axes.plot(
                    epochs,
                    np.array(values, dtype=np.float64),
                    style,
                    color=colour,
                    markersize=4.0,
                    label=plain(name).replace("_", " "),
                )
            if best is not None:
                axes.axvline(best, color=MUTED, linestyle=":", linewidth=1.2, label=f"kept: epoch {best}")
            axes.set_xlabel("epoch")
            axes.set_ylabel("loss" if group is groups[0] and "loss" in group[0] else "validation measure")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(fontsize=8.0)
        all_axes[0].set_title(title)
        return _svg(figure, key, title, f"Lines over {len(history)} epochs: {', '.join(map(plain, names))}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
