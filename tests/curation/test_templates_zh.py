"""Chinese template entries: each answer is worked out again from its prompt alone."""

import re
from collections import Counter

import pytest

from gpt.curation.templates_zh import (
    CAPITALS,
    CATEGORIES,
    DAYS,
    MEASURES,
    OPPOSITES,
    ROWS,
    in_words,
    make_chinese_entries,
)

ENTRIES = make_chinese_entries(24, 7)
DIGITS = {c: i for i, c in enumerate("零一二三四五六七八九")}


def number(text: str) -> int:
    """A Chinese number from 0 to 99, read by other rules than it was written by."""
    tens, found, ones = text.rpartition("十")
    return (DIGITS.get(tens, 1) if found else 0) * 10 + (DIGITS[ones] if ones else 0)


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def kind_of(word: str) -> str:
    [kind] = [kind for kind, members in CATEGORIES.items() if word in members]
    return kind


def listed(text: str) -> list[str]:
    return [word for members in CATEGORIES.values() for word in members if word in text]


def day_in(text: str) -> int:
    return next(i for i, day in enumerate(DAYS) if day in text)


CHECKS = {  # name: whether the output follows from the prompt
    "opposite": lambda p, a: any({a} < set(pair) and (set(pair) - {a}).pop() in p for pair in OPPOSITES),
    "capital": lambda p, a: any(country in p and city == a for country, city in CAPITALS.items()),
    "category": lambda p, a: kind_of(re.search("“(.*?)”", p)[1]) == a and a in p,
    "odd_one_out": lambda p, a: [w for w in listed(p) if Counter(map(kind_of, listed(p)))[kind_of(w)] == 1] == [a],
    "measure_word": lambda p, a: a[1:-len(a[2:])] == MEASURES[a[2:]] and a[2:] in p,
    "add": lambda p, a: sum(numbers(p)) == int(a),
    "subtract": lambda p, a: numbers(p)[0] - numbers(p)[1] == int(a) > 0,
    "number_words": lambda p, a: number(a) == numbers(p)[0],
    "sort_numbers": lambda p, a: numbers(a) == sorted(numbers(p)),
    "largest": lambda p, a: int(a) == max(numbers(p)),
    "day_after": lambda p, a: day_in(a) == (day_in(p) + 1) % 7,
    "day_before": lambda p, a: day_in(p) == (day_in(a) + 1) % 7,
    "who": lambda p, a: re.search(a + "在.+。", p),
    "where": lambda p, a: "在" + a in p,
    "negative": lambda p, a: a.replace("没有", "", 1) in p and "没有" in a,
    "question": lambda p, a: a.endswith("吗？") and a[:-2] + "。" in p,
    "count_characters": lambda p, a: any(len(s) == int(a) for s in re.findall(r"(?<![\w])(\w+在\w+)。", p)),
    "numbered_list": lambda p, a: "、".join(line[3:] for line in a.split("\n")) in p and a.startswith("1. "),
    "reverse": lambda p, a: a[::-1] in p and a[::-1] in listed(p),
}  # fmt: skip


@pytest.mark.parametrize("name", [row[0] for row in ROWS])
def test_every_answer_follows_from_its_prompt(name: str) -> None:
    rows = [entry for entry in ENTRIES if entry["source"] == f"template:zh_{name}"]
    assert len(rows) == 24
    for entry in rows:
        assert CHECKS[name](entry["instruction"] + "\n" + entry["input"], entry["output"]), entry


def test_no_prompt_comes_twice_and_no_slot_is_left() -> None:
    prompts = Counter((e["instruction"], e["input"]) for e in ENTRIES)
    assert max(prompts.values()) == 1
    assert not any("{" in text for e in ENTRIES for text in (e["instruction"], e["input"], e["output"]))
    assert {bool(e["input"]) for e in ENTRIES} == {True, False}


def test_the_seed_decides() -> None:
    assert make_chinese_entries(5, 1) == make_chinese_entries(5, 1) != make_chinese_entries(5, 2)
    with pytest.raises(ValueError, match="ask for fewer"):
        make_chinese_entries(60, 1)


def test_numbers_are_written_as_people_do() -> None:
    assert [in_words(n) for n in (0, 7, 10, 11, 20, 99)] == ["零", "七", "十", "十一", "二十", "九十九"]
    assert [number(in_words(n)) for n in range(100)] == list(range(100))
