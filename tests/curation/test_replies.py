"""What a teacher wrote, read: a table of replies that are whole, broken, wrapped, cut off, refused or nothing."""

import json

import pytest

from gpt.curation.replies import (
    labelled_parts,
    listed_items,
    objects_in,
    text_of,
    why_unusable,
    without_fence,
)

PAIR = {"question": "Why?", "answer": "So."}
GOOD = '{"question": "Why?", "answer": "So."}'


@pytest.mark.parametrize(
    "reply",
    [
        GOOD,
        f"[{GOOD}]",
        f"Sure! Here it is:\n```json\n[{GOOD}]\n```\nI hope this helps.",
        f'{{"pairs": [{GOOD}]}}',
        '{"question": "Why?", "answer": "So.",}',
        f'[{GOOD}, {{"question": "What else',  # cut off
        f"<think>They want {{}} or []</think>\n{GOOD}",
        "{'question': 'Why?', 'answer': 'So.'}",
        '{question: "Why?", answer: "So."}',
        "{“question”: “Why?”, “answer”: “So.”}",
        f"A set such as {{1, 2}} is none. {GOOD} Nor is {{this}}.",
    ],
)
def test_an_object_is_found_in(reply: str) -> None:
    assert [record for record in objects_in(reply) if record] == [PAIR]


@pytest.mark.parametrize(
    "reply",
    [
        f'{{"1": {GOOD}, "2": {GOOD}}}',
        f'{{"topic": "birds", "source": "a book", "pairs": [{GOOD}, {GOOD}]}}',
        f'{{"data": {{"topic": "birds", "pairs": [{GOOD}, {GOOD}]}}}}',
        '{"question 1": "Why?", "answer 1": "So.", "question_2": "Why?", "answer_2": "So."}',
    ],
)
def test_objects_are_found_in_what_wraps_them(reply: str) -> None:
    assert objects_in(reply) == [PAIR, PAIR]


def test_what_has_an_answer_of_its_own_wraps_nothing() -> None:
    record = PAIR | {"sources": [{"title": "a book"}]}
    assert objects_in(json.dumps(record)) == [record]
    assert objects_in('{"1": "Why?", "2": "So."}') == [{"1": "Why?", "2": "So."}]
    assert objects_in('{"a":' * 900 + "{}" + "}" * 900) in ([{}], [])  # however deep


def test_names_that_are_no_text_become_some() -> None:
    """As a model may write Python in place of JSON; the search for hostile bytes found it."""
    assert objects_in('{1: "Why?", None: "So."}') == [{"1": "Why?", "None": "So."}]
    assert objects_in('{1: "a bird", "pairs": []}') == [{"1": "a bird", "pairs": []}]


def test_line_breaks_inside_a_string_do_not_break_it() -> None:
    assert objects_in('{"answer": "one\ntwo"}') == [{"answer": "one\ntwo"}]


@pytest.mark.parametrize(
    "reply", ["", "No.", "{", "{]", "[1, 2]", '{"a": ', "{" * 5000, '{"a":' * 5000, "{__import__('os')}"]
)
def test_no_object_is_made_up_out_of(reply: str) -> None:
    assert objects_in(reply) == []


def test_text_is_found_under_any_of_its_names() -> None:
    assert text_of({"Q": "Why?", "n": 4, "flag": True}, "question", "q") == "Why?"
    assert text_of({"n": 4}, "n") == "4"
    assert text_of({"flag": True, "list": ["a"]}, "flag") == text_of({"list": ["a"]}, "list") == ""


def test_items_of_a_list_are_read_whichever_way_they_are_numbered() -> None:
    assert listed_items("Name a bird.\n10. Name a fish.\nTask 11: **Name a tree.**\n12) Sort these:\n- b\n- a") == [
        "Name a bird.", "Name a fish.", "Name a tree.", "Sort these:\n- b\n- a",
    ]  # fmt: skip
    assert listed_items("Sure, here are some tasks.\n1. Name a bird.") == ["Name a bird."]
    assert listed_items("Here are more:\n1、说出一种鸟。\n2、写一首诗。") == ["说出一种鸟。", "写一首诗。"]
    assert listed_items("") == []


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("Tell the time.\n10:30 is the time.\n2. Name a fish.", ["Tell the time.\n10:30 is the time.", "Name a fish."]),
        ("1. Round it.\n3.5 million people\n2.Name a fish.", ["Round it.\n3.5 million people", "Name a fish."]),
        ("I'd be happy to help you with tasks.\n\n1. Name a fish.", ["Name a fish."]),
        (
            "I am happy with my car. Write a review.\n2. Name a fish.",
            ["I am happy with my car. Write a review.", "Name a fish."],
        ),
        ("I'd love to come up with more.\n\n1. Name a fish.\n\nI'll do my best to help.", ["Name a fish."]),
        ("What a fine idea for a list!\n1. Name a fish.", ["Name a fish."]),
        ("1. Name a fish.\n\nLet me know if you need more tasks.", ["Name a fish."]),
        ("1. Name a fish.\n2. I'd be glad of a rhyme.", ["Name a fish.", "I'd be glad of a rhyme."]),
        ("1. Mend this letter:\n\nI hope you are well.", ["Mend this letter:\n\nI hope you are well."]),
    ],
)
def test_numbers_in_a_text_and_remarks_around_a_list_are_no_items(reply: str, items: list[str]) -> None:
    assert listed_items(reply) == items


def test_labelled_parts_begin_anew_where_a_name_comes_again() -> None:
    reply = "Here you are.\n**Input:** 2 + 3\n**Output:** 5\n\nInput 2: a\nb\nOutput 2: c"
    assert labelled_parts(reply, ("input", "output")) == [
        {"input": "2 + 3", "output": "5"},
        {"input": "a\nb", "output": "c"},
    ]
    assert labelled_parts("I like it.", ("input", "output")) == []


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "Sorry.",
        "I cannot provide that information.",
        "I’m unable to assist.",
        "Unfortunately, I can't create images.",
        "As an AI language model, I have no feelings.",
        "很抱歉，我无法回答这个问题。",
        "作为一个人工智能，我没有情感。",
        "我不能提供这方面的帮助。",
    ],
)
def test_a_refusal_is_seen(text: str) -> None:
    assert why_unusable(text) == "the teacher refused"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry for coming late to your party. I missed the bus.",
        "I cannot wait to see you in June!",
        "A sorry sight met them.",
        "Sorry about the window; my ball went astray.",
        "As an airline, we fly daily.",
        "我不能吃花生，因为我过敏。",
        "Asian food is varied.",
    ],
)
def test_no_refusal_is_seen_in(text: str) -> None:
    assert why_unusable(text) is None


def test_nothing_signs_and_thoughts_alone_are_unusable() -> None:
    assert why_unusable(" \n") == "the teacher said nothing" == why_unusable("<think>Well, 5 is")
    assert why_unusable("...") == "the reply has no word"
    assert why_unusable("5") is None


def test_a_fence_is_taken_off() -> None:
    assert without_fence("Here:\n```python\nx = 1\n```\nDone.") == "x = 1"
    assert without_fence("```\nx = 1") == "x = 1"
    assert without_fence("x = 1") == "x = 1"
