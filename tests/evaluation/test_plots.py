from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from gpt.evaluation.plots import (
    COLOURS,
    plot_agreement,
    plot_losses,
    plot_paired_differences,
    plot_score_histograms,
    plot_scores,
    plot_spans,
    running_mean,
    save_figure,
)


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


def test_spans_stand_where_they_lie_in_the_colour_of_their_kind() -> None:
    ax = plot_spans({"a": [(0, 2, 0), (2, 7, 1)], "b": [(3, 4, 1)]}, ["wte", "wpe"], "file", "bytes")
    spans = set()
    for bars in (found for found in ax.collections if isinstance(found, PolyCollection)):
        kind = COLOURS.index(to_hex(bars.get_facecolor()[0]).upper())
        for left, low, right, high in (path.get_extents().extents for path in bars.get_paths()):
            spans.add(((low + high) / 2, left, right, kind))
    assert spans == {(0, 0, 2, 0), (0, 2, 7, 1), (1, 3, 4, 1)}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["wte", "wpe"]
    plt.close(ax.figure)


def test_each_sample_of_scores_has_a_histogram_of_its_own() -> None:
    ax = plot_score_histograms({"response": [0, 3, 100], "empty": [], "reference": [97, 98]}, 0, 100)
    heights = [[top - bottom for top, bottom in zip(p.get_data().values, [b] * 20, strict=True)]
               for p, b in zip(ax.patches, (0, -1, -2), strict=True)]  # fmt: skip
    assert [[round(height, 3) for height in (row[0], row[10], row[19])] for row in heights] == [
        [0.85, 0, 0.425], [0, 0, 0], [0, 0, 0.85],
    ]  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["response (3)", "empty (0)", "reference (2)"]
    plt.close(ax.figure)
    rubric = plot_score_histograms({"response": [1, 5, 5]}, 1, 5)
    assert list(rubric.patches[0].get_data().edges) == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    plt.close(rubric.figure)


def test_paired_differences_stand_sorted_with_their_mean() -> None:
    ax = plot_paired_differences([5, -2, 1], {"value": 4 / 3, "low": -1, "high": 4})
    assert [bar.get_height() for bar in ax.patches[:3]] == [-2, 1, 5]
    assert len({bar.get_facecolor() for bar in ax.patches[:3]}) == 2
    assert ax.lines[0].get_ydata()[0] == pytest.approx(4 / 3)
    plt.close(ax.figure)


def test_agreement_is_a_dot_for_each_row() -> None:
    ax = plot_agreement([1, 2], [3, 4], "judge", "ROUGE-L")
    assert ax.collections[0].get_offsets().tolist() == [[1, 3], [2, 4]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("judge", "ROUGE-L")
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
