"""Every figure. A function takes plain lists, draws on the given Axes or on new ones, and returns them.

The colours are told apart by people with any colour vision (Okabe and Ito 2008), and a figure has an opaque light
ground with dark ink, so that it reads the same on a light page and on a dark one.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from gpt.training.run import best_step

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
LOSS_NAMES = {"all": "all tokens", "header": "response with its header", "response": "response only"}


def new_axes(width: float = 7.0, height: float = 4.2) -> Axes:
    """Axes of a new figure, in inches, in the style of all figures here."""
    _, ax = plt.subplots(figsize=(width, height), layout="constrained", facecolor="#fdfdfb")
    return ax


def style(ax: Axes, title: str, x: str, y: str) -> Axes:
    ax.set_facecolor("#fdfdfb")
    ax.set_title(title, loc="left", fontsize=11, color="#222222")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.grid(axis="y", color="#dddddd", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and up to width - 1 before it."""
    means = []
    for i in range(len(values)):
        window = values[max(0, i + 1 - width) : i + 1]
        means.append(sum(window) / len(window))
    return means


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
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_pretraining(curve: Sequence[dict], ax: Axes | None = None) -> Axes:
    """Loss on what is read, task-like text and all, and on held-out text, by tokens read."""
    ax = style(ax or new_axes(), "Pretraining", "million tokens", "nats per token")
    for name, label, colour in (("loss", "read, running mean", GREY), ("held_out", "held-out text", BLUE)):
        points = [point for point in curve if point.get(name) is not None]
        ax.plot(
            [p["tokens"] / 1e6 for p in points],
            [p[name] for p in points],
            "o-",
            markersize=3,
            color=colour,
            label=label,
        )
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_scores(rows: dict[str, dict[str, dict[str, float]]], metric: str = "rouge_l", ax: Axes | None = None) -> Axes:
    """A bar for each row (before, after, floors ...) with its 95% interval."""
    ax = ax or new_axes(7.0, 0.55 * len(rows) + 1.1)
    scores = {name: row[metric] for name, row in rows.items()}
    for y, (name, score) in enumerate(scores.items()):
        colour = BLUE if name == "after" else GREY
        ax.barh(y, score["value"], color=colour, height=0.6)
        ax.hlines(y, score["low"], score["high"], color="#222222", linewidth=1.5)
        ax.text(score["high"] + 0.01, y, f"{score['value']:.2f}", va="center", fontsize=9)
    style(ax, f"{metric.replace('_', '-').upper()} with its 95% interval", "", "")
    ax.set_yticks(range(len(scores)), [name.replace("_", " ") for name in scores])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_xlim(0, 1)
    return ax


def save_figure(ax: Axes, path: str) -> None:
    """Write the figure of these Axes as PNG and close it."""
    ax.figure.savefig(path, dpi=150, format="png")
    plt.close(ax.figure)
