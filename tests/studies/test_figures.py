import matplotlib.pyplot as plt
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex

from gpt.evaluation.plots import COLOURS
from gpt.studies.figures import (
    plot_agreement,
    plot_paired_differences,
    plot_score_histograms,
    plot_spans,
)


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


def test_paired_differences_stand_sorted_with_their_mean() -> None:
    ax = plot_paired_differences([5, -2, 1], {"value": 4 / 3, "low": -1, "high": 4})
    assert [bar.get_height() for bar in ax.patches[:3]] == [-2, 1, 5]
    assert len({bar.get_facecolor() for bar in ax.patches[:3]}) == 2
    assert ax.lines[0].get_ydata()[0] == pytest.approx(4 / 3)
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


def test_agreement_is_a_dot_for_each_row() -> None:
    ax = plot_agreement([1, 2], [3, 4], "judge", "ROUGE-L")
    assert ax.collections[0].get_offsets().tolist() == [[1, 3], [2, 4]]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("judge", "ROUGE-L")
    plt.close(ax.figure)
