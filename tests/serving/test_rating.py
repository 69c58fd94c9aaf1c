"""Rating by hand: what is paired and hidden, what is kept, and what comes out."""

import json
from pathlib import Path

import pytest
import requests

from gpt.evaluation.judge import collect_verdicts, score_question
from gpt.serving.protocol import Served
from gpt.serving.rating import DIMENSIONS, Rating, RatingBody
from gpt.serving.server import make_app
from tests.serving.conftest import running


def write_run(folder: Path, responses: dict[str, str]) -> Path:
    """A run folder with the responses to instructions."""
    folder.mkdir()
    rows = [{"instruction": i, "input": "", "output": f"reference to {i}", "model_response": r, "kind": "x"}
            for i, r in responses.items()]  # fmt: skip
    (folder / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve entries; the other run has them in another order, and one more."""
    names = [f"task {i}" for i in range(12)]
    ours = write_run(tmp_path / "ours", {name: f"ours to {name}" for name in names})
    theirs = write_run(tmp_path / "theirs", {name: f"theirs to {name}" for name in [*reversed(names), "only here"]})
    return ours, theirs


def judge_rows(folder: Path, rows: list[dict], name: str, opinion: dict[int, int], scale: str = "0-100") -> None:
    """Let a judge of this opinion write its verdicts on rows, with the judge's own functions."""
    for row, score in opinion.items():
        question = score_question(rows[row], rows[row]["model_response"], scale, row=row)
        list(collect_verdicts([question], lambda _, score=score: str(score), folder / "verdicts.jsonl", name))


def body(left: int, right: int, preference: str = "tie") -> RatingBody:
    return RatingBody(left=dict.fromkeys(DIMENSIONS, left), right=dict.fromkeys(DIMENSIONS, right),
                      preference=preference)  # fmt: skip


def rate_by_run(rating: Rating, place: int, run: int, other: int) -> None:
    """As somebody who knows whose is whose would rate."""
    scores = {"run": run, "other": other}
    left, right = (scores[rating.pairs[place].on(side)] for side in ("left", "right"))
    rating.save(place, body(left, right, "left" if left > right else "right" if right > left else "tie"))


def test_each_pair_has_both_responses_to_one_entry(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    for place in range(12):
        shown = rating.pair(place)
        sides = {shown["left"], shown["right"]}
        assert sides == {f"ours to {shown['instruction']}", f"theirs to {shown['instruction']}"}
        assert shown["reference"] == f"reference to {shown['instruction']}"
    assert len({rating.pair(place)["instruction"] for place in range(12)}) == len(rating.pairs) == 12


def test_order_and_sides_follow_from_the_seed_and_tell_nothing(runs: tuple[Path, Path]) -> None:
    def shown(seed: int) -> list[tuple[str, str]]:
        rating = Rating(*runs, seed)
        return [(pair["instruction"], pair["left"][:4]) for pair in map(rating.pair, range(12))]

    assert shown(1) == shown(1) != shown(2)
    assert [name for name, _ in shown(1)] != [f"task {i}" for i in range(12)]
    assert {left for _, left in shown(1)} == {"ours", "thei"}
    pair = Rating(*runs).pair(0)
    assert set(pair) == {"place", "n", "n_rated", "instruction", "input", "reference", "left", "right", "rating"}


def test_a_rating_is_kept_under_the_name_of_the_run(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    for place in range(4):
        rate_by_run(rating, place, run=5, other=2)
    lines = [json.loads(line) for line in (runs[0] / "ratings.jsonl").read_text().splitlines()]
    assert len({line["left"] for line in lines}) == 2  # else the sides would not have mattered
    for line, pair in zip(lines, rating.pairs, strict=False):
        assert line["scores"] == {"run": dict.fromkeys(DIMENSIONS, 5), "other": dict.fromkeys(DIMENSIONS, 2)}
        assert line["preference"] == "run"
        assert (line["run"], line["other"]) == ("ours", "theirs")
        assert pair.entry["instruction"] == f"task {line['row']}"
        assert line["other_row"] == 11 - line["row"]


def test_a_second_session_goes_on_where_the_first_stopped(runs: tuple[Path, Path]) -> None:
    first = Rating(*runs)
    assert [first.save(place, body(3, 4))["next"] for place in (0, 1, 3)] == [1, 2, 2]
    second = Rating(*runs)
    assert second.first_open() == 2
    assert second.pair(1)["rating"] == body(3, 4).model_dump()
    assert second.pair(2)["rating"] is None
    for place in (2, *range(4, 12)):
        last = second.save(place, body(1, 1))
    assert last == {"n": 12, "n_rated": 12, "next": None}
    assert Rating(*runs).pair(Rating(*runs).first_open())["place"] is None
    assert Rating(*runs, seed=99).first_open() is None  # another order, the same pairs


def test_ratings_are_only_appended_and_the_later_counts(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    rating.save(0, body(1, 1))
    before = rating.path.read_bytes()
    rating.save(0, body(2, 5, "right"))
    assert rating.path.read_bytes().startswith(before)
    assert Rating(*runs).pair(0)["rating"] == body(2, 5, "right").model_dump()
    assert Rating(*runs).summary()["n_rated"] == 1


def test_half_a_line_costs_that_line_only(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    rating.save(0, body(1, 1))
    rating.save(1, body(2, 2))
    path = rating.path
    path.write_bytes(path.read_bytes()[:-30])  # the machine stopped while it was written
    again = Rating(*runs)
    assert (again.first_open(), again.n_unreadable) == (1, 1)
    again.save(1, body(4, 4))  # begins a line of its own
    assert Rating(*runs).pair(1)["rating"] == body(4, 4).model_dump()
    assert Rating(*runs).summary()["unreadable_lines"] == 1


def test_ratings_of_other_responses_do_not_count(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    rating.save(0, body(1, 1))
    rating.save(1, body(1, 1))
    path, row = runs[0] / "responses.json", rating.pairs[0].rows["run"]
    rows = json.loads(path.read_text())
    rows[row]["model_response"] = "a new answer"  # the run was evaluated anew
    path.write_text(json.dumps(rows))
    assert [pair.key in Rating(*runs).ratings for pair in Rating(*runs).pairs[:2]] == [False, True]


def test_the_summary_counts_by_run_and_compares_with_the_judge(runs: tuple[Path, Path]) -> None:
    rating = Rating(*runs)
    by_hand = [(5, 1), (4, 2), (3, 3), (2, 4), (1, 5), (4, 1)]
    for place, (run, other) in enumerate(by_hand):
        rate_by_run(rating, place, run, other)
    summary = rating.summary()
    assert summary["preference"] == {"run": 3, "other": 2, "tie": 1}
    assert summary["means"]["accuracy"]["run"]["value"] == pytest.approx(19 / 6)
    assert summary["means"]["accuracy"]["other"]["value"] == pytest.approx(16 / 6)
    assert summary["judge"] is None
    for who, folder, i in (("run", runs[0], 0), ("other", runs[1], 1)):  # a judge who thinks the same, times 20
        rows = json.loads((folder / "responses.json").read_text())
        opinion = {rating.pairs[place].rows[who]: 20 * scores[i] for place, scores in enumerate(by_hand)}
        judge_rows(folder, rows, "another", dict.fromkeys(opinion, 3), "1-5")  # an older judge, and another scale
        judge_rows(folder, rows, "ours", opinion)
        judge_rows(folder, [row | {"model_response": "older"} for row in rows], "ours", dict.fromkeys(opinion, 50))
    judge = rating.summary()["judge"]
    assert judge["run"]["n"] == judge["other"]["n"] == 6
    assert judge["run"]["spearman"] == judge["other"]["spearman"] == pytest.approx(1)
    assert judge["preference"] == {"n": 5, "same": 5}
    rate_by_run(rating, 0, 1, 5)  # somebody changes their mind, and agrees no more
    judge = rating.summary()["judge"]
    assert judge["run"]["spearman"] < 0.5
    assert judge["preference"] == {"n": 5, "same": 4}


def test_what_cannot_be_compared_is_said(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the run itself"):
        Rating(runs[0], runs[0])
    with pytest.raises(ValueError, match="no entry in common"):
        Rating(runs[0], write_run(tmp_path / "elsewhere", {"another": "x"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"scripts\.evaluate"):
        Rating(runs[0], tmp_path / "empty")


def test_over_http_only_whole_ratings_of_pairs_that_exist_are_saved(runs: tuple[Path, Path], served: Served) -> None:
    rating = Rating(*runs)
    with running(make_app(served, rating=rating)) as url:
        good = body(1, 2, "right").model_dump()
        wrong = [
            good | {"preference": None}, good | {"preference": "A"}, good | {"left": {}},
            good | {"left": good["left"] | {"accuracy": 6}}, good | {"left": good["left"] | {"accuracy": 2.5}},
        ]  # fmt: skip
        for value in wrong:
            assert requests.post(f"{url}/rate/pairs/0", json=value, timeout=20).status_code == 400
        for place in ("12", "-1", "x", "٣", "9" * 30, "next"):
            assert requests.post(f"{url}/rate/pairs/{place}", json=good, timeout=20).status_code == 404, place
        assert not rating.path.exists()
        assert requests.get(f"{url}/rate/pairs/next", timeout=20).json() == rating.pair(0)
        assert requests.post(f"{url}/rate/pairs/0", json=good, timeout=20).json()["next"] == 1
        assert requests.get(f"{url}/rate/summary", timeout=20).json()["n_rated"] == 1
