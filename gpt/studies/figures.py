"""Pictures of what a judge found, and those that only the chapters draw."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from gpt.evaluation.plots import BLUE, COLOURS, GREY, INK, ORANGE, name_rows, new_axes, show_spaces, style

STATIONS = ["entry", "prompt", "ids", "batch", "model", "loss", "response", "score"]  # the way of one example
PALE = ["#cfe3f1", "#f6d9c6", "#c9e9dd", "#f0dbe6", "#f9e6bf", "#dcf0fb", "#e6e6e6"]  # COLOURS, as grounds of text


def plot_score_histograms(samples: dict[str, Sequence[float]], low: float, high: float, ax: Axes | None = None) -> Axes:
    """A histogram of scores from low to high for each sample, one under the other; the tallest bar has full height."""
    ax = style(ax or new_axes(7.0, 0.8 * len(samples) + 1.0), "Scores given", "score", "")
    edges = np.linspace(low, high, 21) if high - low > 20 else np.arange(low, high + 2) - 0.5  # else a bar each
    for i, scores in enumerate(samples.values()):
        shares = np.histogram(scores, edges)[0] / max(1, len(scores))
        heights = 0.85 * shares / (shares.max() or 1)
        ax.stairs(heights - i, edges, baseline=-i, fill=True, color=COLOURS[i % len(COLOURS)])
        ax.axhline(-i, color=GREY, linewidth=0.8)
    ax.set_yticks([-i for i in range(len(samples))], [f"{name} ({len(scores)})" for name, scores in samples.items()])
    ax.grid(visible=False)
    return ax


def plot_paired_differences(differences: Sequence[float], interval: dict[str, float], ax: Axes | None = None) -> Axes:
    """A bar for each row's difference, sorted, with their mean and its interval across."""
    ax = style(ax or new_axes(), "Difference on the same rows", "rows, sorted", "this run less the other")
    values = sorted(differences)
    ax.bar(range(len(values)), values, width=1.0, color=[BLUE if value > 0 else ORANGE for value in values])
    ax.axhspan(interval["low"], interval["high"], color=GREY, alpha=0.3, label="95% interval of the mean")
    ax.axhline(interval["value"], color=INK, linewidth=1.2, label=f"mean {interval['value']:+.2f}")
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.legend(frameon=False, fontsize=9, loc="upper left")
    return ax


def plot_agreement(a: Sequence[float], b: Sequence[float], x: str, y: str, ax: Axes | None = None) -> Axes:
    """A dot for each row, more opaque where several lie on each other."""
    ax = style(ax or new_axes(5.0, 4.6), f"Agreement on {len(a)} rows", x, y)
    ax.scatter(a, b, s=28, color=BLUE, alpha=0.35, linewidths=0)
    return ax


def plot_shares(rows: dict[str, dict[str, float]], title: str, unit: str = "", ax: Axes | None = None) -> Axes:
    """A stacked horizontal bar for each row name -> {part: value}; a part has one colour in all rows."""
    ax = style(ax or new_axes(7.0, 0.5 * len(rows) + 1.5), title, unit, "")
    lefts = [0.0] * len(rows)
    for i, part in enumerate(dict.fromkeys(part for row in rows.values() for part in row)):
        widths = [row.get(part, 0.0) for row in rows.values()]
        ax.barh(range(len(rows)), widths, left=lefts, color=COLOURS[i % len(COLOURS)], height=0.65, label=part)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    ax.figure.legend(frameon=False, fontsize=9, ncols=5, loc="outside lower left")
    return name_rows(ax, list(rows))


def plot_tokens(
    rows: Sequence[Sequence[str]], kinds: Sequence[Sequence[int]], legend: Sequence[str], title: str = "",
    below: Sequence[Sequence[object]] | None = None, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Rows of tokens as boxes, as wide as their text, on the ground colour of their kind (a place in `legend`);
    `below` gives a small text under each, such as its id. Long rows are broken."""
    width, step, y = 96.0, 1.6 if below is None else 2.5, 0.0  # in letters; in lines
    ax = ax or new_axes(11.0, 1.0)
    for r, row in enumerate(rows):
        x = 0.0
        for i, token in enumerate(row):
            text = show_spaces(token)
            under = "" if below is None else str(below[r][i])
            size = max(len(text) + 1.2, 0.85 * len(under) + 0.8, 2.0)
            if x + size > width:
                x, y = 0.0, y + step
            ax.add_patch(Rectangle((x, y), size - 0.25, 1.2, facecolor=PALE[kinds[r][i] % len(PALE)], edgecolor="none"))
            ax.text(
                x + size / 2 - 0.12, y + 0.6, text, ha="center", va="center", fontsize=9, family="monospace", color=INK
            )
            ax.text(x + size / 2 - 0.12, y + 1.65, under, ha="center", va="center", fontsize=7, color="#555555")
            x += size
        y += step
    for kind, name in enumerate(legend):
        ax.scatter([], [], marker="s", s=70, color=PALE[kind % len(PALE)], label=name)
    ax.set(xlim=(0, width), ylim=(y, -0.3))
    ax.axis("off")
    ax.set_title(title, loc="left", fontsize=11, color=INK)
    if legend:
        ax.legend(frameon=False, fontsize=9, ncols=7, loc="upper left", bbox_to_anchor=(0, 0))
    ax.figure.set_size_inches(11.0, 0.24 * y + 0.9)
    return ax


def plot_way(stations: Sequence[str], here: Sequence[str], ax: Axes | None = None) -> Axes:
    """Where you are: the stations as a row of boxes, those of this chapter in colour."""
    ax = ax or new_axes(11.0, 1.0)
    for i, name in enumerate(stations):
        colour = BLUE if name in here else "#e6e6e6"
        ax.add_patch(FancyBboxPatch((i, 0), 0.78, 0.6, boxstyle="round,pad=0.03", facecolor=colour, edgecolor="none"))
        ink = "white" if name in here else INK
        ax.text(i + 0.39, 0.3, name.replace(" ", "\n"), ha="center", va="center", fontsize=9, color=ink)
        if i:
            ax.annotate("", (i - 0.03, 0.3), (i - 0.19, 0.3), arrowprops={"arrowstyle": "->", "color": GREY})
    ax.set(xlim=(-0.1, len(stations)), ylim=(-0.1, 0.7))
    ax.axis("off")
    return ax


def plot_spans(
    rows: dict[str, Sequence[tuple[float, float, int]]], legend: Sequence[str], title: str, x: str,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """A line for each row name -> stretches (start, end, kind), in place, in the colour of their kind (in `legend`)."""
    ax = style(ax or new_axes(11.0, 0.26 * len(rows) + 1.5), title, x, "")
    for kind, name in enumerate(legend):
        ax.scatter([], [], marker="s", s=70, color=COLOURS[kind], label=name)
        for r, spans in enumerate(rows.values()):
            stretches = [(start, end - start) for start, end, of in spans if of == kind]
            ax.broken_barh(stretches, (r - 0.4, 0.8), facecolors=COLOURS[kind], edgecolor="#fdfdfb", linewidth=0.4)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.figure.legend(*ax.get_legend_handles_labels(), frameon=False, fontsize=9, ncols=7, loc="outside lower left")
    return ax
