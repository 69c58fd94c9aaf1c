"""The data card: every stage with its numbers, reasons and samples, as Markdown and as a page that needs nothing."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from gpt.curation.data_card import card_figures, data_card, draw_entries, funnel_table
from gpt.curation.pipeline import StageReport
from gpt.evaluation.plots import save_figure
from gpt.studies.page import html_page
from gpt.text.entries import load_entries

# importorskip would import it, in every worker, which takes seconds
pytestmark = pytest.mark.skipif(not find_spec("sklearn"), reason="pip install -e '.[curate]'")
ROOT = Path(__file__).parents[2]
EVIL = {"instruction": "<script>alert(1)</script> | ``` **bold**", "input": "", "output": "x" * 2000}
REPORTS = [
    StageReport("read", 1010, 0, Counter({"not valid JSON": 10}), [("not valid JSON: line", {"record": '{"a'})]),
    StageReport("filter", 1000, 3, Counter({"length": 300, "refusal": 200}), [("length: too\nlong", EVIL)]),
]


def test_the_table_adds_up() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in funnel_table(REPORTS).split("\n")[2:]]
    assert rows[0] == ["read", "not valid JSON 10", "1,010", "10", "0", "1,000"]
    assert rows[1] == ["filter", "length 300, refusal 200", "1,000", "500", "3", "500"]
    assert rows[2] == ["all", "", "1,010", "510", "3", "500"]


@pytest.mark.long
def test_the_card_shows_reasons_samples_and_what_the_set_holds(tmp_path: Path) -> None:
    entries = load_entries(ROOT / "data" / "instructions.json")[:500]
    figures = card_figures(entries, REPORTS)
    assert list(figures) == ["funnel.png", "lengths.png", "kinds.png", "verbs.png"]
    for name, ax in figures.items():
        save_figure(ax, tmp_path / name)
    page = data_card("clean.jsonl", "raw.jsonl", REPORTS, entries, {"threshold": 0.8}, list(figures))
    for text in ("1,010 entries were read from raw.jsonl, 500 are kept", "| filter | refusal", "length: too long",
                 "all 500 entries", "| threshold | 0.8", "telling words", "x" * 400 + "..."):  # fmt: skip
        assert text in page, text
    html = html_page(page, tmp_path)
    assert "<script>" not in html and "&lt;script&gt;" in html and html.count("data:image/png") == 4


def test_the_card_says_what_reading_left_out() -> None:
    page = data_card(
        "a.jsonl", "raw.jsonl", [StageReport("read", 2, converted=Counter(chat=2, later_turns=5))], [], {}, []
    )
    assert "Records by format, and what changed on the way: chat 2, later turns 5." in page


def test_a_set_of_which_nothing_is_left_has_a_card_too(tmp_path: Path) -> None:
    reports = [StageReport("read", 1, 0, Counter({"empty": 1}), [("empty", {"record": ""})])]
    figures = card_figures([], reports)
    assert list(figures) == ["funnel.png"]
    save_figure(figures["funnel.png"], tmp_path / "funnel.png")
    page = data_card("none.jsonl", "raw.jsonl", reports, [], {}, list(figures))
    assert "0 are kept" in page and "What the set holds" not in page
    assert html_page(page, tmp_path).count("data:image/png") == 1


def test_a_kind_may_hold_any_sign(tmp_path: Path) -> None:
    kinds = ["open | closed", "two\nlines", r"$\frac", "a$b$"]
    entries = [{"instruction": f"Say {i}.", "input": "", "output": "1", "kind": kind} for i, kind in enumerate(kinds)]
    figures = card_figures(entries, REPORTS)
    for name, ax in figures.items():
        save_figure(ax, tmp_path / name)
    html = html_page(data_card("a.jsonl", "raw.jsonl", REPORTS, entries, {}, list(figures)), tmp_path)
    for kind in ("open | closed", "two lines", r"$\frac", "a$b$"):
        assert f"<td>{kind}</td>" in html, kind


def test_a_sample_is_drawn_evenly_and_the_same_each_time() -> None:
    rows = [{"instruction": str(i)} for i in range(1000)]
    drawn, total = draw_entries(iter(rows), 100)
    assert total == 1000 and len(drawn) == 100 and drawn == draw_entries(rows, 100)[0] != draw_entries(rows, 100, 5)[0]
    assert 350 < sum(int(row["instruction"]) for row in drawn) / 100 < 650
    assert draw_entries(rows[:3], 100) == (rows[:3], 3)


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")
