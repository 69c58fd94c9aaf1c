"""Figures. A function takes plain lists, draws on the given Axes or on new ones, and returns them.

The colours are told apart by people with any colour vision (Okabe and Ito 2008), and a figure has an opaque light
ground with dark ink, so that it reads the same on a light page and on a dark one.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from gpt.training.run import best_step

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLOURS = [BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GREY]  # of series, in this order
INK = "#222222"
LOSS_NAMES = {"all": "all tokens", "header": "response with its header", "response": "response only"}


def new_axes(width: float = 7.0, height: float = 4.2) -> Axes:
    """Axes of a new figure, in inches, in the style of all figures here."""
    _, ax = plt.subplots(figsize=(width, height), layout="constrained", facecolor="#fdfdfb")
    return ax


def style(ax: Axes, title: str, x: str, y: str) -> Axes:
    ax.set_facecolor("#fdfdfb")
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.set(xlabel=x, ylabel=y)
    ax.grid(axis="y", color="#dddddd", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def name_rows(ax: Axes, names: Sequence[str]) -> Axes:
    """A name for each horizontal bar, the first on top."""
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.grid(visible=False)
    return ax


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to width - 1 before it."""
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


def plot_losses(history: Sequence[dict], loss_on: str = "response", ax: Axes | None = None) -> Axes:
    """Training loss of every step and the three validation losses, in nats per token; the best validation is marked."""
    ax = style(ax or new_axes(), f"Loss ({LOSS_NAMES[loss_on]} is trained on)", "step", "nats per token")
    trained = [report for report in history if report["loss"] is not None]
    steps = [report["step"] for report in trained]
    losses = [report["loss"] for report in trained]
    if trained:
        ax.plot(steps, losses, color=GREY, alpha=0.25, linewidth=0.8)
        ax.plot(steps, running_mean(losses, max(1, len(losses) // 30)), color=GREY, label="training, running mean")
    evaluated = [report for report in history if report["val"]]
    for (name, label), colour in zip(LOSS_NAMES.items(), (ORANGE, GREEN, BLUE), strict=True):
        values = [report["val"][name] for report in evaluated]
        ax.plot([report["step"] for report in evaluated], values, "o-", color=colour, markersize=3.5,
                linewidth=2 if name == loss_on else 1, label=f"validation, {label}")  # fmt: skip
    if best := [report for report in evaluated if report["step"] == best_step(history, loss_on) > 0]:
        best = best[0]
        ax.annotate(f"best {best['val'][loss_on]:.2f}", (best["step"], best["val"][loss_on]), xytext=(0, 9),
                    textcoords="offset points", ha="center", fontsize=9)  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside lower left")
    return ax


def plot_scores(
    rows: dict[str, dict[str, dict[str, float]]], metric: str = "rouge_l", strong: Sequence[str] = ("after",),
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """A bar for each row (before, after, floors ...) with its 95% interval; the strong ones in colour."""
    ax = ax or new_axes(7.0, 0.55 * len(rows) + 1.1)
    scores = {name: row[metric] for name, row in rows.items()}
    for y, (name, score) in enumerate(scores.items()):
        colour = BLUE if name in strong else GREY
        ax.barh(y, score["value"], color=colour, height=0.6)
        ax.hlines(y, score["low"], score["high"], color=INK, linewidth=1.5)
        ax.text(score["high"] + 0.01, y, f"{score['value']:.2f}", va="center", fontsize=9)
    style(ax, f"{metric.replace('_', '-').upper()} with its 95% interval", "", "")
    ax.set_xlim(0, 1)
    return name_rows(ax, [name.replace("_", " ") for name in scores])


def plot_lines(
    series: dict[str, tuple[Sequence[float], Sequence[float]]], title: str, x: str, y: str, ax: Axes | None = None
) -> Axes:
    """A line for each name -> (xs, ys), at most seven."""
    ax = style(ax or new_axes(), title, x, y)
    for i, (name, (xs, ys)) in enumerate(series.items()):
        ax.plot(xs, ys, "o-" if len(xs) <= 30 else "-", color=COLOURS[i % len(COLOURS)], markersize=3.5, label=name)
    if len(series) > 1:
        ax.legend(frameon=False, fontsize=9)
    return ax


def plot_bars(values: dict[str, float], title: str, unit: str = "", ax: Axes | None = None) -> Axes:
    """A horizontal bar for each name, the first on top, with its number."""
    ax = style(ax or new_axes(7.0, 0.42 * len(values) + 1.1), title, unit, "")
    for i, value in enumerate(values.values()):
        ax.barh(i, value, color=BLUE, height=0.65)
        ax.text(value, i, f" {value:,.0f}" if value >= 1000 else f" {value:.4g}", va="center", fontsize=9)
    ax.margins(x=0.15)
    return name_rows(ax, list(values))


def plot_grid(
    values: Sequence[Sequence[float | None]], rows: Sequence[str] = (), columns: Sequence[str] = (), title: str = "",
    texts: Sequence[Sequence[str]] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """A table of coloured cells, darker for more (red below zero, where there is any), with `texts` or the numbers in
    them; None stays white. Large tables have colours only."""
    n_rows, n_columns = len(values), max(len(row) for row in values)
    ax = ax or new_axes(min(11.0, 1.5 + 0.62 * n_columns), min(9.0, 1.0 + 0.42 * n_rows))
    known = [v for row in values for v in row if v is not None]
    low, high = min(known), max(known)
    limit = max(abs(low), abs(high)) or 1.0
    table = [[math.nan if v is None else v for v in row] + [math.nan] * (n_columns - len(row)) for row in values]
    bounds = {"cmap": "RdBu", "vmin": -limit, "vmax": limit} if low < 0 else {"cmap": "Blues", "vmin": 0, "vmax": limit}
    ax.imshow(table, aspect="auto", alpha=0.85, **bounds)
    if n_columns <= 16 and n_rows <= 24:
        for r, row in enumerate(values):
            for c, value in enumerate(row):
                text = texts[r][c] if texts else "" if value is None else f"{value:.2f}" if value % 1 else f"{value:g}"
                dark = value is not None and abs(value) > 0.6 * limit
                ax.text(c, r, text, ha="center", va="center", fontsize=8.5, color="white" if dark else INK)
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    ax.set_yticks(range(n_rows) if rows else [], [show_spaces(name) for name in rows])
    turned = sum(len(name) for name in columns) > 5 * n_columns
    ax.set_xticks(range(n_columns) if columns else [], [show_spaces(name) for name in columns],
                  rotation=40 if turned else 0, ha="right" if turned else "center")  # fmt: skip
    ax.tick_params(length=0, labelsize=9)
    ax.spines[:].set_visible(False)
    return ax


def show_spaces(token: str) -> str:
    """Line ends made visible, and spaces at either end: there they are part of a token."""
    token = re.sub(r"^ +| +$", lambda found: "␣" * len(found[0]), token)
    return token.replace("\n", "⏎").replace("$", r"\$")


def save_figure(ax: Axes, path: Path) -> None:
    """Write the figure of these Axes as PNG and close it."""
    ax.figure.savefig(path, dpi=150, format="png")
    plt.close(ax.figure)
