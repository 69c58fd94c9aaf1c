"""Task-like plain text made by rules, for the last stretch of pretraining.

Books teach a small model what a sentence is, but not to use the words in front of it. This text does: every
document holds tasks whose answers follow from the words given (copy, sort, replace, spell, put in the past ...),
in many plain layouts, so that fine-tuning later has to teach only its own format. None of the layouts is
the Alpaca prompt. Words and sentences come from the pretraining corpus, so they practically never repeat.

    material = make_material(corpus_texts, gloss_text)
    text, answers = rule_text(Random(1), material, Ban(test_entries))
    text[answers[0]]  # "THE GIRL READS A BOOK."
"""

import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from random import Random

from gpt.curation.material import Material
from gpt.curation.rule_tasks import CUMULATIVE, TASKS

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# ---- the ban: nothing of a test entry --------------------------------------------------------------------


class Ban:
    """Knows the test entries; refuses text that holds one of them, and items whose answer one of them asks for."""

    def __init__(self, entries: Iterable[dict], run: int = 6) -> None:
        """A text may not share `run` words in a row with an instruction or input, nor hold a shorter one whole."""
        self.prompts, self.outputs = defaultdict(int), defaultdict(int)  # word -> the entries that have it, as bits
        self.runs = defaultdict(set)  # first three words -> the runs that begin so
        for number, entry in enumerate(entries):
            for word in fold(entry["instruction"] + " " + entry.get("input", "")):
                self.prompts[word] |= 1 << number
            for word in fold(entry["output"]):
                self.outputs[word] |= 1 << number
            for field in (entry["instruction"], entry.get("input", "")):
                words = fold(field)
                for i in range(max(1, len(words) - run + 1)):
                    piece = tuple(words[i : i + run])
                    if len(piece) >= 3:
                        self.runs[piece[:3]].add(piece)

    def has_text(self, text: str) -> bool:
        words = fold(text)
        for i, start in enumerate(zip(words, words[1:], words[2:], strict=False)):
            if start in self.runs and any(tuple(words[i : i + len(r)]) == r for r in self.runs[start]):
                return True
        return False

    def has_pair(self, operand: str, answer: str) -> bool:
        """Whether one test entry has the operand's words in its prompt and the answer's words in its output."""
        entries = -1
        for index, words in ((self.prompts, fold(operand)), (self.outputs, fold(answer))):
            for word in words:
                entries &= index.get(word, 0)
                if not entries:
                    return False
        return entries > 0

    def is_banned(self, text: str, operand: str = "", answer: str = "") -> bool:
        """Whether a test entry asks for this answer (or back from it), or stands in the text."""
        pairs = [(operand, answer), (answer, operand)] if operand and answer else []
        return any(self.has_pair(*pair) for pair in pairs) or self.has_text(text)


def fold(text: str) -> list[str]:
    return WORD.findall(text.lower())


# ---- layouts ---------------------------------------------------------------------------------------------

ONE_BY_ONE = """Task: {ask}|Text: {text}|Answer: {answer}
Q: {both}|A: {answer}
Teacher: {both}|Pupil: {answer}
{quoted}|{answer}
{both}||{answer}
{ask}||{text}||{answer}
{text}||{ask}||{answer}
{ask}|input: {text}|output: {answer}
Given: {text}|Wanted: {ask}|Result: {answer}
"{both}" said the teacher.|"{answer}" said the girl.
> {both}|{answer}
Please help. {both}|Reply: {answer}
Exercise. {ask}|{text}|Solution: {answer}
{both} - {answer}
Read this: {text}|Now do this: {ask}|Done: {answer}
My turn: {ask}|"{text}"|{answer}
One asked: {quoted}|The other wrote: {answer}
# Task|{ask}||# Text|{text}||# Answer|{answer}
# What to do|{both}||# Result|{answer}
== To do ==|{ask}|== Given ==|{text}|== Done ==|{answer}
== Question ==|{both}|== Answer ==|{answer}
[task]|{ask}||[text]|{text}||[answer]|{answer}
[user]|{both}||[helper]|{answer}
** Job **||{ask}||** Material **||{text}||** Solution **||{answer}
<ask>|{both}|<reply>|{answer}""".splitlines()
ONE_BY_ONE = [layout.replace("|", "\n") for layout in ONE_BY_ONE]
HEADINGS = re.compile(r"\n*^(?:# Text|== Given ==|\[text\]|\*\* Material \*\*)\n+{text}$", re.M)
PREAMBLES = """Here is something to do. Do just what it says.
A small job follows, and after it the solution.
Somebody asks for something. What is asked for comes last.
You get a task, maybe with a text that belongs to it. Give a good answer.
Do what you are told, as well as you can.
The next lines hold a task and its solution. Read the task with care, then solve it.
This is an exercise book. Each exercise has one right answer.
Below is work for a clever helper; the helper's answer ends it.""".splitlines()
TOGETHER = ["{text} -> {answer}", "{text} => {answer}", "{text} = {answer}", "{text}: {answer}",
            "{text} becomes {answer}", "| {text} | {answer} |", "in: {text}\nout: {answer}\n",
            "input: {text}\noutput: {answer}", "* {text} ({answer})", "text: {text}, answer: {answer}"]  # fmt: skip
FORBIDDEN = re.compile(r"###|Instruction:|Response:|Input:")
ENDING = re.compile(r"\n+|.?")
OPEN, CLOSE = "\ue000", "\ue001"  # around each answer while a document is put together; no text has them


def lay_out(layout: str, ask: str, text: str, answer: str) -> str:
    """The item in the layout, its answer marked: the line of an empty text falls away, several lines begin on a line
    of their own."""
    if not text:
        layout = HEADINGS.sub("", layout)
        layout = re.sub(r"(?m)^[^{\n]*{text}\"?\n+", "", layout)
    for name, value in (("text", text), ("answer", answer)):
        layout = layout.replace(f": {{{name}}}", f":\n{{{name}}}") if "\n" in value else layout
    stop, seam = ("", " ") if ask[-1] in "?.:" else (".", ": ")
    both, quoted = (f"{ask}{seam}{mark}{text}{mark}" if text else ask + stop for mark in ("", '"'))
    return layout.format(ask=ask, text=text, answer=OPEN + answer + CLOSE, both=both, quoted=quoted)


def find_answers(marked: str) -> tuple[str, list[slice]]:
    """The document without its marks, and where the answers stand in it, each with what ends it: the line breaks that
    follow, or one other character."""
    parts = re.split(f"[{OPEN}{CLOSE}]", marked)  # by turns: what is not an answer, and an answer
    seams, text = list(accumulate(map(len, parts))), "".join(parts)
    return text, [slice(a, ENDING.match(text, b).end()) for a, b in zip(seams[0::2], seams[1::2], strict=False)]


def make_items(rng: Random, material: Material, ban: Ban | None, n: int) -> list[tuple[str, str, str]]:
    """n times (wording, text, answer) of one task in one wording; fewer where the ban refuses much."""
    _, card, text_pattern, answer_pattern, wordings = TASKS[bisect(CUMULATIVE, rng.random() * CUMULATIVE[-1])]
    wording = rng.choice(wordings.split("|"))
    items = []
    for _ in range(n + 10):
        try:
            facets = card(rng, material)
            ask, text, answer = (p.format(**facets) for p in (wording, text_pattern, answer_pattern))
        except KeyError:  # this sentence or list lacks what the task needs
            continue
        if ban is None or not ban.is_banned(f"{ask}\n{text}\n{answer}", "" if text == answer else text, answer):
            items.append((ask, "" if text_pattern in wording else text, answer))
        if len(items) == n:
            break
    return items


def block(rng: Random, material: Material, ban: Ban | None, layout: str) -> str:
    """One to six items of one task, one by one, or as a bare list of examples."""
    items = make_items(rng, material, ban, rng.choice([1, 1, 1, 2, 3, 4, 6]))
    asks = {ask for ask, _, _ in items}
    if len(items) > 2 and len(asks) == 1 and all(text and "\n" not in text + answer for _, text, answer in items):
        together = rng.choice(TOGETHER)
        head = rng.choice(["", f"{asks.pop()}:\n"])
        return head.replace("?:", "?") + "\n".join(lay_out(together, *item) for item in items)
    return "\n\n".join(lay_out(layout, *item) for item in items)


def rule_text(rng: Random, material: Material, ban: Ban | None = None) -> tuple[str, list[slice]]:
    """One document and where its answers are: one to five blocks, half of the documents in a single layout.

    Holds nothing that `ban` refuses.
    """
    while True:
        layouts = rng.choices(ONE_BY_ONE, k=rng.choice([1, 1, 2, 3, 5]))
        if rng.random() < 0.5:
            layouts = [layouts[0]] * len(layouts)
        blocks = [block(rng, material, ban, layout) for layout in layouts]
        if rng.random() < 0.4:  # something before the task that is not the task, as prompts have it
            preamble = rng.choice(PREAMBLES if rng.random() < 0.7 else material.sentences)
            blocks = [f"{preamble}\n\n{part}" for part in blocks]
        text, answers = find_answers("\n\n".join(blocks).strip())
        if text and not FORBIDDEN.search(text) and not (ban and ban.has_text(text)):
            return text, answers
