"""Evol-Instruct: instructions made harder, or turned into rarer ones, round after round.

    "Name a fruit." -> constraints -> "Name a fruit that is not sweet." -> deepen -> ... each with an answer of its own

Source: Xu et al. 2023, "WizardLM: Empowering Large Language Models to Follow Complex Instructions", arXiv:2304.12244,
section 3: five ways in depth and one in breadth, drawn at random each round; an elimination step of four rules; an
instruction whose evolution failed goes into the next round as it was. The prompts are ours, with that structure.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random

from gpt.curation.answers import ask_answer
from gpt.curation.replies import why_unusable, without_thoughts
from gpt.curation.teacher import (
    Ask,
    Job,
    Journal,
    Outcome,
    Teacher,
    entry_id,
    failed,
    is_hard,
    key_of,
    made_by,
    run_jobs,
)
from gpt.evaluation.chat_client import ChatError
from gpt.evaluation.metrics import rouge_l
from gpt.text.entries import Entry, words

OPERATIONS = {
    "constraints": "Add one more condition or requirement that the answer has to meet.",
    "deepen": "Make it ask for more depth and breadth about the same thing.",
    "concretize": "Replace what is general in it by something more specific.",
    "reasoning": "Change it so that it takes several steps of reasoning where one was enough, each to be shown.",
    "complicate_input": "Give it data to work on, in full: a table, a JSON object, a piece of code or a formula.",
    "breadth": "",
}
IN_DEPTH = """\
Rewrite an instruction into a somewhat harder one. {operation}
It must stay sensible, possible to answer in text alone, and understood by people. Keep every number, name, table and
code of the original. Add 10 to 20 words, no more. Reply with the new instruction alone: do not answer it, and do not
speak of this request.

<instruction>
{instruction}
</instruction>"""
IN_BREADTH = """\
Write a new instruction of the same field as the one below, about as long and as hard, but on a rarer matter. It must
be sensible, possible to answer in text alone, and understood by people. Reply with the new instruction alone: do not
answer it, and do not speak of this request.

<instruction>
{instruction}
</instruction>"""
SAME = """\
Do two instructions ask for the same, with the same requirements and the same depth? Reply with yes or no.

<first>
{first}
</first>

<second>
{second}
</second>"""
SPEAKS_OF_REQUEST = re.compile(
    r"</?(instruction|first|second)>|\b(given|original|new|rewritten|harder) (instruction|prompt)\b"
    r"|原(始)?指令|改写后的|新指令",
    re.IGNORECASE,
)
LABEL = re.compile(r"\A(?:\W*(?:new|rewritten|harder)?\s*(?:instruction|prompt)\W*[:：]\s*)", re.IGNORECASE)
STOP_WORDS = set(
    "a an and are as at be but by can do for from has have he i if in is it its me my no not of on or our she so that"
    " the their them then there they this to was we were what which who will with you your yes ok okay"
    " 的 了 是 在 和 有 不 我 你".split()
)
CHANGED = 0.95  # ROUGE-L to the original from which on nothing was gained: no need to ask
Results = Iterator[tuple[Job, Outcome | ChatError]]


def task_text(entry: Entry) -> str:
    """Instruction and input as the one text that evolves."""
    return entry["instruction"] + (f"\n\n{entry['input']}" if entry.get("input") else "")


def evolve_job(entry: Entry, round: int, position: int, seed: int, operations: Sequence[str]) -> Job:
    text = task_text(entry)
    operation = Random(f"{seed} {round} {text}").choice(list(operations))
    form = IN_BREADTH if operation == "breadth" else IN_DEPTH
    prompt = form.format(operation=OPERATIONS[operation], instruction=text)
    work = partial(evolve, prompt=prompt, entry=entry, operation=operation, round=round)
    key = key_of("evolve", str(round), operation, text)
    return Job(key, (round, position), prompt, work, n_asks=3, reply_tokens=120, hard=is_hard(entry) or round > 2)


def evolve(ask: Ask, prompt: str, entry: Entry, operation: str, round: int) -> Outcome:
    """Ask for the evolution, whether it gained anything, and for its answer; eliminate what failed."""
    old = task_text(entry)
    reply = without_thoughts(ask(prompt))
    new = LABEL.sub("", re.sub(r"</?instruction>", "", reply)).strip().strip('"').strip()
    about = {"instruction": new, "parent": old, "operation": operation, "round": round}
    if reason := why_unusable(reply) or why_not_evolved(old, new):
        return failed(reason, **about)
    verdict = without_thoughts(ask(SAME.format(first=old, second=new)))
    if re.match(r"\W*(yes\b|是|相同)", verdict, re.IGNORECASE):
        return failed("no gain: the teacher finds it asks for the same", **about)
    evolved = {"instruction": new, "input": ""}
    answer, reason = ask_answer(evolved, ask)
    if reason := reason or why_no_answer(answer):
        return failed(reason, output=answer, **about)
    history = [*entry.get("history", []), {"instruction": old, "operation": operation}]
    made = made_by(f"evol-instruct:{operation}", entry_id(entry), round)
    return Outcome([evolved | {"output": answer, "source": "evol-instruct", "history": history, "made": made}])


def why_not_evolved(old: str, new: str) -> str | None:
    """The reason why a rewriting is none: it copies the request or the original, ran away, or is an answer."""
    n_old, n_new = len(words(old)), len(words(new))
    if SPEAKS_OF_REQUEST.search(new) and not SPEAKS_OF_REQUEST.search(old):
        return "it speaks of the request"
    if n_new < 3:
        return "fewer than three words"
    if rouge_l(new, old) > CHANGED:
        return "no gain: it is the original"
    if n_new > 3 * n_old + 200:
        return "it ran away: three times as long and more"
    return None


def why_no_answer(answer: str) -> str | None:
    """The paper's third and second rule on answers: no words but stop words, or a short text with "sorry" in it."""
    found = words(answer)
    if not set(found) - STOP_WORDS and not any(word.isdigit() for word in found):
        return "the answer has no content: stop words only"
    if "sorry" in found and len(found) < 80:
        return "a short answer with sorry in it"
    return None


def evol_instruct(
    entries: Sequence[Entry], rounds: int, journal: Journal, teachers: Sequence[Teacher], *,
    operations: Sequence[str] = tuple(OPERATIONS), n_workers: int = 4, seed: int = 123,
) -> Results:  # fmt: skip
    """Each entry evolved `rounds` times, a round of all at a time; where it fails, the next round starts from before.

    Every evolved entry comes with its "history": what it was, and what was done to it.
    """
    if unknown := set(operations) - set(OPERATIONS):
        raise ValueError(f"{sorted(unknown)} are no ways to evolve: use {', '.join(OPERATIONS)}")
    current = dict(enumerate(entries))
    for round in range(1, rounds + 1):
        jobs = [evolve_job(entry, round, i, seed, operations) for i, entry in current.items()]
        for job, outcome in run_jobs(jobs, journal, teachers, n_workers):
            yield job, outcome
            if isinstance(outcome, ChatError):
                del current[job.order[1]]  # the next run asks again, and goes on from what is said then
            elif outcome.entries:
                current[job.order[1]] = outcome.entries[0]
