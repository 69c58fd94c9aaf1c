import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.text.entries import EntryError, entries_sha256, load_entries, read_entries
from gpt.text.formats import FORMATS, find_format, record_to_entries

REAL = Path(__file__).parent.parent / "fixtures" / "formats"


def real(name: str) -> list[dict]:
    """The records of an excerpt as they stand in the file."""
    return [json.loads(line) for line in (REAL / name).read_text(encoding="utf-8").splitlines()]


def convert(record: dict) -> tuple[list[dict], dict[str, int]]:
    entries, counts = record_to_entries(record)
    return entries, dict(counts)


def say(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def reply(text: str, rank: int | None, *replies: dict, role: str = "assistant", **others: object) -> dict:
    return {"text": text, "role": role, "rank": rank, "replies": list(replies)} | others


def ask(text: str, *replies: dict) -> dict:
    return reply(text, None, *replies, role="prompter")


# ---- every format by hand ----

SAME = {"instruction": "Name a bird.", "input": "in Europe", "output": "A robin."}
HELLO = {"instruction": "Hi.", "input": "", "output": "Hello."}
ONE_ENTRY = {  # records that give SAME, or SAME without the input, and the fields that go along
    "alpaca": {"instruction": "Name a bird.", "input": "in Europe", "output": "A robin.", "kind": "naming"},
    "dolly": {"instruction": "Name a bird.", "context": "in Europe", "response": "A robin.", "category": "open_qa"},
    "self_instruct": {"instruction": "Name a bird.", "instances": [{"input": "in Europe", "output": "A robin."}]},
    "question_answer": {"question": "Name a bird.", "context": "in Europe", "answer": "A robin.", "source": "us"},
    "prompt_completion": {"prompt": "Name a bird.", "completion": "A robin.", "id": 7},
    "chat": {"messages": [say("user", "Name a bird."), say("assistant", "A robin.")], "id": "x"},
    "open_assistant": {"prompt": ask("Name a bird.", reply("A robin.", 0)), "message_tree_id": "t"},
}


@pytest.mark.parametrize("name", ONE_ENTRY)
def test_each_format_gives_our_fields_and_keeps_the_others(name: str) -> None:
    record = ONE_ENTRY[name]
    has_input = "in Europe" in json.dumps(record)
    others = {
        field: record[field] for field in ("kind", "category", "id", "source", "message_tree_id") if field in record
    }
    assert convert(record) == ([SAME | ({} if has_input else {"input": ""}) | others], {name: 1})


def test_the_table_of_formats_is_tested_whole() -> None:
    assert set(ONE_ENTRY) == {form.name for form in FORMATS}


def test_conversations_are_read_in_every_dialect() -> None:
    dialects = [
        {"messages": [say("user", "Hi."), say("assistant", "Hello.")]},
        {"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Hello."}]},
        {"conversations": [{"from": "User", "value": "Hi."}, {"from": "bot", "value": "Hello."}]},
        {"messages": [{"from": "human", "content": "Hi."}, {"role": "Assistant", "value": "Hello."}]},
    ]
    assert [convert(record) for record in dialects] == [([HELLO], {"chat": 1})] * 4


def test_self_instruct_gives_an_entry_for_each_instance() -> None:
    instances = [{"input": "2", "output": "4"}, {"input": None, "output": "", "id": "b"}, {"input": "3", "output": "6"}]
    entries, counts = convert({"id": "a", "instruction": "Double it.", "instances": instances})
    assert [(entry["input"], entry["output"], entry["id"]) for entry in entries] == [
        ("2", "4", "a"),
        ("", "", "b"),  # an empty output is kept: the data set drops it, with a count
        ("3", "6", "a"),
    ]
    assert counts == {"self_instruct": 1, "clashing_fields": 1}  # the record's id in the second one
    assert convert({"instruction": "Double it.", "instances": []}) == ([], {"self_instruct": 1, "no_entry": 1})


def test_fields_that_clash_are_counted() -> None:
    record = {"instruction": "a", "context": "b", "input": "c", "response": "d"}
    entry = {"instruction": "a", "input": "b", "output": "d"}
    assert convert(record) == ([entry], {"dolly": 1, "clashing_fields": 1})
    for context, text, expected in ((None, "c", "c"), ("b", None, "b"), (None, None, "")):  # what is null clashes not
        record = {"instruction": "a", "context": context, "input": text, "response": "d"}
        assert convert(record) == ([{"instruction": "a", "input": expected, "output": "d"}], {"dolly": 1})


def test_only_a_whole_input_is_a_marker_of_no_input() -> None:
    markers = ["<noinput>", "noinput", "Noinput", "<no input>", "No input", " <NoInput>\n"]
    texts = ["What does <noinput> mean?", "no input was given", "<noinput", "none", ""]
    for text in markers + texts:
        record = {"instruction": "Do it.", "input": text, "output": "Done."}
        nested = {"instruction": "Do it.", "instances": [{"input": text, "output": "Done."}]}
        expected = "" if text in markers else text
        assert [convert(r)[0][0]["input"] for r in (record, nested)] == [expected] * 2
        assert convert(record)[1].get("no_input_markers", 0) == (text in markers)
    wrong = [text for text in texts if "noinput" in text.lower() or "no input" in text.lower()]
    assert len(wrong) == 3  # a search for the marker inside the text would empty these


def test_options_are_the_input_of_a_question_or_end_it() -> None:
    record = {"question": "Which is a bird?", "answer": "Owl", "options": ["Cat", "Owl"]}
    assert convert(record)[0] == [
        {"instruction": "Which is a bird?", "input": "Cat\nOwl", "output": "Owl", "options": ["Cat", "Owl"]}
    ]
    for more, expected in (
        ({"context": "At night."}, "At night.\nCat\nOwl"),
        ({"options": {"A": "Cat", "B": "Owl"}}, "A. Cat\nB. Owl"),
        ({"options": [3, 4.5], "context": ""}, "3\n4.5"),
        ({"options": None, "context": "At night."}, "At night."),
        ({"options": [], "context": None}, ""),
    ):
        assert convert(record | more)[0][0]["input"] == expected


# ---- conversations ----


def test_the_first_exchange_becomes_the_entry_and_the_later_ones_are_kept_and_counted() -> None:
    messages = [
        say("system", "Be brief."),
        say("user", "Who wrote Emma?"),
        say("assistant", "Jane Austen."),
        say("user", "When?"),
        say("assistant", "1815."),
        say("user", "Thanks."),
    ]
    entries, counts = convert({"messages": messages})
    assert entries == [
        {
            "instruction": "Who wrote Emma?",
            "input": "",
            "output": "Jane Austen.",
            "turns": messages[1:],
            "system": "Be brief.",
        }
    ]
    assert counts == {"chat": 1, "later_turns": 1, "unanswered": 1, "system_messages": 1}
    pairs = [(a["content"], b["content"]) for a, b in zip(messages[1::2], messages[2::2], strict=False)]
    assert ("When?", "1815.") in pairs  # the wrong variant teaches to answer a question that nobody could answer


def test_a_system_message_beside_the_conversation_is_kept_too() -> None:
    messages = [say("user", "Hi."), say("system", "Be kind."), say("assistant", "Hello.")]
    entries, counts = convert({"system": "Be brief.", "messages": messages})
    assert entries == [{"instruction": "Hi.", "input": "", "output": "Hello.", "system": "Be brief.\n\nBe kind."}]
    assert counts == {"chat": 1, "system_messages": 2}
    assert convert({"system": "", "messages": messages[::2]}) == ([HELLO], {"chat": 1})


def test_messages_of_one_role_in_a_row_are_one_turn() -> None:
    messages = [say("user", "One thing."), say("user", "When?"), say("assistant", "Now."), say("assistant", "Or not.")]
    entries, counts = convert({"messages": messages})
    assert entries == [{"instruction": "One thing.\n\nWhen?", "input": "", "output": "Now.\n\nOr not."}]
    assert counts == {"chat": 1, "joined_messages": 2}


def test_what_an_assistant_says_first_is_in_the_turns_only() -> None:
    messages = [say("assistant", "Welcome!"), say("user", "Hi."), say("assistant", "Hello.")]
    entries, counts = convert({"messages": messages})
    assert entries == [{"instruction": "Hi.", "input": "", "output": "Hello.", "turns": messages}]
    assert counts == {"chat": 1, "opening_replies": 1}


def test_a_conversation_without_an_answered_prompt_gives_no_entry_and_is_counted() -> None:
    assert convert({"messages": []}) == ([], {"chat": 1, "no_entry": 1})
    assert convert({"messages": [say("user", "Hi.")]}) == ([], {"chat": 1, "no_entry": 1, "unanswered": 1})
    blank = {"messages": [say("user", " "), say("assistant", "What?")]}
    assert convert(blank) == ([], {"chat": 1, "no_entry": 1, "empty_prompts": 1})
    silent = {"messages": [say("user", "Hi."), say("assistant", "")]}
    assert convert(silent) == ([{"instruction": "Hi.", "input": "", "output": ""}], {"chat": 1})


@given(st.lists(st.sampled_from(["user", "assistant", "system"])))
def test_every_message_is_in_the_entry_or_counted(roles: list[str]) -> None:
    messages = [say(role, f"text {i}.") for i, role in enumerate(roles)]
    entries, counts = record_to_entries({"messages": messages})
    spoken = [message for message in messages if message["role"] != "system"]
    n_turns = len(spoken) - counts["joined_messages"]
    assert n_turns == 2 * (len(entries) + counts["later_turns"]) + counts["unanswered"] + counts["opening_replies"]
    assert counts["system_messages"] == roles.count("system")
    assert counts["no_entry"] == 1 - len(entries)
    for entry in entries:
        turns = entry.get("turns", [say("user", entry["instruction"]), say("assistant", entry["output"])])
        assert "\n\n".join(turn["content"] for turn in turns) == "\n\n".join(m["content"] for m in spoken)
        assert all(a["role"] != b["role"] for a, b in zip(turns, turns[1:], strict=False))


def test_a_tree_follows_the_best_rank_which_is_zero() -> None:
    best = reply("best", 0, ask("unanswered"), ask("more?", reply("late", None), reply("later", 1)))
    tree = ask("Why?", reply("unranked", None, ask("x")), reply("second", 1), best, reply("gone", -1, deleted=True))
    entries, counts = convert({"prompt": tree})
    assert entries[0]["output"] == "best"
    assert [turn["content"] for turn in entries[0]["turns"]] == ["Why?", "best", "more?", "later"]
    assert counts == {"open_assistant": 1, "later_turns": 1, "other_messages": 6}
    wrong = min(tree["replies"][:3], key=lambda message: message["rank"] or 99)  # 0 is false
    assert wrong["text"] == "second"
    assert tree["replies"][0]["text"] == "unranked"  # nor is the first one the best


def test_a_tree_without_an_answer_gives_no_entry() -> None:
    counts = {"open_assistant": 1, "no_entry": 1, "unanswered": 1}
    assert convert({"prompt": ask("Why?")}) == ([], counts)
    assert convert({"prompt": ask("Why?", reply("gone", 0, deleted=True))}) == ([], counts | {"other_messages": 1})


@pytest.mark.long
def test_a_tree_may_be_deeper_than_the_stack() -> None:
    tree = reply("end", 0)
    for i in range(20_001):
        tree = reply(f"{i}", None, tree, role="assistant" if i % 2 else "prompter")
    entries, counts = convert({"prompt": tree})
    assert len(entries[0]["turns"]) == 20_002
    assert counts == {"open_assistant": 1, "later_turns": 10_000}


# ---- what is recognised, and what is not ----


def test_our_own_entries_come_back_as_they_are(tmp_path: Path) -> None:
    entries = [entry for name in sorted(REAL.glob("*.jsonl")) for entry in load_entries(name)]
    path = tmp_path / "ours.json"
    path.write_text(json.dumps(entries))
    assert read_entries(path) == (entries, {"alpaca": len(entries)})
    assert entries_sha256(load_entries(path)) == entries_sha256(entries)


def test_an_entry_with_an_answer_in_our_words_is_ours() -> None:
    record = SAME | {"response": "other", "messages": [], "question": "q", "answer": "a"}
    assert find_format(record).name == "alpaca"
    assert convert(record)[0] == [record]


WRONG = {
    '{"text": "a", "label": 1}': r"entry 0: its fields \['label', 'text'\] are of no known format; known are alpaca",
    '{"prompt": "a", "response": "b"}': r"its fields \['prompt', 'response'\] are of no known format",
    '{"instruction": "a", "response": 3}': '"response" must be text, found int 3',
    '{"question": " ", "answer": "b"}': '"question" is empty',
    '{"question": "a", "answer": "b", "options": [{"key": "A", "text": "x"}]}': '"options" must be texts, in a list or',
    '{"question": "a", "answer": "b", "options": {"A": ["x"]}}': '"options" must be texts, in a list or each under',
    '{"question": "a", "answer": "b", "options": "A or B"}': '"options" must be texts, .* found str "A or B"',
    '{"question": "a", "context": {"b": 1}, "answer": "b"}': '"context" must be text, found dict',
    '{"instruction": "a", "instances": "b"}': '"instances" must be a list of objects, found str "b"',
    '{"instruction": "a", "instances": [{"input": "b"}]}': 'the field "output" is missing; it has',
    '{"messages": ["a"]}': r'"messages" must be a list of objects, found list \["a"\]',
    '{"messages": [{"role": "tool", "content": "a"}]}': r"\"messages\[0\].role\" 'tool' is not known: use one of user",
    '{"messages": [{"content": "a"}]}': r'the field "messages\[0\].role" is missing',
    '{"conversations": [{"from": "gpt"}]}': r'the field "conversations\[0\].content" is missing; it has',
    '{"messages": [{"role": "user", "content": null}]}': r'"messages\[0\].content" must be text, found NoneType null',
    '{"prompt": {"role": "prompter", "text": "a", "replies": 1}}': '"prompt.replies" must be a list of objects',
    '{"prompt": {"role": "x", "text": "a", "replies": []}}': "\"prompt.role\" 'x' is not known",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_record_that_cannot_be_converted_is_an_error_that_names_its_field(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(text)
    with pytest.raises(EntryError, match=WRONG[text]) as caught:
        read_entries(path)
    assert "wrong.json: entry 0: " in str(caught.value)


# ---- real records ----

COUNTS = {
    "dolly.jsonl": (8, {"dolly": 8}),
    "gsm8k.jsonl": (6, {"question_answer": 6}),
    "oasst_tree.jsonl": (5, {"open_assistant": 5, "later_turns": 2, "unanswered": 2, "other_messages": 29}),
    "seed_tasks.jsonl": (8, {"self_instruct": 8}),
    "trivia.jsonl": (6, {"question_answer": 6}),
    "user_oriented.jsonl": (7, {"self_instruct": 7}),
}


@pytest.mark.parametrize("name", COUNTS)
def test_real_files_are_read_whole(name: str) -> None:
    entries, counts = read_entries(REAL / name)
    assert (len(entries), counts) == COUNTS[name]
    assert all(entry["instruction"].strip() and entry["output"].strip() for entry in entries)


def test_real_dolly_gsm8k_and_trivia_keep_every_text() -> None:
    for name, prompt, answer in [
        ("dolly.jsonl", "instruction", "response"),
        ("gsm8k.jsonl", "question", "answer"),
        ("trivia.jsonl", "question", "answer"),
    ]:
        for record, entry in zip(real(name), load_entries(REAL / name), strict=True):
            assert (entry["instruction"], entry["output"]) == (record.pop(prompt), record.pop(answer))
            assert entry["input"].split("\n") == record.get("options", [""])
            assert record.items() <= entry.items()


@pytest.mark.parametrize("name", ["seed_tasks.jsonl", "user_oriented.jsonl"])
def test_real_self_instruct_tasks_keep_every_instance(name: str) -> None:
    expected = [(r["instruction"], i["input"], i["output"]) for r in real(name) for i in r["instances"]]
    entries = load_entries(REAL / name)
    assert [(entry["instruction"], entry["input"], entry["output"]) for entry in entries] == expected
    assert [entry["id"] for entry in entries] == [record["id"] for record in real(name)]


def test_real_trees_give_the_reply_that_people_ranked_first() -> None:
    n_messages = 0
    for record, entry in zip(real("oasst_tree.jsonl"), load_entries(REAL / "oasst_tree.jsonl"), strict=True):
        prompt = record["prompt"]
        assert entry["instruction"] == prompt["text"]
        assert [entry["output"]] == [message["text"] for message in prompt["replies"] if message["rank"] == 0]
        assert entry["message_tree_id"] == record["message_tree_id"]
        n_messages += json.dumps(record).count('"message_id"')
    entries, counts = read_entries(REAL / "oasst_tree.jsonl")
    in_threads = sum(len(entry.get("turns", "qa")) for entry in entries)
    assert in_threads == 2 * (len(entries) + counts["later_turns"]) + counts["unanswered"]
    assert in_threads + counts["other_messages"] == n_messages
