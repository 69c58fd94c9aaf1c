"""Rule filters: each takes an entry and gives None, or the reason why it should go.

    >>> check_refusal({"instruction": "Name a fruit.", "input": "", "output": "As an AI language model, I cannot eat."})
    'the answer refuses: "As an AI language model,"'

The rules follow what is known to go wrong in sets that models or crowds wrote: Gopher's repetition filters (Rae et al.
2021, A1.1), and the faults that AlpacaDataCleaned lists. Lengths are counted by `text.entries.words`: in scripts
written without spaces a character counts as a word, so Chinese text is neither one word nor forty times too long.
`FILTERS` is the table; a filter of your own is any function of the same shape. Of a conversation every exchange is
looked at; `length` and `copied` look at the first, as people say "?" and "Thanks!" later, and are thanked back.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import regex

from gpt.curation.refusals import find_refusal
from gpt.text.entries import Entry, words
from gpt.tuning.turns import exchanges

Filter = Callable[[Entry], str | None]
FIELDS = ("instruction", "input", "output")
CONTEXT = 4000  # characters before an exchange that its rules look back at


@dataclass(frozen=True)
class Limits:
    min_instruction: int = 1  # words (characters in Chinese, Japanese, Thai ...) of the instruction, at least
    max_prompt: int = 2000  # words of instruction and input together, at most
    min_output: int = 0  # words of the output, at least; a sign such as "+" is no word, and an answer all the same
    max_output: int = 2000  # words of the output, at most
    max_word: int = 120  # characters of the longest run without a space, but for addresses
    max_repeated: float = 0.5  # share of lines, or of words in 10-grams, that stood before
    languages: str = "en,zh"  # what instructions may be written in; any of en,zh,ja,ko,de,fr,es,it,pt,nl, or "any"

    def __post_init__(self) -> None:
        for language in () if self.languages == "any" else wanted_languages(self):
            if language not in LANGUAGES:
                near = difflib.get_close_matches(language[:2].lower(), LANGUAGES, 1, cutoff=0.9)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"language {language!r} is not known: use some of {','.join(LANGUAGES)}, or any{meant}"
                )


def shown(text: str, n: int = 50) -> str:
    """The beginning of a text on one line, for reasons."""
    text = " ".join(text.split())
    return text if len(text) <= n else text[: n - 3] + "..."


# ---- conversations ----


def texts_of(entry: Entry) -> list[tuple[str, str]]:
    """(place, text) of all that an entry says: its fields, the turns that these do not repeat, its system message."""
    places = [(field, entry[field]) for field in FIELDS]
    for n, turn in enumerate(entry.get("turns", []), start=1):
        if turn["content"] not in (entry["instruction"], entry["output"]):
            places.append((f"conversation's turn {n}", turn["content"]))
        places.append((f"input of turn {n}", turn.get("input", "")))
    return [*places, ("system message", entry.get("system", ""))]


def with_texts(entry: Entry, change: Callable[[str], str]) -> Entry:
    """The entry with all that it says changed; the same object where nothing changes."""
    changed: Entry = {**entry, **{field: change(entry[field]) for field in FIELDS}}
    if "turns" in entry:
        names = ("content", "input")
        changed["turns"] = [{k: change(v) if k in names else v for k, v in turn.items()} for turn in entry["turns"]]
    if "system" in entry:
        changed["system"] = change(entry["system"])
    return entry if changed == entry else changed


def in_context(entry: Entry) -> list[Entry]:
    """The exchanges of an entry. What was said before is the input of a later one, as it may speak of that."""
    said, found = "", []
    for exchange in exchanges(entry):
        found.append(exchange | {"input": f"{said}\n{exchange['input']}"} if found else exchange)
        said = "\n".join([said, *(exchange[field] for field in FIELDS)])[-CONTEXT:]
    return found


def of_exchanges(check: Callable[[Entry, "Limits"], str | None]) -> Callable[[Entry, "Limits"], str | None]:
    """The rule, asked of each exchange of a conversation."""

    def checked(entry: Entry, limits: Limits) -> str | None:
        for n, exchange in enumerate(in_context(entry), start=1):
            if reason := check(exchange, limits):
                return f"exchange {n}: {reason}" if n > 1 else reason
        return None

    return checked


# ---- length ----

ADDRESS = re.compile(r"(https?://|www\.|data:)\S+")
SPACED_RUN = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{N}_+/=]+")


def check_length(entry: Entry, limits: Limits) -> str | None:
    """Too short, too long, empty, or a word that no language has."""
    n_instruction, n_output = len(words(entry["instruction"])), len(words(entry["output"]))
    n_prompt = n_instruction + len(words(entry["input"]))
    if not entry["output"].strip():
        return "the output is empty"
    if n_instruction < limits.min_instruction:
        return f"the instruction has {n_instruction} words, less than {limits.min_instruction}"
    if n_output < limits.min_output:
        return f"the output has {n_output} words, less than {limits.min_output}"
    if n_prompt > limits.max_prompt:
        return f"instruction and input have {n_prompt} words, more than {limits.max_prompt}"
    if n_output > limits.max_output:
        return f"the output has {n_output} words, more than {limits.max_output}"
    for field in FIELDS:
        runs = SPACED_RUN.findall(ADDRESS.sub(" ", entry[field]))
        longest = max((run for run in runs if len(set(run)) != 1), key=len, default="")  # ===== is a rule
        if len(longest) > limits.max_word:
            return f"the {field} has a word of {len(longest)} characters: {shown(longest, 30)}"
    return None


# ---- repetition ----

ASKED_TO_REPEAT = re.compile(r"\brepeat|\btimes\b|lyrics|重复|遍|歌词", re.IGNORECASE)
RUN_OF_SIGNS = regex.compile(r"([^\s\d\-=_*.~#─━·•+|])\1{19,}")  # 20 times; rules and leaders are drawn so
N_GRAM = 10  # shorter ones come again wherever items are sorted: "Butter: could be found in the kitchen."
LOOPS = 6  # a phrase so often in a row is a loop; a list of labels has one three or four times
LOOP_WORDS = 8  # and the loop has so many words, at least


def check_repetition(entry: Entry, limits: Limits) -> str | None:
    """Lines or stretches of words that come again and again, as from a model that loops."""
    if ASKED_TO_REPEAT.search(entry["instruction"]):
        return None
    output = entry["output"]
    if run := RUN_OF_SIGNS.search(output):
        return f"{run[0][0]!r} stands {len(run[0])} times in a row"
    lines = [line.strip() for line in output.split("\n") if len(words(line)) > 1]
    again = len(lines) - len(set(lines))
    if len(lines) >= 4 and again >= limits.max_repeated * len(lines):
        return f"{again} of {len(lines)} lines stood before"
    found = words(output)
    if len(set(found)) > 0.8 * len(found):
        return None  # hardly a word comes twice: the common case, told cheaply
    if phrase := find_loop(found):
        return f'the answer loops: "{shown(phrase)}"'
    if (share := repeated_share(found)) > limits.max_repeated and len(found) >= 4 * N_GRAM:
        return f"{share:.0%} of the words stand in {N_GRAM}-grams that stood before"
    return None


def find_loop(found: list[str]) -> str | None:
    """A phrase of 1 to 9 words that follows itself again and again; numbers do so in a product, and are none."""
    for size in range(1, N_GRAM):
        n_same = 0  # words in a row that equal the word `size` before
        for i in range(size, len(found)):
            n_same = n_same + 1 if found[i] == found[i - size] else 0
            phrase = found[i - size + 1 : i + 1]
            if n_same >= max((LOOPS - 1) * size, LOOP_WORDS - size) and any(word.isalpha() for word in phrase):
                return " ".join(phrase)
    return None


def repeated_share(found: list[str]) -> float:
    """The share of words that lie in a 10-gram which occurred earlier in the text."""
    seen, covered = set(), set()
    for i in range(len(found) - N_GRAM + 1):
        gram = tuple(found[i : i + N_GRAM])
        if gram in seen:
            covered.update(range(i, i + N_GRAM))
        seen.add(gram)
    return len(covered) / max(len(found), 1)


# ---- incompleteness ----

CLOSING = re.compile(
    r"\b(regards|sincerely|love|wishes|thanks|thank you|yours|truly|cheers|best|forward to .*),$", re.IGNORECASE
)
ENDS_OPEN = re.compile(r"[,;(\[{，、；（]$|\s[-–—&]$")
FUNCTION_WORDS = frozenset(
    "a an the and or but of to in on at by for from with as is are was were be been that which who whose their his her "
    "its my your our this these those such into than because if when while although i'm it's can will would has have "
    "had".split()
)
SENTENCE_END = regex.compile(r"""[.!?。！？…:：;"'”’»)\]}>*`|%\p{So}\p{Sm}]\s*$""")
FULL_STOP = re.compile(r"[.!?](\s|$)|[。！？]")
LIST_ITEM = re.compile(r"\s*([-*•+·–—]|\(?\w{1,3}[.):、]|#+)\s*\S|.{1,40}[:：]\s")
NUMBERED = re.compile(r"(?:^|\s)\d{1,2}[.)]\s")
CODE = re.compile(
    r"```|^\s*(def \w+\(|class \w+[:({]|import \w+|from [\w.]+ import|return\b|(for|while|if) ?\(|(for|while|if) .*:$|"
    r"SELECT .*FROM|#include|public \w+|function \w*\(|(const|let|var) \w+ ?=|</?\w+>)|[{};]\s*$|</\w+>|"
    r"^\s*[\w.]+\(.*\)\s*$|^\s*[\w.]+ = \S", re.MULTILINE)  # fmt: skip
VERSE_LINE = 12  # words: lines as short as that end without a sign in verse, headings and lists
LONG_PROSE = 50  # words from which an answer without a full stop at its end is taken to be cut
_TEXTS = (
    r"(text|passage|paragraph|article|excerpt|document|story|email|review|poem|sentence|outline|script|code|content)s?"
)
MISSING_TEXT = re.compile(
    r"\b(the|this|these) (following|given|below|above|previous|provided|attached)( \w+){0,2} ?"
    rf"({_TEXTS}|list|table|data)\b|"
    rf"\b{_TEXTS}( is| are)? (below|above|provided|given|attached)\b|"
    r"\b(given|in|from|using|about|based on|mentioned in|according to)( a| the| this| these| that)?"
    r"( reference| short| given)? (text|passage|paragraph|article|excerpt)s?\b|"
    r"^(what|who) (is|does) (this|the) (text|passage|paragraph|article|excerpt)\b|"
    r"(下面|以下|下列|上述|给定)的?(这)?(段|篇|句|个)?(文字|文章|段落|句子|文本|短文|内容|代码|评论)",
    re.IGNORECASE)  # fmt: skip
HELD_TEXT = re.compile(r"[:：\n]\s*\S+|[\"“「'‘][^\"”」'’]{15,}[\"”」'’]")  # after a colon or quoted
LONG_INSTRUCTION = 40  # words from which the instruction may hold the text that it speaks of


def check_incomplete(entry: Entry, limits: Limits) -> str | None:
    """An answer that breaks off, or an instruction about a text that is not there."""
    instruction, output = entry["instruction"].strip(), entry["output"].rstrip()
    if not entry["input"].strip() and (told := MISSING_TEXT.search(instruction)):
        holds_it = len(words(instruction)) >= LONG_INSTRUCTION or HELD_TEXT.search(instruction)
        if not holds_it:
            return f'the instruction speaks of "{shown(told[0])}" and there is no input'
    if instruction.endswith((":", "：")) and not entry["input"].strip() and MISSING_TEXT.search(instruction):
        return "the instruction ends in a colon and there is no input"
    if output.count("```") % 2:
        return "a block of code is not closed"
    if output.startswith(("{", "[")) and not output.endswith(("}", "]", ")")) and _starts_like_json(output):
        return "the JSON is not closed"
    return _breaks_off(output)


def _starts_like_json(output: str) -> bool:
    """It would be JSON, were it longer: the decoder fails at the end and nowhere before."""
    try:
        json.JSONDecoder().raw_decode(output)
    except json.JSONDecodeError as error:
        return error.pos >= len(output) - 1 or error.msg.startswith("Unterminated")
    except RecursionError:
        return True  # brackets within brackets, thousands of them
    return False


def _breaks_off(output: str) -> str | None:
    """The last line stops in the middle of a sentence. A missing full stop says so only at the end of long prose: of
    short answers many are written without, whole as they are."""
    lines = [line.rstrip() for line in output.split("\n") if line.strip()]
    if not lines or CODE.search(output):
        return None
    last, n_words, n_last = lines[-1], len(words(output)), len(words(lines[-1]))
    if n_words > 5 and ENDS_OPEN.search(last) and not CLOSING.search(last):
        return f'the answer ends in "{last[-30:]}"'
    final = last.split()[-1]
    if n_words > 12 and final in FUNCTION_WORDS and FULL_STOP.search(output):
        return f'the answer ends in the word "{final}": "{shown(last[-30:])}"'
    if n_words >= LONG_PROSE and last.endswith((":", "：")):
        return f'the answer ends in a colon: "{last[-30:]}"'
    is_list = LIST_ITEM.match(last) or (len(NUMBERED.findall(output)) > 1 and n_last < 2 * VERSE_LINE)
    is_shown = len(lines) > 1 and lines[-2].endswith((":", "："))  # a formula or a command, announced before
    if n_words < LONG_PROSE or SENTENCE_END.search(last) or is_list or is_shown:
        return None
    n_ended = sum(bool(SENTENCE_END.search(line)) for line in lines[:-1])
    is_prose = n_last > VERSE_LINE and len(FULL_STOP.findall(output)) >= 2
    if is_prose or (len(lines) > 2 and n_last > 1 and n_ended >= 0.8 * len(lines[:-1])):
        return f'the answer stops without a full stop: "...{last[-30:]}"'
    return None


# ---- refusals ----


TRANSLATED = re.compile(
    r"translat|\b(in|into|to) (english|chinese|mandarin)\b|翻译|译成|译为|[英中]文|[英汉]语", re.IGNORECASE
)
MEANING = re.compile(r"\bmean(s|ing)?\b|\bsynonym|\bword for\b|意思|同义|怎么说", re.IGNORECASE)
APOLOGY = re.compile(r"sorry|apolog|afraid|unfortunately|抱歉|对不起|遗憾|不好意思|无法|不能", re.IGNORECASE)
FEW = 5  # words of an answer that does nothing but say sorry, at most


def check_refusal(entry: Entry, limits: Limits) -> str | None:
    """The answer declines, asks back, or says that it comes from a language model, in English or Chinese.

    Such words may be the right answer: where the prompt has them, too, or asks to have them said in another language.
    """
    found = find_refusal(entry["output"])
    if not found:
        return None
    prompt = entry["instruction"] + "\n" + entry["input"]
    is_quoted = " ".join(words(found)) in " ".join(words(prompt))
    is_word = len(words(entry["output"])) <= FEW and (TRANSLATED.search(prompt) or MEANING.search(prompt))
    is_translated = TRANSLATED.search(prompt) and APOLOGY.search(prompt)
    return None if is_quoted or is_word or is_translated else f'the answer refuses: "{shown(found)}"'


# ---- placeholders ----

WHOLE_PLACEHOLDER = re.compile(
    r"\W*(n/?a|null|nil|undefined|nan|to ?do|tbd|tba|lorem ipsum.*|(the )?output( here)?|(your |insert )?(answer|text|"
    r"response|output)( goes)? here|no ?(output|answer|response|input)|not available|placeholder|"
    r"(无|空|暂无|待补充|略)|#(N/A|REF!|VALUE!|NAME\?|DIV/0!))\W*", re.IGNORECASE)  # fmt: skip
PLACEHOLDER = re.compile(
    r"\[\s*(your|insert|enter|add|(first |last |full )?name|company|date|address|phone|email|e-mail|recipient|customer|"
    r"client|student|employee|manager|school|university|position|job|title|city|location|link|url|image|picture|placeholder|product|number|topic|xx+)\b[^\]\n]{0,40}\](?!\()|"
    r"<\s*(your|insert|enter)\b[^>\n]{0,40}>|"
    r"\{\{[^}\n]{1,40}\}\}|\blorem ipsum\b|\b(dear|mr|mrs|ms|dr|professor)\.? _{2,}|"
    r"[\[【(（<](请?(在此)?(输入|填写|插入|填入)|你的|您的|姓名|公司名?称?|日期|此处)[^\]】)）>\n]{0,15}[\]】)）>]|[×某xX]{3,}(公司|先生|女士)",
    re.IGNORECASE)  # fmt: skip
TEMPLATE_ASKED = re.compile(
    r"template|placeholder|fill[- ]in|blank|mask|jinja|mustache|handlebars|模板|占位|填空", re.IGNORECASE
)
NOTHING_ASKED = re.compile(r"n/?a\b|none|null|undefined|nan\b|empty|missing|chemical|symbol|无", re.IGNORECASE)


def check_placeholder(entry: Entry, limits: Limits) -> str | None:
    """Gaps that somebody meant to fill: [Your Name], N/A, lorem ipsum. Templates that were asked for may have them."""
    prompt = entry["instruction"] + "\n" + entry["input"]
    if WHOLE_PLACEHOLDER.fullmatch(entry["output"].strip()) and not NOTHING_ASKED.search(prompt):
        return f'the whole answer is "{shown(entry["output"])}"'
    if TEMPLATE_ASKED.search(prompt):
        return None
    for field in ("output", "instruction"):
        found = PLACEHOLDER.search(entry[field])
        if found and not (field == "output" and found[0].lower() in prompt.lower()) and "```" not in entry[field]:
            return f'the {field} has the gap "{shown(found[0])}"'
    return None


# ---- language ----

SCRIPTS = {
    "Latin": regex.compile(r"\p{Latin}"),
    "Han": regex.compile(r"\p{Han}"),
    "Kana": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),
    "Hangul": regex.compile(r"\p{Hangul}"),
    "Cyrillic": regex.compile(r"\p{Cyrillic}"),
    "Greek": regex.compile(r"\p{Greek}"),
    "Arabic": regex.compile(r"\p{Arabic}"),
    "Hebrew": regex.compile(r"\p{Hebrew}"),
    "Devanagari": regex.compile(r"\p{Devanagari}"),
    "Thai": regex.compile(r"\p{Thai}"),
}
# Short words that tell the languages of the Latin script apart. What is English too counts for English alone.
SHORT_WORDS = {
    "en": "the of and to is in that it for was with as are be this have from or by not what which you how does did a i "
    "he she an on at we they do me my no her his has many",
    "de": "der die das und ist nicht ein eine zu den mit für auf sich des dem wie was im sie er es von wird sind",
    "fr": "le la les et est des une un du dans que qui pour pas sur au avec ce sont par comment quelle quel vous",
    "es": "el la los las y es una un del en que por para con no se cómo cuál qué son está su como más",
    "it": "il la le e è una un di che per con non sono del della gli come quale nel si più lo dei questo",
    "pt": "o os é uma um da em que por para com não se como qual são dos das mais ao foi ele ela você",
    "nl": "de het een en is van niet dat op te zijn voor met die er aan wat hoe welke naar wordt deze ook",
}
UNSHARED = {"Han": "zh", "Kana": "ja", "Hangul": "ko"}  # scripts that tell the language
OTHER_SCRIPTS = [name for name in SCRIPTS if name not in ("Latin", *UNSHARED)]  # which stand for their languages
LANGUAGES = ["en", *UNSHARED.values(), *(name for name in SHORT_WORDS if name != "en"), *OTHER_SCRIPTS]
ENGLISH = frozenset(SHORT_WORDS["en"].split())
SHORT_WORD_SETS = {name: frozenset(text.split()) - ENGLISH for name, text in SHORT_WORDS.items()} | {"en": ENGLISH}
FEW_WORDS = 8  # a shorter text says too little about its language
TRANSLATES = re.compile(
    r"translat|\b(in|into|from|to) (french|german|spanish|italian|portuguese|russian|chinese|japanese|korean|arabic|"
    r"hindi|greek|hebrew|thai|latin|dutch|polish|ukrainian|turkish|vietnamese|mandarin|cantonese|persian|urdu|bengali)|"
    r"language|翻译|译成|译为|用.{1,3}[语文]", re.IGNORECASE)  # fmt: skip


def main_script(text: str) -> str | None:
    """The script of most letters. A Chinese character says as much as several letters, so it counts threefold, and
    Japanese is told by its kana; None where there are hardly any letters."""
    counts = Counter({name: len(found.findall(text)) for name, found in SCRIPTS.items()})
    counts["Han"] *= 3
    if counts["Kana"] * 10 > counts["Han"] > 0:
        counts["Kana"] += counts["Han"]
    name, n = counts.most_common(1)[0]
    return name if n >= 3 else None


def guess_language(text: str) -> str | None:
    """A code such as "en", the name of the script where that does not tell, None where there is too little text."""
    script = main_script(text)
    if script != "Latin":
        return UNSHARED.get(script, script)
    found = words(text)
    counts = {name: sum(word in members for word in found) for name, members in SHORT_WORD_SETS.items()}
    best = max(counts, key=counts.get)
    is_clear = len(found) >= FEW_WORDS and counts[best] >= 3 and counts[best] >= 2 * counts["en"]
    return best if is_clear else "en" if counts["en"] else None


def wanted_languages(limits: Limits) -> set[str]:
    return {name.strip() for name in limits.languages.split(",")}


def check_language(entry: Entry, limits: Limits) -> str | None:
    """An instruction in a language that is not wanted, or an answer in a script that nobody asked for."""
    if limits.languages == "any":
        return None
    wanted = wanted_languages(limits)
    prompt = entry["instruction"] + "\n" + entry["input"]
    language = guess_language(entry["instruction"])
    if language and language not in wanted:
        return f'the instruction is in "{language}", wanted are {", ".join(sorted(wanted))}'
    script = main_script(entry["output"])
    if script in (None, "Latin") or TRANSLATES.search(prompt) or SCRIPTS[script].search(prompt):
        return None
    return f"the answer is in the {script} script, and the prompt has none of it"


# ---- copies ----


def check_copied(entry: Entry, limits: Limits) -> str | None:
    """The answer is the instruction over again. An answer equal to the input may be right ("correct it if needed")."""
    instruction, output = (words(entry[field]) or entry[field].split() for field in ("instruction", "output"))
    if instruction == output:
        return "the output is the instruction"
    if words(entry["instruction"] + "\n" + entry["input"]) == output and entry["input"].strip():
        return "the output is instruction and input"
    return None


# ---- broken encoding ----

CONTROL = regex.compile(r"[\p{Cc}--[\t\n\r]]", flags=regex.V1)
PRIVATE = regex.compile(r"\p{Co}")
LOST_APOSTROPHE = re.compile(
    r"\b(it|that|he|she|there|what|who) s (?=\w{2})|\b(do|does|did|is|are|was|ca|wo|could) ?n t\b|"
    r"\b(you|we|they) (re|ve|ll)\b|\bI (m|ve|ll) (?=\w{2})", re.IGNORECASE)  # fmt: skip
REMNANT = regex.compile(r"â€|(?<=\p{Ll})Ã|Ð[\u00a0-\u00bf]")  # what ftfy cannot undo, as some bytes are gone


def _ftfy() -> object:
    try:
        import ftfy
    except ModuleNotFoundError:
        raise ValueError("no module ftfy: pip install -c constraints.txt -e '.[curate]'") from None
    return ftfy


def check_encoding(entry: Entry, limits: Limits) -> str | None:
    """Text that was read in the wrong encoding once: "CafÃ©", characters that were lost, control characters."""
    ftfy = _ftfy()
    for field, text in texts_of(entry):
        if "\ufffd" in text:
            return f"the {field} has lost a character (U+FFFD)"
        if found := CONTROL.search(text):
            return f"the {field} has the control character U+{ord(found[0]):04X}"
        if PRIVATE.search(text):
            return f"the {field} has a character of private use"
        if found := LOST_APOSTROPHE.search(text):
            return f'the {field} has lost its apostrophes: "{found[0].strip()}"'
        if not text.isascii() and (mended := ftfy.fix_encoding(text)) != text:
            i = next((i for i, (a, b) in enumerate(zip(text, mended, strict=False)) if a != b), 0)
            seen, meant = shown(text[i : i + 20]), shown(mended[i : i + 12])
            return f'the {field} was read in the wrong encoding: "{seen}" for "{meant}"'
        if found := REMNANT.search(text):
            return f'the {field} was read in the wrong encoding: "{shown(text[found.start() : found.start() + 20])}"'
    return None


def repair_encoding(entry: Entry) -> Entry:
    """The entry with what can be mended mended (ftfy), control characters left out; the same object if it was fine."""
    ftfy = _ftfy()
    return with_texts(entry, lambda text: CONTROL.sub("", ftfy.fix_encoding(text)))


# ---- all of them ----

FILTERS: Mapping[str, Callable[[Entry, Limits], str | None]] = {
    "length": check_length,
    "repetition": of_exchanges(check_repetition),
    "incomplete": of_exchanges(check_incomplete),
    "refusal": of_exchanges(check_refusal),
    "placeholder": of_exchanges(check_placeholder),
    "language": of_exchanges(check_language),
    "copied": check_copied,
    "encoding": check_encoding,
}


def make_filters(limits: Limits | None = None, names: list[str] | None = None) -> dict[str, Filter]:
    """The named filters (all by default) with these limits. Raises ValueError for a name that is not known."""
    chosen = list(FILTERS) if names is None else names
    if unknown := [name for name in chosen if name not in FILTERS]:
        raise ValueError(f"filter {unknown[0]!r} is not known: use some of {', '.join(FILTERS)}")
    return {name: partial(FILTERS[name], limits=limits or Limits()) for name in chosen}


def first_reason(entry: Entry, filters: Mapping[str, Filter]) -> str | None:
    """`name: reason` of the first filter that objects, or None."""
    for name, check in filters.items():
        if reason := check(entry):
            return f"{name}: {reason}"
    return None
