"""Evol-Instruct: ways, rounds with a history, and what is eliminated."""

from pathlib import Path

import pytest

from gpt.curation.evol_instruct import OPERATIONS, evol_instruct, evolve, evolve_job, why_no_answer, why_not_evolved
from gpt.curation.teacher import Journal, Outcome, Teacher, entry_id
from gpt.evaluation.chat_client import ChatError

ENTRIES = [
    {"instruction": "Name a fruit.", "input": "", "output": "A pear."},
    {"instruction": "Add the numbers.", "input": "3, 5", "output": "8"},
    {"instruction": "Say how bread is baked.", "input": "", "output": "In an oven."},
]


def old_text(prompt: str, name: str = "instruction") -> str:
    return prompt.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0]


def teacher(prompt: str) -> str:
    if "<first>" in prompt:
        return "No, they differ."
    if "<instruction>" in prompt:
        return f"New instruction: {old_text(prompt)} Then give two reasons for it."
    return "A long and useful answer of many kinds."


def run(tmp_path: Path, ask, rounds: int = 3, entries: list = ENTRIES, **others: object) -> list:
    return list(evol_instruct(entries, rounds, Journal(tmp_path / "j", {}), [Teacher("t", ask)], **others))


def entries_of(results: list) -> list[dict]:
    done = sorted((job.order, outcome) for job, outcome in results if isinstance(outcome, Outcome))
    return [entry for _, outcome in done for entry in outcome.entries]


def test_every_round_goes_on_from_the_one_before_and_the_history_tells_it(tmp_path: Path) -> None:
    made = entries_of(run(tmp_path, teacher))
    assert len(made) == 9
    first, second, third = made[0], made[3], made[6]
    assert [len(e["history"]) for e in (first, second, third)] == [1, 2, 3]
    assert [step["instruction"] for step in third["history"]] == [
        "Name a fruit.", first["instruction"], second["instruction"],
    ]  # fmt: skip
    assert third["instruction"].count("Then give two reasons for it.") == 3
    assert third["made"]["parent"] == entry_id(second)
    assert first["made"]["parent"] == entry_id(ENTRIES[0])
    assert (third["made"]["round"], third["made"]["teacher"]) == (3, "t")
    assert third["made"]["method"] == "evol-instruct:" + third["history"][-1]["operation"]
    assert made[1]["instruction"].startswith("Add the numbers.\n\n3, 5")  # the input is part of what evolves
    assert all(e["output"] and e["input"] == "" for e in made)


def test_all_six_ways_are_drawn_and_can_be_chosen() -> None:
    entries = [{"instruction": f"Name thing {i}.", "input": "", "output": ""} for i in range(60)]
    drawn = {evolve_job(e, 1, i, 7, list(OPERATIONS)).work.keywords["operation"] for i, e in enumerate(entries)}
    assert drawn == set(OPERATIONS) == {
        "constraints", "deepen", "concretize", "reasoning", "complicate_input", "breadth",
    }  # fmt: skip
    assert "rarer" in evolve_job(entries[0], 1, 0, 7, ["breadth"]).prompt
    with pytest.raises(ValueError, match="no ways to evolve"):
        list(evol_instruct(entries, 1, None, [], operations=["wider"]))


def test_what_failed_goes_into_the_next_round_as_it_was(tmp_path: Path) -> None:
    n = 0

    def ask(prompt: str) -> str:
        nonlocal n
        if "<instruction>" in prompt and old_text(prompt) == "Name a fruit." and n == 0:
            n = 1
            return "I'm sorry, I can't do that."
        return teacher(prompt)

    results = run(tmp_path, ask, rounds=2, n_workers=1)
    assert len(entries_of(results)) == 5
    assert [len(e["history"]) for e in entries_of(results) if e["history"][0]["instruction"] == "Name a fruit."] == [1]
    assert [o.dropped[0]["reason"] for _, o in results if o.dropped] == ["the teacher refused"]


def test_one_that_could_not_be_asked_does_not_hold_up_the_others(tmp_path: Path) -> None:
    def ask(prompt: str) -> str:
        if "<instruction>" in prompt and old_text(prompt) == "Name a fruit.":
            raise ChatError("busy")
        return teacher(prompt)

    assert len(entries_of(run(tmp_path, ask, rounds=2))) == 4
    again = run(tmp_path, teacher, rounds=2)
    assert len(entries_of(again)) == 6


def test_a_second_run_asks_nothing(tmp_path: Path) -> None:
    made = entries_of(run(tmp_path, teacher))
    assert entries_of(run(tmp_path, lambda prompt: pytest.fail("asked"))) == made


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([""], "the teacher said nothing"),
        (["Name a fruit."], "no gain: it is the original"),
        (["name a fruit!"], "no gain: it is the original"),
        (["The rewritten prompt asks for a rare fruit."], "it speaks of the request"),
        (["Fruit."], "fewer than three words"),
        (["fruit " * 300], "it ran away: three times as long and more"),
        (["Name a rare fruit.", "Yes."], "no gain: the teacher finds it asks for the same"),
        (["Name a rare fruit.", "No", ""], "the teacher said nothing"),
        (["Name a rare fruit.", "No", "I am sorry, it is a fig?"], "a short answer with sorry in it"),
        (["Name a rare fruit.", "No", "It is what it is."], "the answer has no content: stop words only"),
    ],
)
def test_the_elimination_step(replies: list[str], reason: str) -> None:
    said = iter(replies)
    outcome = evolve(lambda prompt: next(said), "p", ENTRIES[0], "deepen", 1)
    assert outcome.entries == []
    assert outcome.dropped[0]["reason"] == reason
    assert outcome.dropped[0]["operation"] == "deepen"
    assert list(said) == []  # and no question more than it takes


def test_numbers_long_apologies_and_texts_about_prompts_are_no_failures() -> None:
    assert why_no_answer("42") is None
    assert why_no_answer("Dear Ms Roe, I am sorry. " + "We lost it on the way home. " * 20) is None
    assert why_no_answer("水") is None
    old = "Explain the rewritten prompt of 1990."
    assert why_not_evolved(old, old + " Use two steps.") is None
    assert why_not_evolved("Explain the play.", old) == "it speaks of the request"
