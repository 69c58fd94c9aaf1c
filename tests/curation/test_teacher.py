"""Jobs for a teacher: kept as they end, gone on with after a kill, counted before they begin."""

import json
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from gpt.curation.teacher import (
    PRICES,
    Ask,
    Estimate,
    Job,
    Journal,
    Outcome,
    Teacher,
    drop,
    estimate,
    is_hard,
    key_of,
    made_by,
    n_tokens,
    paced,
    price_of,
    run_jobs,
    run_until,
)
from gpt.evaluation.chat_client import ChatError


def work(ask: Ask, name: str) -> Outcome:
    reply = ask(name)
    if not reply:
        return Outcome(dropped=[drop("nothing", instruction=name)])
    return Outcome([{"instruction": name, "input": "", "output": reply, "made": made_by("test", name)}])


def jobs(*names: str, hard: str = "") -> list[Job]:
    return [Job(key_of(name), (i,), name, partial(work, name=name), hard=name in hard) for i, name in enumerate(names)]


def outputs(results: list) -> dict[str, list[str]]:
    return {job.prompt: [entry["output"] for entry in outcome.entries] for job, outcome in results}


def test_every_outcome_is_in_the_journal_before_it_is_handed_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    teacher = Teacher("echo", lambda prompt: "" if prompt == "b" else prompt.upper())
    for n, (job, outcome) in enumerate(run_jobs(jobs("a", "b", "c"), Journal(path, {}), [teacher], 1), 1):
        rows = [json.loads(line) for line in path.read_text().splitlines()][1:]
        assert job.key in {row["job"] for row in rows}
        assert len(rows) >= n
        assert outcome.entries or outcome.dropped
    assert Journal(path, {}).usage() == Counter(requests=3, prompt_tokens=3, reply_tokens=2)


def test_entries_say_who_made_them(tmp_path: Path) -> None:
    [(_, outcome)] = run_jobs(jobs("a"), Journal(tmp_path / "j", {}), [Teacher("echo", str.upper)])
    assert outcome.entries[0]["made"] == {"method": "test", "parent": "a", "teacher": "echo"}


def test_what_is_in_the_journal_is_not_asked_again_even_after_half_a_line(tmp_path: Path) -> None:
    path, asked = tmp_path / "j", []
    teacher = Teacher("t", lambda prompt: asked.append(prompt) or prompt.upper())
    list(run_jobs(jobs("a", "b"), Journal(path, {"k": 8}), [teacher]))
    path.write_bytes(path.read_bytes() + b'{"job": "' + key_of("c").encode() + b'", "entr')
    results = list(run_jobs(jobs("a", "b", "c"), Journal(path, {"k": 8}), [teacher]))
    assert sorted(asked) == ["a", "b", "c"]
    assert outputs(results) == {"a": ["A"], "b": ["B"], "c": ["C"]}
    assert len(Journal(path, {"k": 8}).lines) == 3


def test_for_what_is_dropped_more_jobs_follow_three_times_as_many_at_the_most(tmp_path: Path) -> None:
    def number_jobs(n: int, start: int) -> list[Job]:
        return jobs(*map(str, range(start, start + n)))

    half = Teacher("half", lambda prompt: "" if int(prompt) % 2 else prompt)
    for teacher, n_jobs, n_entries in ((half, 7, 4), (Teacher("none", lambda prompt: ""), 12, 0)):
        results = list(run_until(4, number_jobs, Journal(tmp_path / teacher.name, {}), [teacher]))
        assert sorted(int(job.prompt) for job, _ in results) == list(range(n_jobs))
        assert sum(len(outcome.entries) for _, outcome in results) == n_entries

    def dead(prompt: str) -> str:
        raise ChatError("down")

    results = list(run_until(4, number_jobs, Journal(tmp_path / "dead", {}), [Teacher("dead", dead)]))
    assert len(results) == 4  # others would be made besides, when these are asked again


def test_other_settings_are_an_error_that_names_them(tmp_path: Path) -> None:
    Journal(tmp_path / "j", {"k": 8, "teacher": "a"})
    Journal(tmp_path / "j", {"k": 8, "teacher": "a"})
    with pytest.raises(ValueError, match=r"other settings \(k\)"):
        Journal(tmp_path / "j", {"k": 6, "teacher": "a"})


def test_a_failed_request_is_no_outcome_and_is_asked_again(tmp_path: Path) -> None:
    def ask(prompt: str) -> str:
        if prompt == "b":
            raise ChatError("down")
        return prompt

    found = {
        job.prompt: outcome
        for job, outcome in run_jobs(jobs("a", "b"), Journal(tmp_path / "j", {}), [Teacher("t", ask)])
    }
    assert isinstance(found["b"], ChatError)
    results = run_jobs(jobs("a", "b"), Journal(tmp_path / "j", {}), [Teacher("t", str.upper)])
    assert outputs(list(results)) == {"a": ["a"], "b": ["B"]}


def test_a_row_that_comes_twice_is_asked_once_and_said_to_be_dropped(tmp_path: Path) -> None:
    asked = []
    teacher = Teacher("t", lambda prompt: asked.append(prompt) or "x")
    for _ in range(2):  # fresh, and from the journal
        found = [o for _, o in run_jobs(jobs("a", "a"), Journal(tmp_path / "j", {}), [teacher])]
        assert sum(len(o.entries) for o in found) == 1
        assert [row["reason"] for o in found for row in o.dropped] == ["the same as an earlier row"]
    assert asked == ["a"]


def test_half_a_character_does_not_break_the_journal(tmp_path: Path) -> None:
    [(_, outcome)] = run_jobs(jobs("a"), Journal(tmp_path / "j", {}), [Teacher("t", lambda prompt: "so \ud83d")])
    assert outcome.entries[0]["output"] == "so ?"
    assert Journal(tmp_path / "j", {}).get(key_of("a")) == outcome


def test_hard_jobs_go_to_the_strong_teacher(tmp_path: Path) -> None:
    teachers = [Teacher("cheap", lambda prompt: "cheap"), Teacher("strong", lambda prompt: "strong")]
    results = run_jobs(jobs("a", "b", hard="b"), Journal(tmp_path / "j", {}), teachers)
    assert outputs(list(results)) == {"a": ["cheap"], "b": ["strong"]}


@pytest.mark.parametrize(
    ("instruction", "hard"),
    [
        ("Name a bird.", False),
        ("Compare two birds.", False),
        ("Derive the formula and explain it step by step.", True),
        ("比较两种排序算法。", True),
        ("word " * 130, True),
    ],
)
def test_difficulty_is_seen_in_length_and_words(instruction: str, hard: bool) -> None:
    assert is_hard({"instruction": instruction, "input": "", "output": ""}) is hard


# ---- limits ----


def test_workers_ask_side_by_side(tmp_path: Path) -> None:
    barrier = threading.Barrier(3, timeout=20)  # broken, unless three ask at the same time

    def ask(prompt: str) -> str:
        barrier.wait()
        return prompt

    results = list(run_jobs(jobs("a", "b", "c"), Journal(tmp_path / "j", {}), [Teacher("t", ask)], n_workers=3))
    assert len(outputs(results)) == 3


def test_requests_keep_their_distance_whoever_asks() -> None:
    begun: list[float] = []
    ask = paced(lambda prompt: begun.append(time.monotonic()) or "", per_minute=1200)
    threads = [threading.Thread(target=ask, args=("",)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun.sort()
    assert begun[-1] - begun[0] >= 4 * 0.05 * 0.9


def test_a_stopped_run_does_not_wait_for_its_turn() -> None:
    stop = threading.Event()
    stop.set()
    ask = paced(str.upper, 1, stop)
    start = time.monotonic()
    assert [ask("a"), ask("b"), ask("c")] == ["A", "B", "C"]
    assert time.monotonic() - start < 5


# ---- the estimate ----


def test_the_estimate_counts_tokens_dollars_and_seconds() -> None:
    job = jobs("one two three four")[0]._replace(n_asks=2, reply_tokens=100)
    assert n_tokens(job.prompt) == 4
    found = estimate([job] * 1000, [Teacher("x", str, (1.0, 10.0))], n_workers=5, speed=50)
    assert found == Estimate(2000, 8000, 200_000, pytest.approx(0.008 + 2.0), 800.0)
    assert "$2.01" in str(found) and "13 min" in str(found)
    assert estimate([job] * 30, [Teacher("x", str)], per_minute=10, speed=1e9).seconds == 360
    assert estimate([job], [Teacher("x", str, None)]).dollars is None
    assert "unknown price" in str(estimate([job], [Teacher("x", str, None)]))


def test_the_estimate_takes_each_job_at_its_teachers_price() -> None:
    teachers = [Teacher("cheap", str, (0.0, 0.0)), Teacher("strong", str, (0.0, 1e4))]
    assert estimate(jobs("a", "b", hard="b"), teachers).dollars == pytest.approx(1.2)


def test_prices_are_found_by_name_and_unknown_ones_are_not_called_free() -> None:
    assert price_of("gpt-4o-mini-2024-07-18", False, PRICES) == PRICES["gpt-4o-mini"]
    assert price_of("gpt-4o-mini", False, PRICES | {"gpt-4o-mini": (1.0, 2.0)}) == (1.0, 2.0)
    assert price_of("some-model", True, PRICES) == (0.0, 0.0)
    assert price_of("some-model", False, PRICES) is None
