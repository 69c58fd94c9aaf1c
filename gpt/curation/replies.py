"""What a teacher wrote, read: JSON that is broken, wrapped in prose or cut off; lists; labelled parts; refusals.

    objects_in('Sure! [{"question": "Why?", "answer": "So.",}, {"ques')  ->  [{"question": "Why?", "answer": "So."}]

What cannot be read gives nothing and is never guessed at: the maker then drops the reply and says why.
"""

import ast
import json
import re
from contextlib import suppress

from gpt.curation.refusals import find_refusal
from gpt.evaluation.judge import without_thoughts

FENCE = re.compile(r"```[\w+-]*[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
INNERMOST = re.compile(r"\{[^{}]*\}")
TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
BARE_KEY = re.compile(r"(?<=[{,])(\s*)([A-Za-z_]\w*)\s*:")
NUMBERED = re.compile(r"(.*[^\W\d_])[\W_]*(\d+)\W*")  # "Question 1"
ANSWERS = {"answer", "a", "output", "response", "答案", "回答"}
CURLY_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "‘": "'", "’": "'"})
LISTED = re.compile(r"^[ \t>*#]*(?:(?:Task|Question|Instruction)\s*)?\d{1,3}\s*[.):：、](?!\d)[ \t*]*(.*)$", re.I)
CHATTER = re.compile(  # around what was asked for, not part of it; "I am happy with my car" may be part of a task
    r"(?:(?:i(?:['’]m| am|['’]d be| would be) )?(?:happy|glad|ready)|i(?:['’]d| would) love|i can|i['’]ll|let me)"
    r" (?:to )?(?:help|assist|come up|do my best|give you|provide)\b"
    r"|(?:(?:i )?hope (?:this|that|these|it)|let me know if|feel free to|good luck)\b",
    re.IGNORECASE,
)


def why_unusable(reply: str) -> str | None:
    """The reason why a reply is no answer at all: it is empty, only signs, or a refusal."""
    text = without_thoughts(reply)
    if not text:
        return "the teacher said nothing"
    if not re.search(r"\w", text):
        return "the reply has no word"
    return "the teacher refused" if find_refusal(text) else None


# ---- JSON ----


def objects_in(reply: str) -> list[dict]:
    """Every JSON object of a reply, in order; of one that only wraps others, those."""
    text, found, start = without_thoughts(reply), [], 0
    while (start := text.find("{", start)) >= 0:
        value, end = _object_at(text, start)
        found += [] if value is None else _unwrapped(value)
        start = end
    return found


def _object_at(text: str, start: int) -> tuple[dict | None, int]:
    """The object that begins at this brace, or None, and where to look on."""
    with suppress(ValueError, RecursionError):
        return json.JSONDecoder(strict=False).raw_decode(text, start)  # not strict: line breaks inside strings
    block = INNERMOST.match(text, start)
    value = _mended(block[0]) if block else None
    return value, (block.end() if block and value is not None else start + 1)


def _mended(block: str) -> dict | None:
    """A small object with the usual faults: trailing commas, single or curly quotes, keys without quotes."""
    plain = TRAILING_COMMA.sub("", block)
    for attempt in (plain, BARE_KEY.sub(r'\1"\2":', plain), plain.translate(CURLY_QUOTES)):
        with suppress(ValueError, RecursionError):
            return json.loads(attempt, strict=False)
    for attempt in (plain, plain.translate(CURLY_QUOTES)):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            value = ast.literal_eval(attempt)  # Python's spelling of a dict
            return {str(name): part for name, part in value.items()} if isinstance(value, dict) else None
    return None


def _unwrapped(value: dict) -> list[dict]:
    found, level = [], [value]
    while level:  # no recursion: a reply may be deeper than Python's stack
        first = level.pop(0)
        level[:0] = inner = _wrapped_in(first)
        found += [] if inner else [first]
    return found


def _wrapped_in(value: dict) -> list[dict]:
    """The objects that stand for this one: {"1": {...}, "2": {...}}, {"topic": "...", "pairs": [...]}, or
    {"Question 1": ..., "Answer 1": ..., "Question 2": ...}. None where it has an answer of its own."""
    inner = list(value.values())
    if inner and all(isinstance(item, dict) for item in inner):
        return inner
    lists = [v for v in inner if isinstance(v, list) and v and all(isinstance(item, dict) for item in v)]
    if len(lists) == 1 and not ANSWERS & {name.strip().lower() for name in value}:
        return lists[0]
    parts: dict[str, dict] = {}
    for name, text in value.items():
        if not (found := NUMBERED.fullmatch(name)):
            return []
        parts.setdefault(found[2], {})[found[1]] = text
    return list(parts.values())


def text_of(record: dict, *names: str) -> str:
    """The text under the first of these names, whatever their case; numbers as text, "" where there is none."""
    lower = {str(key).strip().lower(): value for key, value in record.items()}
    value = next((lower[name] for name in names if name in lower), "")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value.strip() if isinstance(value, str) else str(value) if is_number else ""


# ---- plain text ----


def listed_items(reply: str) -> list[str]:
    """The items of a numbered list ("9. ...", "Task 9: ..."), each with the lines that follow it.

    A prompt that ends in "Task 9:" is answered without the number, so text before the first number is an item too,
    if it does not introduce the list. What the teacher says after the list, as a paragraph of its own, is none.
    """
    items: list[list[str]] = [[]]
    for line in without_thoughts(reply).splitlines():
        if found := LISTED.match(line):
            items.append([found[1]])
        else:
            items[-1].append(line)
    texts = ["\n".join(lines).strip().strip("*").strip() for lines in items]
    last, _, remark = texts[-1].rpartition("\n\n")
    texts[-1] = last.rstrip() if last and CHATTER.match(remark) else texts[-1]
    return [text for text in (texts[1:] if introduces(texts[0], len(texts) > 1) else texts) if text]


def introduces(text: str, is_followed: bool) -> bool:
    """Whether a text announces the list that follows it, or breaks off before one."""
    is_polite = re.match(r"(sure|here|certainly|okay|of course)\b", text, re.IGNORECASE) or CHATTER.match(text)
    return text.endswith((":", "：")) or (is_followed and bool(is_polite or text.endswith("!")))


def labelled_parts(reply: str, names: tuple[str, ...]) -> list[dict[str, str]]:
    """Lines such as "Input: ..." and "Output: ..." as {"input": ..., "output": ...}; a repeated name begins the next.

    >>> labelled_parts("Input: 2 + 3\\nOutput: 5", ("input", "output"))
    [{'input': '2 + 3', 'output': '5'}]
    """
    mark = re.compile(rf"^[ \t>*#]*({'|'.join(map(re.escape, names))})[ \t]*\d*[*]*[ \t]*[:：][*]*[ \t]*", re.I | re.M)
    text, parts = without_thoughts(reply), [{}]
    found = list(mark.finditer(text))
    ends = [mark.start() for mark in found] + [len(text)]
    for this, end in zip(found, ends[1:], strict=True):
        name = this[1].lower()
        if name in parts[-1]:
            parts.append({})
        parts[-1][name] = text[this.end() : end].strip()
    return [part for part in parts if part]


def without_fence(text: str) -> str:
    """What stands in the first code fence, or the text itself where there is none."""
    found = FENCE.search(text)
    return (found[1] if found else text).strip("\n")
