"""Answers for instructions that have none, and a recipe for texts with a sentiment.

    answer_jobs      instructions -> entries with an output
    sentiment_jobs   texts of a given label, in three levels of openness; a second, blind question has to find the
                     label again, and balance_labels leaves as many of each

Code whose answers are run and maths whose results are known stand in code_answers.py and maths_answers.py.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from random import Random

from gpt.curation.replies import why_unusable, without_thoughts
from gpt.curation.teacher import Ask, Job, Outcome, drop, failed, is_hard, key_of, made_by
from gpt.text.entries import Entry, check_entry, finite, words
from gpt.text.formats import find_format, record_to_entries, shown

ANSWER = """\
Do what the instruction asks, correctly and no longer than it needs, in the language of the instruction. Reply with the
answer alone: no introduction, and no remark about it.

Instruction: {instruction}
{input}"""
# What stands before an answer: "Sure, here is a bird:", a line of its own such as "Certainly!", or a label. Nothing
# else: "Certainly not!" and "Okay, the ratio is 3:4." are answers.
PREAMBLE = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay)\b(?:[,!.]?\s*here(?:['’]s| is| are)\b[^\n:：]{0,60}[:：]"
    r"|(?:[,!.][^\n:：]{0,60}[:：]|[,!.][^\n:：]{0,40}\bhelp\b[^\n:：]{0,20}[!.]|[!.])[ \t]*\n)"
    r"|(?:answer|output|response|答案|回答)\s*[:：])\s*",
    re.IGNORECASE,
)


def read_instructions(path: Path) -> list[Entry]:
    """Entries with or without an output, or bare texts: a JSON list, JSON Lines, or a .txt file with one a line.

    Raises ValueError for what has no instruction, with its position.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text.split("\n") if line.strip()]
    if path.suffix == ".txt":
        rows: object = lines
    else:
        try:
            rows = _loads(text)
        except ValueError:
            try:
                rows = [_loads(line) for line in lines]
            except ValueError as error:
                raise ValueError(f"{path}: neither JSON nor JSON Lines: {error}") from None
    entries = []
    for i, row in enumerate(rows if isinstance(rows, list) else [rows]):
        try:
            entries += _entries_of(row)
        except ValueError as error:
            raise ValueError(f"{path}: row {i}: {error}") from None
    if not entries:
        raise ValueError(f"{path}: no instructions in it")
    return entries


_loads = partial(json.loads, parse_constant=finite, parse_float=finite)


def _entries_of(row: object) -> list[Entry]:
    """A text, an instruction without an answer, or a record of any format that `text/formats.py` knows."""
    row = {"instruction": row} if isinstance(row, str) else row
    if not isinstance(row, dict):
        raise ValueError(f"an instruction is a text or an object, found {shown(row)}")
    row = {name: value for name, value in row.items() if value is not None or name not in ("output", "response")}
    if find_format(row) is None:
        if "instruction" not in row:
            raise ValueError(f'it has no "instruction" and is of no known format: its fields are {sorted(row)}')
        row |= {"response": ""}  # with it, a "context" is the input
    entries, _ = record_to_entries(row)
    for entry in entries:
        check_entry(entry)
    if not entries:
        raise ValueError("no user turn of it is answered: give the last one as an instruction")
    return entries


# ---- plain answers ----


def answer_prompt(entry: Entry) -> str:
    given = f"\nInput:\n{entry['input']}\n" if entry.get("input") else ""
    return ANSWER.format(instruction=entry["instruction"], input=given)


def ask_answer(entry: Entry, ask: Ask) -> tuple[str, str | None]:
    """(the answer, the reason why it is of no use or None)."""
    reply = without_thoughts(ask(answer_prompt(entry)))
    text = PREAMBLE.sub("", reply).strip()
    reason = why_unusable(reply) or why_unusable(text)
    if not reason and text.split() == entry["instruction"].split():
        reason = "the answer repeats the instruction"
    return text, reason


def answer_jobs(entries: Sequence[Entry]) -> list[Job]:
    """A job for each entry that has no output yet; whoever has one already is not asked about."""
    return [
        Job(key_of("answer", entry["instruction"], entry["input"]), (i,), answer_prompt(entry),
            partial(answer, entry=entry), reply_tokens=150, hard=is_hard(entry))
        for i, entry in enumerate(entries) if not entry.get("output")
    ]  # fmt: skip


def answer(ask: Ask, entry: Entry) -> Outcome:
    text, reason = ask_answer(entry, ask)
    if reason:
        return failed(reason, instruction=entry["instruction"], input=entry["input"], reply=text)
    return Outcome([entry | {"output": text, "made": entry.get("made", {}) | made_by("answers")}])


# ---- sentiment ----

LABELS = ("positive", "negative", "neutral")
LEVELS = {  # how openly it is said: of praise or blame, and of neither
    "plain": ("it is said openly, with clear words", "it says openly that it was neither good nor bad"),
    "mild": ("it is moderate, with a small remark to the contrary", "it weighs a good side against a bad one, evenly"),
    "subtle": ("it is never said: it shows only in what happened or in understatement", "it only reports plain facts"),
}
TOPICS = (
    "a bus ride|a raincoat|a dentist's visit|a cookbook|a phone repair|a hotel breakfast|a garden centre|a train app|"
    "a language course|a used bicycle|a concert|a village bakery|a museum tour|a washing machine|a hiking guide|"
    "a swimming pool|a puppet show|a coffee grinder|a parcel service|a chess club|an office chair|a ferry crossing|"
    "a podcast|a campsite"
).split("|")
WRITE_SENTIMENT = """\
Write what a customer says about {topic}, in one to three sentences. Its sentiment is {label}: {level}.
Do not use the words positive, negative or neutral. Reply with the text alone. (Variant {number})"""
NAME_SENTIMENT = """\
Is the sentiment of the text positive, negative or neutral? Reply with that word only.

Text: {text}"""
SENTIMENT_WORDINGS = (
    "Is the sentiment of the text positive, negative or neutral?",
    "Classify the sentiment as positive, negative or neutral.",
    "How does the writer feel about it? Answer positive, negative or neutral.",
    "Name the sentiment of this remark: positive, negative or neutral.",
    "Label the text with one word: positive, negative or neutral.",
    "Positive, negative or neutral?",
)


def sentiment_jobs(n: int, seed: int = 123, start: int = 0) -> list[Job]:
    """n jobs over all pairs of a label and a level in turn, from number `start` on: for those that were dropped."""
    cells = list(product(LABELS, LEVELS))
    jobs = []
    for i in range(start, start + n):
        (label, level), rng = cells[i % len(cells)], Random(f"{seed} {i}")
        topic, wording = rng.choice(TOPICS), rng.choice(SENTIMENT_WORDINGS)
        prompt = WRITE_SENTIMENT.format(topic=topic, label=label, level=LEVELS[level][label == "neutral"], number=i)
        work = partial(sentiment, prompt=prompt, label=label, level=level, instruction=wording)
        jobs.append(
            Job(key_of("sentiment", prompt), (i,), prompt, work, n_asks=2, reply_tokens=30, hard=level == "subtle")
        )
    return jobs


def sentiment(ask: Ask, prompt: str, label: str, level: str, instruction: str) -> Outcome:
    text = without_thoughts(ask(prompt)).strip().strip('"“”').strip()
    about = {"instruction": instruction, "input": text, "label": label, "level": level}
    if reason := why_unusable(text):
        return failed(reason, **about)
    if set(words(text)) & set(LABELS):
        return failed("the text names its label", **about)
    verdict = without_thoughts(ask(NAME_SENTIMENT.format(text=text)))
    found = {word for word in words(verdict) if word in LABELS}
    if found != {label}:
        return failed("asked blindly, the teacher finds another label", found=sorted(found), **about)
    entry = {
        "instruction": instruction,
        "input": text,
        "output": label,
        "kind": "classification",
        "source": "sentiment",
    }
    return Outcome([entry | {"level": level, "made": made_by("answers:sentiment")}])


def balance_labels(entries: Sequence[Entry]) -> tuple[list[Entry], list[dict]]:
    """(as many of each label, spread over the levels; the rest as dropped rows): the rarest label decides."""
    by_label: dict[str, dict[str, list[Entry]]] = {label: defaultdict(list) for label in LABELS}
    for entry in entries:
        by_label[entry["output"]][entry["level"]].append(entry)
    n = min(sum(map(len, levels.values())) for levels in by_label.values())
    chosen = {id(entry) for levels in by_label.values() for entry in _in_turn(list(levels.values()))[:n]}
    kept = [entry for entry in entries if id(entry) in chosen]
    return kept, [drop("more of this label than of the rarest", **e) for e in entries if id(e) not in chosen]


def _in_turn(groups: list[list[Entry]]) -> list[Entry]:
    """The first of each group, then the second of each, and so on."""
    longest = max(map(len, groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]
