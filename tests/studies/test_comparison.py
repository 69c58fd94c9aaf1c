import random
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gpt.evaluation.metrics import bootstrap_interval, rouge_l
from gpt.evaluation.plots import plot_bars, save_figure
from gpt.evaluation.report import quoted, table
from gpt.studies.comparison import (
    MEASURES,
    compare_models,
    comparison_page,
    floor_sentence,
    measure,
    repetition,
    verdict,
)
from gpt.studies.page import html_page, split_blocks
from gpt.text.entries import Entry

WORDS = "river teacher garden window market doctor bridge candle forest kitchen ladder mirror needle orange".split()


def row(text: str, stopped_by: str = "end_of_text") -> dict[str, str]:
    return {"text": text, "stopped_by": stopped_by}


def make_entries(n: int = 60) -> list[Entry]:
    rng = random.Random(1)
    return [
        {"instruction": f"Do {i}.", "input": "", "output": " ".join(rng.choices(WORDS, k=8)), "kind": "ab"[i % 2]}
        for i in range(n)
    ]


def spoiled(entries: list[Entry], share: float, seed: int) -> list[dict[str, str]]:
    """The references with a share of their words replaced."""
    rng = random.Random(seed)
    texts = [" ".join("x" if rng.random() < share else w for w in e["output"].split()) for e in entries]
    return [row(text) for text in texts]


@pytest.fixture(scope="module")
def found() -> tuple[list[Entry], dict[str, list[dict[str, str]]], dict]:
    entries = make_entries()
    answers = {"good": spoiled(entries, 0.2, 1), "bad": spoiled(entries, 0.6, 2), "twin": spoiled(entries, 0.2, 3)}
    return entries, answers, compare_models(entries, answers, make_entries(5))


# ---- measures ----


def test_repetition_is_the_share_of_runs_of_four_words_seen_before() -> None:
    assert repetition("a b c d e f g") == 0
    assert repetition("a b c d a b c d") == pytest.approx(1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("no no no no no no no") == pytest.approx(3 / 4)
    assert repetition("too short") == 0


def test_a_row_is_measured_by_hand() -> None:
    entry = {"instruction": "Shout.", "input": "", "output": "A B", "constraints": [{"check": "upper_case"}]}
    columns = measure([entry, entry | {"constraints": []}], [row("A B"), row("a c", "max_new_tokens")])
    assert set(columns) == set(MEASURES)
    assert columns["exact_match"] == [1, 0]
    assert columns["token_f1"] == [1, 0.5]
    assert columns["format_followed"] == [1, None]  # nothing was demanded of the second
    assert columns["stop_rate"] == [1, 0]
    assert columns["limit_rate"] == [0, 1]
    assert columns["length"] == [2, 2]
    stopped = measure([entry], [row("A", "stop_string")])
    assert stopped["stop_rate"] == stopped["limit_rate"] == [0]  # it had begun the next instruction


# ---- who beats whom ----


def test_the_interval_is_of_the_paired_difference(found: tuple) -> None:
    entries, answers, comparison = found
    a, b = (
        [rouge_l(r["text"], e["output"]) for r, e in zip(answers[m], entries, strict=True)] for m in ("good", "bad")
    )
    pair = comparison["pairs"][0]
    assert (pair["first"], pair["second"]) == ("good", "bad")
    wanted = bootstrap_interval([x - y for x, y in zip(a, b, strict=True)])
    assert {key: pair["rouge_l"][key] for key in wanted} == pytest.approx(wanted)
    assert [(p["first"], p["second"]) for p in comparison["pairs"]] == [
        ("good", "bad"), ("good", "twin"), ("bad", "twin"),
    ]  # fmt: skip


def test_pairing_shows_what_two_intervals_side_by_side_hide() -> None:
    """Easy rows and hard ones, and on each the second model one word worse."""
    entries = make_entries(40)
    a, b = [], []
    for i, entry in enumerate(entries):
        words = entry["output"].split()
        a.append(row(" ".join(words[: 1 + i % 8] + ["x"] * (7 - i % 8))))
        b.append(row(" ".join(words[: i % 8] + ["x"] * (8 - i % 8))))
    comparison = compare_models(entries, {"a": a, "b": b}, [])
    assert "**a beats b.**" in verdict(comparison["pairs"][0], 40)
    one, other = (comparison["models"][name]["rouge_l"] for name in "ab")
    assert one["low"] < other["high"]  # the intervals overlap: read side by side they would say nothing


def test_a_plain_sentence_says_who_beats_whom(found: tuple) -> None:
    n, pairs = found[2]["n"], found[2]["pairs"]
    first, even, second = (verdict(pair, n) for pair in pairs)
    assert first.startswith("**good beats bad.** ROUGE-L over the same 60 entries, good less bad: +0.")
    assert even.startswith("**good and twin cannot be told apart.**")
    assert second.startswith("**twin beats bad.** ROUGE-L over the same 60 entries, twin less bad: +0.")
    d = pairs[2]["rouge_l"]  # bad less twin: turned round in the sentence, low and high too
    assert f"(95% interval {-d['high']:+.3f} to {-d['low']:+.3f}, p below 0.001)" in second
    assert "Other scores for good: exact match, token F1, BLEU." in first


def test_a_score_that_disagrees_is_named(found: tuple) -> None:
    pair = found[2]["pairs"][0]
    against = {"n": 60, "value": -0.2, "low": -0.3, "high": -0.1, "p": 0.001}
    assert "Other scores for bad: BLEU." in verdict(pair | {"bleu": against}, 60)
    lucky = pair["rouge_l"] | {"p": 0.2}  # the interval alone is not enough
    assert "cannot be told apart" in verdict(pair | {"rouge_l": lucky}, 60)


def test_a_model_that_is_not_above_a_floor_is_named() -> None:
    entries = [entry | {"input": entry["output"]} for entry in make_entries(30)]
    comparison = compare_models(
        entries, {"a": spoiled(entries, 0.0, 1), "b": spoiled(entries, 0.5, 2)}, make_entries(3)
    )
    assert comparison["floors"]["copied input"]["exact_match"]["value"] == 1
    assert comparison["not_above"] == {"a": ["copied input"], "b": ["copied input"]}  # a is as good, not better
    assert "a (copied input); b (copied input)" in floor_sentence(comparison)
    assert "more than the floors" in floor_sentence(comparison | {"not_above": {"a": [], "b": []}})


def test_the_rows_that_differ_most_come_first_and_equal_rows_not_at_all() -> None:
    entries = make_entries(40)
    a, b = ([row(e["output"]) for e in entries] for _ in range(2))
    b[7] = row("x")
    b[3] = row(entries[3]["output"] + " x")
    assert compare_models(entries, {"a": a, "b": b}, [])["most_apart"] == [7, 3]


def test_kinds_are_compared_on_their_own_rows(found: tuple) -> None:
    entries, _, comparison = found
    assert {kind: part["n"] for kind, part in comparison["by_kind"].items()} == {"a": 30, "b": 30}
    scores = [
        comparison["row_scores"][m][i] for m in ("good", "bad") for i, e in enumerate(entries) if e["kind"] == "b"
    ]
    part = comparison["by_kind"]["b"]
    assert part["models"]["good"]["value"] == pytest.approx(sum(scores[:30]) / 30)
    assert part["first_less_others"][0]["value"] == pytest.approx((sum(scores[:30]) - sum(scores[30:])) / 30)


def test_the_same_answers_give_the_same_page(found: tuple) -> None:
    entries, answers, comparison = found
    again = compare_models(entries, answers, make_entries(5))
    assert comparison_page(again, entries, answers, "x.json", {}) == comparison_page(
        comparison, entries, answers, "x.json", {}
    )


# ---- the page ----

EVIL = "<script>alert(1)</script> & **b** `c` ![x](http://evil/x.png)\n```\n# no heading\n| a | b |\n"


class Page(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and its text; open tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.open = "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_a_response_holds_is_shown_and_not_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = make_entries(30)
    entries[4] |= {"input": EVIL, "kind": "<b>|x"}
    answers = {"a|<i>": [row(EVIL) for _ in entries], "b": [row(e["output"]) for e in entries]}
    page = comparison_page(compare_models(entries, answers, entries), entries, answers, "<u>.json", {})
    shown = Page(html_page(page, tmp_path))
    assert not {"script", "i", "b", "u", "img", "link"} & {tag for tag, _ in shown.tags}
    assert EVIL in shown.text
    assert sum(tag == "h1" for tag, _ in shown.tags) == 1
    monkeypatch.setattr("gpt.studies.page.escape", str)
    assert "<script>alert(1)" in html_page(page, tmp_path)


def test_the_html_page_needs_nothing_beside_it(tmp_path: Path) -> None:
    save_figure(plot_bars({"a": 1.0}, "bars"), tmp_path / "p.png")
    markdown = "# Title\n\n- one\n- two\n\n![bars & so on](p.png)\n\nText, *slanted*, `x*y*z`.\n"
    html = html_page(markdown, tmp_path)
    (tmp_path / "p.png").unlink()
    shown = Page(html)
    [picture] = [attributes for tag, attributes in shown.tags if tag == "img"]
    assert picture["src"].startswith("data:image/png;base64,iVBOR")
    assert picture["alt"] == "bars & so on"
    assert "http" not in html.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in html
    assert "<em>slanted</em>, <code>x*y*z</code>" in html
    assert html.count("<li>") == 2
    with pytest.raises(FileNotFoundError):
        html_page(markdown, tmp_path)


def test_tables_and_fenced_blocks_come_out_as_they_went_in(tmp_path: Path) -> None:
    text = "first\n\n\n````\n| no | table |\n"
    markdown = f"{table(['', 'n'], [['a b', '1'], ['', '22']])}\n\n**Caption**\n\n{quoted(text)}\n\nEnd."
    html = html_page(markdown, tmp_path)
    assert '<tr><td>a b</td><td class="number">1</td></tr><tr><td></td><td class="number">22</td></tr>' in html
    assert "<figcaption" in html
    assert f'<pre dir="auto">{text}</pre>' in html
    assert [lines[0] for lines in split_blocks(markdown)][1:] == ["**Caption**", "`````text", "End."]
