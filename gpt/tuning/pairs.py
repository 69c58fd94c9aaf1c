"""Pairs: two responses to one prompt, of which one is preferred; an entry whose output is the chosen one.

    {"instruction", "input", "chosen", "rejected"}       ours; the input may be missing
    {"prompt" or "question", "chosen", "rejected"}       three texts, or messages of {"role", "content"}
    {"chosen", "rejected"}                               whole conversations: messages, or Anthropic's HH, texts of
                                                         "\\n\\nHuman: ...\\n\\nAssistant: ..."

What gives no pair is counted: later_turns, conversations of more than one question; other_prompts, sides that do not
answer the same; same_response; empty_text. A system message goes along as the entry's "system".
"""

import re
from collections import Counter
from pathlib import Path

from gpt.text.entries import Entry, EntryError, check_entry, parse_record, read_records
from gpt.text.formats import Record, read_message, shown

SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
ASKED = ("instruction", "prompt", "question")  # names of what is asked
Messages = list[tuple[str, str]]  # role, text


class PreferenceEntry(Entry):
    rejected: str  # the other response; `output` is the chosen one


def read_pairs(path: str | Path) -> tuple[list[PreferenceEntry], dict[str, int]]:
    """The pairs of a JSON or JSON Lines file, and the counts. Raises EntryError for the first record that cannot be
    read, and where there is no pair at all."""
    pairs: list[PreferenceEntry] = []
    counts: Counter[str] = Counter()
    for where, record in read_records(Path(path)):
        try:
            found = record_to_pair(parse_record(record, where))
            if isinstance(found, str):
                counts[found] += 1
                continue
            check_entry(found)
            check_entry(found | {"output": found["rejected"]})
        except ValueError as error:
            raise EntryError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
        pairs.append(found)
        counts["pairs"] += 1
    if not pairs:
        raise EntryError(f"{path}: no pairs: found {dict(counts) or 'nothing'}")
    return pairs, dict(counts)


def record_to_pair(record: Record) -> PreferenceEntry | str:
    """The pair, or in a word why there is none. Raises ValueError for fields that cannot be read."""
    if not {"chosen", "rejected"} <= record.keys():
        raise ValueError(f'a pair has the fields "chosen" and "rejected", found {sorted(record)}')
    chosen, rejected = (said(record[name], "assistant", name) for name in ("chosen", "rejected"))
    asked = next((name for name in ASKED if name in record), None)
    if len(chosen) == 1:  # a whole conversation brings its question along
        if asked is None:
            raise ValueError(f"what is asked is missing: one of {', '.join(ASKED)}")
        before = said(record[asked], "user", asked)
        chosen, rejected = before + chosen, before + rejected
    system = "\n\n".join(text for role, text in chosen if role == "system")
    sides = [[message for message in side if message[0] != "system"] for side in (chosen, rejected)]
    if sides[0][:-1] != sides[1][:-1]:
        return "other_prompts"
    if any([role for role, _ in side] != ["user", "assistant"] for side in sides):
        return "later_turns"
    (_, question), (_, preferred), (_, other) = *sides[0], sides[1][-1]
    if not all(text.strip() for text in (question, preferred, other)):
        return "empty_text"
    if preferred.strip() == other.strip():
        return "same_response"
    given = record.get("input") or ""
    if not isinstance(given, str):
        raise ValueError(f'"input" must be text, found {shown(given)}')
    others = {name: value for name, value in record.items() if name not in ("chosen", "rejected", asked)}
    fields = {"instruction": question, "input": given, "output": preferred, "rejected": other}
    return others | fields | ({"system": system} if system else {})


def said(value: object, role: str, name: str) -> Messages:
    """A text as the one message of this role, or as HH's conversation; or a list of messages."""
    if isinstance(value, list) and all(isinstance(message, dict) for message in value) and value:
        return [read_message(message, f"{name}[{i}].") for i, message in enumerate(value)]
    if not isinstance(value, str):
        raise ValueError(f'"{name}" must be text or a list of messages, found {shown(value)}')
    before, *parts = SPEAKER.split(value)
    if before.strip() or not parts:
        return [(role, value)]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [(roles[speaker], text.strip()) for speaker, text in zip(parts[::2], parts[1::2], strict=True)]
