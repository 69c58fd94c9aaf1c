"""Self-Instruct with teachers that answer well, badly and not at all."""

import itertools
import json
import re
from pathlib import Path
from random import Random

import pytest

from gpt.curation.self_instruct import (
    Pool,
    Task,
    filter_instances,
    instances,
    own_part,
    propose,
    propose_job,
    self_instruct,
    tasks_of,
    why_no_task,
)
from gpt.curation.teacher import Ask, Journal, Outcome, Teacher, made_by
from gpt.evaluation.chat_client import ChatError
from gpt.evaluation.metrics import rouge_l
from gpt.text.entries import load_entries

FIXTURE = Path(__file__).parents[1] / "fixtures" / "formats" / "seed_tasks.jsonl"
SEEDS = [
    Task(f"Say something about {word} in a short sentence.", (("", f"Here is {word}."),), False, f"s{i}")
    for i, word in enumerate("rivers bread clocks gardens trains winter salt paper wool tides".split())
] + [
    Task(f"Is the word a kind of {kind}?", (("pear", "yes"), ("lamp", "no")), True, f"c{i}")
    for i, kind in enumerate(("fruit", "tool", "bird"))
]
WORDS = ["apples", "boats", "candles", "doors", "eggs", "flutes", "gloves", "hats", "islands", "jars", "kites",
         "lakes", "moths", "nets", "oaks", "pears", "quilts", "roads", "shoes", "towns", "urns", "vines",
         "wells", "yards"]  # fmt: skip
TASKS = ["Tell of {}, {}, {} and {}, then {}.".format(*Random(i).sample(WORDS, 5)) for i in range(400)]


def good_teacher() -> Ask:
    fresh = iter(TASKS)

    def ask(prompt: str) -> str:
        if prompt.startswith("Think of new tasks"):
            first = int(re.findall(r"Task (\d+):", prompt)[-1])
            return "\n".join(f"Task {first + i}: {next(fresh)}" for i in range(4)).removeprefix(f"Task {first}:")
        if prompt.startswith("Is the answer"):
            return "No."
        return f"Input: (none)\nOutput: An answer to {len(prompt)} characters."

    return ask


def entries_of(results: list) -> list[dict]:
    done = sorted((job.order, outcome) for job, outcome in results if isinstance(outcome, Outcome))
    return [entry for _, outcome in done for entry in outcome.entries]


def test_seed_tasks_are_read_in_self_instructs_own_format() -> None:
    tasks = tasks_of(load_entries(FIXTURE))
    assert all(task.instances and task.id.startswith("seed_task_") for task in tasks)
    assert len({task.instruction for task in tasks}) == len(tasks) > 5
    assert {task.is_classification for task in tasks} >= {False}


def test_the_pool_grows_until_there_are_enough_entries(tmp_path: Path) -> None:
    results = list(self_instruct(SEEDS, 20, Journal(tmp_path / "j", {}), [Teacher("t", good_teacher())]))
    entries = entries_of(results)
    assert 20 <= len(entries) < 40
    assert {entry["made"]["round"] for entry in entries} >= {1, 2}
    assert all(entry["made"]["method"] == "self-instruct" and entry["made"]["teacher"] == "t" for entry in entries)
    parents = {parent for entry in entries for parent in entry["made"]["parent"]}
    assert parents & {task.id for task in SEEDS}
    assert parents - {task.id for task in SEEDS}  # later ones were shown machine-made examples
    assert all(len(entry["made"]["parent"]) == 8 for entry in entries)
    texts = {entry["instruction"] for entry in entries}
    assert max(rouge_l(a, b) for a, b in itertools.combinations(sorted(texts), 2)) <= 0.7


def test_of_the_examples_at_most_n_made_are_machine_made() -> None:
    made = [Task(text, (("", "x"),), False, f"m{i}") for i, text in enumerate(TASKS[:9])]
    prompt = propose_job(SEEDS, made, 8, 2, (1, 1, 1)).prompt
    assert sum(task.instruction in prompt for task in made) == 2
    assert sum(task.instruction in prompt for task in SEEDS) == 6
    assert prompt.endswith("Task 9:")
    assert (
        propose_job(SEEDS, made, 8, 2, (1, 1, 1)).prompt == prompt != propose_job(SEEDS, made, 8, 2, (1, 1, 2)).prompt
    )


def test_killed_after_any_line_it_ends_with_the_same_entries(tmp_path: Path) -> None:
    answers: dict[str, str] = {}

    def same(prompt: str) -> str:  # a teacher at temperature 0
        return answers[prompt]

    recorded = good_teacher()
    first = [Teacher("t", lambda prompt: answers.setdefault(prompt, recorded(prompt)))]
    whole = entries_of(list(self_instruct(SEEDS, 20, Journal(tmp_path / "j", {}), first, n_workers=1)))
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    for n in range(0, len(lines), 5):
        (tmp_path / "cut").write_bytes(b"".join(lines[:n]) + lines[n][:30])
        again = list(self_instruct(SEEDS, 20, Journal(tmp_path / "cut", {}), [Teacher("t", same)], n_workers=1))
        assert entries_of(again) == whole


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I'm sorry, I cannot help with that.",
        '{"tasks": [',
        "...",
        "It is a fine day.",
        '[{"question": "What", "answer": ',
    ],
)
def test_a_useless_teacher_gives_no_entry_a_reason_each_and_an_end(tmp_path: Path, reply: str) -> None:
    results = list(self_instruct(SEEDS, 20, Journal(tmp_path / "j", {}), [Teacher("t", lambda prompt: reply)], batch=2))
    assert entries_of(results) == []
    assert len(results) >= 20
    assert all(outcome.dropped or job.order[1] == 0 for job, outcome in results)
    assert sum(len(outcome.dropped) for _, outcome in results) >= 20


def test_a_dead_teacher_ends_it_and_a_failed_request_does_not(tmp_path: Path) -> None:
    def dead(prompt: str) -> str:
        raise ChatError("down")

    results = list(self_instruct(SEEDS, 20, Journal(tmp_path / "j", {}), [Teacher("t", dead)], batch=3))
    assert [isinstance(outcome, ChatError) for _, outcome in results] == [True] * 3
    ask, count = good_teacher(), itertools.count()

    def flaky(prompt: str) -> str:
        if next(count) % 7 == 3:
            raise ChatError("busy")
        return ask(prompt)

    results = list(self_instruct(SEEDS, 20, Journal(tmp_path / "j", {}), [Teacher("t", flaky)], n_workers=1))
    assert len(entries_of(results)) >= 20
    assert any(isinstance(outcome, ChatError) for _, outcome in results)


def test_similar_instructions_stay_out_also_in_chinese() -> None:
    pool = Pool(["Name three birds that can swim well.", "请写一首关于春天的短诗。"])
    assert pool.similar("Name four birds that can swim well.")[1] > 0.7
    assert pool.similar("请写一首关于秋天的短诗。")[0] == "请写一首关于春天的短诗。"
    assert pool.similar("Swim well.") is None
    for text in TASKS[:60]:  # the shortcut by shared words changes nothing
        slow = next((other for other, _ in pool.known if rouge_l(text, other) > 0.7), None)
        found = pool.similar(text)
        assert (found and found[0]) == slow
        pool.add(text)


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Draw a picture of a house.", "needs more than text: draw"),
        ("请描述这张图片的内容。", "needs more than text: 图片"),
        ("Sing it.", "fewer than 4 words"),
        ("word " * 151, "more than 150 words"),
        ("Write a program that sorts.", "a program as such, without saying which"),
        ("The request is very urgent.", "a statement that asks for nothing"),
        ("The word is long. How long?", None),
        ("I'd be happy to help you come up with tasks!", "a statement that asks for nothing"),
        ("Let me know if you need more tasks.", "a remark of the teacher"),
        ("Hope this helps you a lot!", "a remark of the teacher"),
        ("Let me know how bread is baked.", None),
        ("- Name three birds.", "begins as a heading or with a sign"),
        ("Input: a list of birds", "begins as a heading or with a sign"),
        ("Name three birds that swim.", None),
        ("请写一首关于春天的短诗。", None),
        ("Écris une phrase sur la mer.", None),
        ("Fill out the profile of a hero.", None),  # "profile" is not "file"
    ],
)
def test_the_form_of_an_instruction_is_checked(instruction: str, reason: str | None) -> None:
    assert why_no_task(instruction) == reason


def test_what_is_wrong_with_a_proposal_is_said_item_by_item() -> None:
    outcome = propose(lambda prompt: " Name a tree that bears nuts.\nTask 10: Draw it.\nTask 11: Sing.", "", ["a", "b"])
    assert outcome.kept == [{"instruction": "Name a tree that bears nuts.", "parents": ["a", "b"]}]
    assert [row["instruction"] for row in outcome.dropped] == ["Draw it.", "Sing."]


def test_a_reply_without_a_task_is_kept_as_what_was_dropped() -> None:
    reply = '[{"question": "What", "answer": '
    assert propose(lambda prompt: reply, "", []).dropped == [
        {"reason": "no list of tasks in the reply", "reply": reply}
    ]


def test_instances_are_filtered_each_with_its_reason() -> None:
    pairs = [("a", "b"), ("a", "c"), ("d", "d"), ("e", ""), ("f", "g"), ("f", "g"), ("h", "Here it is:"),
             ("", "[Your answer]"), ("k", "shown")]  # fmt: skip
    kept, dropped = filter_instances("Change the given word.", pairs, {("k", "shown")})
    assert kept == [("f", "g")]
    assert [row["reason"] for row in dropped] == [
        "one input with different outputs", "one input with different outputs",
        "the output repeats the input or the instruction", "no output", "the same instance again",
        "the output breaks off", "a placeholder instead of an output", "copied from an example",
    ]  # fmt: skip
    assert filter_instances("Sort the following words.", [("", "b, a")], set())[1][0]["reason"] == (
        "speaks of an input that is not there"
    )


def test_a_classification_task_is_asked_for_its_output_first() -> None:
    prompts = []

    def ask(prompt: str) -> str:
        prompts.append(prompt)
        if prompt.startswith("Is the answer"):
            return "Yes, it is."
        return "Output: yes\nInput: robin\nOutput: no\nInput: table\n\nTask: Another one\nOutput: x\nInput: y"

    outcome = instances(ask, "Is the word an animal?", SEEDS[-3:], SEEDS[:2], made_by("self-instruct"))
    assert [(e["input"], e["output"], e["kind"]) for e in outcome.entries] == [
        ("robin", "yes", "classification"), ("table", "no", "classification"),
    ]  # fmt: skip
    assert prompts[1].index("Output: yes\nInput: pear") > 0
    for reply, outputs in (("Birds sing.", ["Birds sing."]), ('{"answer": [', []), ("Well", [])):
        ask1 = lambda prompt, reply=reply: "No" if prompt.startswith("Is the") else reply  # noqa: E731
        outcome = instances(ask1, "Say what birds do.", SEEDS[-3:], SEEDS[:2], made_by("self-instruct"))
        assert [entry["output"] for entry in outcome.entries] == outputs  # whole sentences need no label
    ask2 = lambda prompt: "No" if prompt.startswith("Is the") else prompts.append(prompt) or "Output: Birds sing."  # noqa: E731
    outcome = instances(ask2, "Say what birds do.", SEEDS[-3:], SEEDS[:2], made_by("self-instruct"))
    assert outcome.entries[0]["output"] == "Birds sing." and outcome.entries[0]["input"] == ""
    assert "Input: (none)\nOutput: Here is" in prompts[-1]


def test_a_task_that_the_teacher_went_on_with_is_cut_off() -> None:
    assert own_part("Input: a\nOutput: b\n\nTask: Other\nOutput: c") == "Input: a\nOutput: b\n"
    assert own_part("Task: Same\nInput: a\nOutput: b\nTask 2: Other") == ": Same\nInput: a\nOutput: b\n"


def test_entries_can_be_written_as_json(tmp_path: Path) -> None:
    results = list(self_instruct(SEEDS, 4, Journal(tmp_path / "j", {}), [Teacher("t", good_teacher())]))
    (tmp_path / "out.json").write_text(json.dumps(entries_of(results)))
    assert len(load_entries(tmp_path / "out.json")) >= 4
