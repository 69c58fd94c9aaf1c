from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from gpt.evaluation.plots import plot_losses, plot_scores, running_mean, save_figure


def report(step: int, loss: float | None, val: float | None = None) -> dict:
    return {"step": step, "loss": loss, "val": val and {"all": val, "header": val + 1, "response": val + 2}}


HISTORY = [report(0, None, 3.0), report(1, 4.0), report(2, 3.5, 1.5), report(3, 3.0), report(4, 2.5, 1.8)]


def test_the_loss_curve_shows_training_and_three_validation_losses() -> None:
    ax = plot_losses(HISTORY)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines["validation, response only"].get_xdata()) == [0, 2, 4]
    assert list(lines["validation, response only"].get_ydata()) == [5.0, 3.5, 3.8]
    assert list(lines["training, running mean"].get_xdata()) == [1, 2, 3, 4]
    assert [text.get_text() for text in ax.texts] == ["best 3.50"]
    assert "nats per token" in ax.get_ylabel()
    plt.close(ax.figure)


def test_a_run_that_has_only_begun_can_be_drawn() -> None:
    plt.close(plot_losses(HISTORY[:1]).figure)
    plt.close(plot_losses([]).figure)


def test_scores_are_bars_with_their_intervals() -> None:
    score = {"value": 0.4, "low": 0.3, "high": 0.5}
    ax = plot_scores({"before": {"rouge_l": score}, "after": {"rouge_l": score | {"value": 0.45}}})
    assert [bar.get_width() for bar in ax.patches] == [0.4, 0.45]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["before", "after"]
    assert ax.get_xlim() == (0, 1)
    plt.close(ax.figure)


def test_a_figure_has_an_opaque_light_ground(tmp_path: Path) -> None:
    """On a dark page a transparent picture would show dark letters on dark."""
    ax = plot_losses(HISTORY)
    assert ax.figure.get_facecolor()[3] == 1.0
    save_figure(ax, tmp_path / "loss.png.part")  # the format does not hang on the name
    assert (tmp_path / "loss.png.part").read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_a_running_mean_looks_back_only() -> None:
    assert running_mean([1, 3, 5, 7], 2) == pytest.approx([1, 2, 4, 6])
    assert running_mean([1, 3], 1) == [1, 3]
