"""Formats: the records that instruction data come in, and how each becomes entries.

    alpaca              {"instruction", "input", "output"}, which is ours
    self_instruct       {"instruction", "instances": [{"input", "output"}, ...]}: an entry for each instance
    dolly               {"instruction", "context", "response"}
    chat                {"messages": [...]} or {"conversations": [...]} of {"role", "content"} or {"from", "value"}
    question_answer     {"question", "answer"}, with a "context" or with "options" to choose from where there are any
    prompt_completion   {"prompt", "completion"}
    open_assistant      {"prompt": {"role", "text", "replies": [...]}}, each reply with replies of its own

A record is recognised by its fields, and those that are not used (category, source, id ...) go along; of a message only
role and text are read. What is left out of the entries or changed on the way is counted:

    later_turns         answered user turns after the first, in the entry's "turns": `finetune --turns` learns from them
    unanswered          user turns without an answer
    opening_replies     conversations that an assistant opens: what it says is in "turns" only
    joined_messages     messages joined to the one before, which has the same role
    system_messages     kept in the entry's "system"
    other_messages      of a tree: what is not on the way along the best-ranked replies
    empty_prompts       conversations whose first user turn is empty
    no_entry            records that gave no entry
    no_input_markers    inputs such as "<noinput>", which become empty
    clashing_fields     fields left out because the entry needs their name
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby
from typing import NamedTuple

NO_INPUT = re.compile(r"<no ?input>|no ?input", re.IGNORECASE)  # Alpaca's, as AlpacaDataCleaned's README lists them
ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot", "chatgpt", "bing", "bard", "model"), "assistant"),
    "system": "system",
}

Record = dict[str, object]  # a parsed JSON object
Converted = tuple[list[Record], Counter[str]]  # entries, counts


def shown(value: object) -> str:
    """Type and beginning of a parsed JSON value, for messages."""
    text = json.dumps(value, ensure_ascii=False)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


def _text(record: Record, *names: str, inside: str = "") -> str:
    """The text under the first of the names that the record has; `inside` is the way to it, such as "messages[3]."."""
    name = next((name for name in names if name in record), None)
    if name is None:
        raise ValueError(f'the field "{inside}{names[0]}" is missing; it has {sorted(record)}')
    if not isinstance(record[name], str):
        raise ValueError(f'"{inside}{name}" must be text, found {shown(record[name])}')
    return record[name]


def _objects(record: Record, name: str, inside: str = "") -> list[Record]:
    """The list of objects under a name; empty where there is none."""
    values = [] if record.get(name) is None else record[name]
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f'"{inside}{name}" must be a list of objects, found {shown(values)}')
    return values


def _without(record: Record, *names: str | None) -> Record:
    return {name: value for name, value in record.items() if name not in names}


def _entry(fields: Record, others: Record) -> Converted:
    """One entry of these fields; the others go along where they do not clash."""
    counts = Counter(clashing_fields=len(fields.keys() & others.keys()))
    if NO_INPUT.fullmatch(fields["input"].strip()):
        fields = fields | {"input": ""}
        counts["no_input_markers"] = 1
    return [fields | _without(others, *fields)], counts


def _renamed(instruction: str, inputs: tuple[str, ...], output: str, record: Record) -> Converted:
    """Our names for the three fields; the input is the first of `inputs` that is there and not null."""
    source = next((name for name in inputs if record.get(name) is not None), None)
    fields = {
        "instruction": _text(record, instruction),
        "input": _text(record, source) if source else "",
        "output": _text(record, output),
    }
    if not fields["instruction"].strip():
        raise ValueError(f'"{instruction}" is empty: say what is to be done')
    empty = [name for name in inputs if record.get(name) is None]
    return _entry(fields, _without(record, instruction, source, output, *empty))


def _from_question(record: Record) -> Converted:
    """Options are the input or end it, one a line: "Which of these is a bird?" means nothing without them."""
    options = record.get("options") or []
    texts = list(options.values()) if isinstance(options, dict) else options
    if not isinstance(texts, list) or not all(isinstance(text, (str, int, float)) for text in texts):
        raise ValueError(f'"options" must be texts, in a list or each under its letter, found {shown(options)}')
    if texts:
        lines = [f"{letter}. {text}" for letter, text in options.items()] if isinstance(options, dict) else texts
        before = [_text(record, "context")] if record.get("context") else []
        record = record | {"context": "\n".join(map(str, [*before, *lines]))}
    return _renamed("question", ("context",), "answer", record)


def _from_instances(record: Record) -> Converted:
    entries, counts = [], Counter()
    shared = _without(record, "instances")
    for instance in _objects(record, "instances"):
        made, counted = _renamed("instruction", ("input",), "output", shared | instance)
        entries += made
        counts += counted + Counter(clashing_fields=len(shared.keys() & instance.keys()))
    return entries, counts


def read_message(message: Record, inside: str) -> tuple[str, str]:
    """(role, text), the role in our words: user, assistant or system."""
    role = _text(message, "role", "from", inside=inside)
    if role.lower() not in ROLES:
        raise ValueError(f'"{inside}role" {role!r} is not known: use one of {", ".join(ROLES)}')
    return ROLES[role.lower()], _text(message, "content", "value", "text", inside=inside)


def _first_exchange(messages: list[tuple[str, str]], others: Record) -> Converted:
    """The first user turn and its answer as an entry; a longer conversation goes along whole, as "turns"."""
    system = [text for role, text in messages if role == "system" and text.strip()]
    spoken = [message for message in messages if message[0] != "system"]
    by_role = groupby(spoken, key=lambda message: message[0])  # so user and assistant alternate
    turns = [{"role": role, "content": "\n\n".join(text for _, text in group)} for role, group in by_role]
    first = int(bool(turns) and turns[0]["role"] == "assistant")  # position of the first user turn
    n_answered, n_open = divmod(len(turns) - first, 2)
    counts = Counter(later_turns=max(n_answered - 1, 0), unanswered=n_open, opening_replies=first)
    counts += Counter(joined_messages=len(spoken) - len(turns), system_messages=len(system))
    if not n_answered or not turns[first]["content"].strip():
        return [], counts + Counter(empty_prompts=min(n_answered, 1))
    fields = {"instruction": turns[first]["content"], "input": "", "output": turns[first + 1]["content"]}
    fields |= {"turns": turns} if len(turns) > 2 else {}
    fields |= {"system": "\n\n".join(system)} if system else {}
    entries, counted = _entry(fields, others)
    return entries, counts + counted


def _from_chat(name: str, record: Record) -> Converted:
    messages = [read_message(message, f"{name}[{i}].") for i, message in enumerate(_objects(record, name))]
    others = _without(record, name)
    if isinstance(others.get("system"), str):  # some files have it beside the conversation
        messages.insert(0, ("system", others.pop("system")))
    return _first_exchange(messages, others)


def _from_tree(record: Record) -> Converted:
    """The thread that takes the best reply each time. Loops, as a tree may be deeper than Python's stack."""
    thread, candidates = [], [record["prompt"]]
    while candidates := [message for message in candidates if not message.get("deleted")]:
        thread.append(min(candidates, key=_badness))
        candidates = _objects(thread[-1], "replies", "prompt." + "replies." * (len(thread) - 1))
    everything = [record["prompt"]]
    for message in everything:  # which grows meanwhile
        everything += _objects(message, "replies")
    messages = [read_message(message, "prompt." + "replies." * depth) for depth, message in enumerate(thread)]
    entries, counts = _first_exchange(messages, _without(record, "prompt"))
    return entries, counts + Counter(other_messages=len(everything) - len(thread))


def _badness(message: Record) -> tuple[bool, int, bool]:
    """Rank 0 is the best. What has no rank, as users' messages, comes after; of that, the first that was answered."""
    rank = message["rank"] if isinstance(message.get("rank"), int) else None
    return rank is None, rank or 0, not message.get("replies")


class Format(NamedTuple):
    name: str
    fields: tuple[str, ...]  # which tell it; "prompt.replies" is the field `replies` of the object `prompt`
    convert: Callable[[Record], Converted]


FORMATS = (
    Format("alpaca", ("instruction", "output"), partial(_renamed, "instruction", ("input",), "output")),
    Format("self_instruct", ("instruction", "instances"), _from_instances),
    Format("dolly", ("instruction", "response"), partial(_renamed, "instruction", ("context", "input"), "response")),
    Format("chat", ("messages",), partial(_from_chat, "messages")),
    Format("chat", ("conversations",), partial(_from_chat, "conversations")),
    Format("question_answer", ("question", "answer"), _from_question),
    Format("prompt_completion", ("prompt", "completion"), partial(_renamed, "prompt", ("input",), "completion")),
    Format("open_assistant", ("prompt.replies",), _from_tree),
)


def find_format(record: Record) -> Format | None:
    """The first format of the table whose fields the record has."""
    prompt = record.get("prompt")
    found = record.keys() | {f"prompt.{name}" for name in (prompt if isinstance(prompt, dict) else ())}
    return next((form for form in FORMATS if found.issuperset(form.fields)), None)


def record_to_entries(record: Record) -> Converted:
    """The record's entries, and the counts with 1 for its format. ValueError names the field and what was found."""
    form = find_format(record)
    if form is None:
        known = "; ".join(f"{form.name} ({', '.join(form.fields)})" for form in FORMATS)
        raise ValueError(f"its fields {sorted(record)} are of no known format; known are {known}")
    entries, counts = form.convert(record)
    return entries, Counter({form.name: 1, "no_entry": int(not entries)}) + counts
