"""Kinds, difficulty, quotas, clusters and the words that instructions open with."""

from collections import Counter
from pathlib import Path

import pytest

from gpt.curation.balance import (
    KINDS,
    LEVELS,
    MIX,
    ask_kind,
    clusters,
    difficulty,
    even_caps,
    kind_of,
    length_histogram,
    mix_quotas,
    verb_and_noun,
    verb_noun_table,
    within_quotas,
)
from gpt.text.entries import Entry, load_entries

ROOT = Path(__file__).parents[2]


def entry(instruction: str, output: str = "Yes.", input: str = "", **others: object) -> Entry:
    return {"instruction": instruction, "input": input, "output": output, **others}


@pytest.mark.parametrize(
    "instruction, kind",
    [
        ("Write a Python function that adds two numbers.", "code"),
        ("Translate the sentence.", "translation"),
        ("Tom has 3 apples and buys 4. How many has he?", "maths"),
        ("Summarise the article.", "summarising"),
        ("Is the sentiment of this review good?", "classification"),
        ("Extract the names.", "extraction"),
        ("Rewrite the sentence in a polite tone.", "rewriting"),
        ("Give me some tips for sleeping well.", "brainstorming"),
        ("Write a poem on autumn.", "generation"),
        ("Who built the tower?", "question_answering"),
        ("Hello there", "other"),
        ("把这句话翻译成英文。", "translation"),
        ("写一首关于秋天的诗。", "generation"),
        ("长城是谁修建的？", "question_answering"),
        ("请总结这篇文章。", "summarising"),
    ],
)
def test_rules_tell_the_kind(instruction: str, kind: str) -> None:
    assert kind_of(entry(instruction)) == kind and kind in KINDS


def test_a_kind_that_the_entry_names_stands_and_turns_are_a_conversation() -> None:
    assert kind_of(entry("Who?", kind="spelling")) == "spelling"
    assert kind_of(entry("Who?", turns=[{}, {}, {}, {}])) == "conversation"


@pytest.mark.parametrize(
    "reply, kind",
    [("code", "code"), ("**Question answering**.", "question_answering"), ("It is a translation task.", "translation"),
     ("code or maths", None), ("", None), ("I'm sorry, I cannot say.", None), ('{"kind": "maths"}', "maths"),
     ("<think>code, or generation?</think>\nmaths", "maths")],
)  # fmt: skip
def test_a_model_may_be_asked_and_may_fail_to_say(reply: str, kind: str | None) -> None:
    asked = []
    assert ask_kind(entry("Add 2 and 3.", input="2, 3"), lambda prompt: asked.append(prompt) or reply) == kind
    assert "Add 2 and 3." in asked[0] and all(name in asked[0] for name in KINDS)


def test_more_to_read_write_and_reason_is_harder() -> None:
    easy = entry("Name a fruit.", "A pear.")
    medium = entry("Explain why rivers bend.", "They bend as water wears away one bank. " * 2)
    hard = entry(
        "Compare the two plans and explain which must be chosen, in exactly five steps.", "First. " * 130, "A. " * 40
    )
    assert [difficulty(e) for e in (easy, medium, hard)] == list(LEVELS)
    chinese = entry("请分析并比较这两个方案，必须至少写五点，每个都要说明理由。", "方案" * 80, "甲乙" * 70)
    assert difficulty(chinese) == "hard"  # counted by character


def test_the_mix_is_met_exactly_where_it_can_be() -> None:
    assert mix_quotas({"easy": 100, "medium": 50, "hard": 90}, MIX) == {"easy": 30, "medium": 50, "hard": 20}
    assert mix_quotas({"easy": 9, "medium": 90, "hard": 90}, MIX) == {"easy": 9, "medium": 15, "hard": 6}
    assert mix_quotas({"easy": 9, "medium": 90, "hard": 90}, MIX, n=60) == {"easy": 9, "medium": 30, "hard": 12}
    with pytest.raises(ValueError, match="there is no 'hard' entry for the mix"):
        mix_quotas({"easy": 3, "medium": 1}, MIX)


def test_quotas_keep_what_they_say_and_explain_the_rest() -> None:
    labels = ["a"] * 10 + ["b"] * 3 + ["c"] * 2
    reasons = within_quotas(labels, {"a": 4, "b": 5})
    assert Counter(label for label, reason in zip(labels, reasons, strict=True) if not reason) == {
        "a": 4,
        "b": 3,
        "c": 2,
    }
    assert {reason for reason in reasons if reason} == {"a: 4 of 10 stay"}
    assert reasons == within_quotas(labels, {"a": 4, "b": 5}) != within_quotas(labels, {"a": 4, "b": 5}, seed=7)


@pytest.mark.parametrize("n, sizes", [(9, [2, 3, 4]), (7, [2, 2, 3]), (99, [2, 3, 10]), (0, [0, 0, 0])])
def test_even_caps_cut_the_largest_groups_first(n: int, sizes: list[int]) -> None:
    quotas = even_caps(["a"] * 10 + ["b"] * 3 + ["c"] * 2, n)
    assert [quotas[label] for label in "cba"] == sizes


def test_clusters_put_like_with_like() -> None:
    pytest.importorskip("sklearn", reason="pip install -e '.[curate]'")
    tea = [f"Brew green tea in pot {i}, with hot water and leaves." for i in "abcdefgh"]
    sea = [f"Which ship sailed the ocean under captain {i}?" for i in "abcdefgh"]
    labels, names = clusters([entry(text) for text in tea + sea], 2)
    assert len(set(labels[:8])) == len(set(labels[8:])) == 1 and labels[0] != labels[-1]
    assert set(names[labels[0]].split()) & {"tea", "brew", "green", "water", "leaves", "pot", "hot"}
    assert clusters([entry("Same."), entry("Same.")], 5) == ([0, 0], ["all"])


@pytest.mark.parametrize(
    "instruction, pair",
    [
        ("Please write a short story about a fox.", ("write", "story")),
        ("Name three colors.", ("name", "color")),
        ("Give me a list of cities in Peru.", ("give", "list")),
        ("You are a cook. Summarize the following recipes.", ("summarize", "recipe")),
        ("What is the capital of Peru?", None),
        ("写一首诗", None),
        ("", None),
    ],
)
def test_verb_and_noun_of_an_instruction(instruction: str, pair: tuple[str, str] | None) -> None:
    assert verb_and_noun(instruction) == pair


def test_the_table_of_verbs_and_nouns_counts_pairs() -> None:
    rows = [entry("Write a story.")] * 3 + [entry("Write a poem.")] + [entry("Name a poem.")] * 2
    assert verb_noun_table(rows) == (["write", "name"], ["story", "poem"], [[3, 1], [0, 2]])


def test_lengths_are_counted_by_character_in_chinese() -> None:
    rows = [entry("a", ""), entry("a", "one"), entry("a", "茶在中国人的生活里"), entry("a", "word " * 1200)]
    counts = {name: n for name, n in length_histogram(rows).items() if n}
    assert counts == {"0": 1, "1-4": 1, "5-9": 1, "1000+": 1}


def test_our_own_entries_have_all_levels_of_kinds() -> None:
    entries = load_entries(ROOT / "data" / "instructions.json")
    assert sum(length_histogram(entries).values()) == len(entries)
    assert {difficulty(e) for e in entries} >= {"easy", "medium"}
