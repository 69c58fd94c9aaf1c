"""Self-Instruct: a teacher that is shown some tasks thinks of new ones, which join the pool it is shown from.

    seed tasks -> pool -> k tasks in a prompt -> new instructions -> filters -> classification or not -> instances
                   ^                                                                                        |
                   +----------------------------------------------------------------------------------------+

Source: Wang et al. 2022, "Self-Instruct: Aligning Language Models with Self-Generated Instructions", arXiv:2212.10560,
section 2 (the four steps) and appendix A.2: k = 8 tasks in a prompt, 2 of them machine-made; of classification tasks
the output is asked for before the input, as else most inputs have the same label; ROUGE-L above 0.7 to an instruction
of the pool, words that a language model cannot serve, and the length decide what is left out. The prompts are ours.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from random import Random
from typing import NamedTuple

from gpt.curation.replies import labelled_parts, listed_items, why_unusable, without_thoughts
from gpt.curation.teacher import (
    Ask,
    Job,
    Journal,
    Outcome,
    Teacher,
    drop,
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

TOO_SIMILAR = 0.7  # ROUGE-L from which on, exclusively, an instruction is left out
FEWEST, MOST = 4, 150  # words of an instruction
N_BARREN = 10  # rounds in a row without an entry: nothing will come of this teacher

CANNOT_SERVE = re.compile(
    r"\b(images?|graphs?|pictures?|photos?|files?|maps?|draw|plots?|go to|videos?|audio|music|flowcharts?|diagrams?)\b"
    r"|图片|图像|照片|视频|音频|音乐|地图|文件|画出|流程图",
    re.IGNORECASE,
)
HEADING = re.compile(
    r"(input|output|task|instruction|answer|example|note|class label|题目|输入|输出)s?\s*\d*\s*[:：]", re.I
)
NO_TASK = re.compile(r"write a program\b", re.IGNORECASE)
STATEMENT = re.compile(r"(the|this|that|these|it|there|he|she|they|i|we)(['’]\w+)? [^.?!:;\n]+[.!]?", re.IGNORECASE)
REMARK = re.compile(r"((i )?hope (this|that|these|it)|let me know if you|feel free to)\b[^?:\n]*", re.IGNORECASE)
NO_INPUT = re.compile(r"\W*(no ?input|none|n/a|not (needed|required|applicable)|empty|nothing|无)\W*", re.IGNORECASE)
NEEDS_INPUT = re.compile(
    r"\b(the following|given below|provided|given|below)\b[^.?!]{0,30}\b"
    r"(sentences?|texts?|paragraphs?|passages?|words?|numbers?|lists?|articles?|reviews?|emails?|code|phrases?)\b"
    r"|(下面|以下|下列|给定)的?\w{0,6}(句子|文本|段落|文章|词语|数字|列表|评论|代码)",
    re.IGNORECASE,
)

PROPOSE = """\
Think of new tasks for a language model. Make them differ from the ones below and from each other in topic, in form and
in what has to be done. A task must be clear by itself, be about text alone, and not repeat another in other words.
Go on with the list in the same form, one task a line, up to task {last}.

{tasks}
Task {next}:"""

CLASSIFY = """\
Is the answer to the task one label out of a few that are known beforehand, such as yes/no, positive/negative or one
of several categories? Reply with yes or no.

{examples}

Task: {instruction}
Answer:"""

INPUT_FIRST = """\
Write an example for the last task, as for the others. First the input that the task works on, or (none) where it needs
none; then an output that solves the task fully and correctly. Then, if the task takes an input, one more example.

{examples}

Task: {instruction}
"""

OUTPUT_FIRST = """\
Write one example for each possible label of the last task, as for the others. First the label, as the output; then an
input for which just this label is right.

{examples}

Task: {instruction}
"""


class Task(NamedTuple):
    instruction: str
    instances: tuple[tuple[str, str], ...]  # input, output
    is_classification: bool
    id: str


Results = Iterator[tuple[Job, Outcome | ChatError]]


def tasks_of(entries: Sequence[Entry]) -> list[Task]:
    """Entries with one instruction are the instances of one task; both self-instruct's own file and ours serve."""
    by_instruction: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_instruction[entry["instruction"].strip()].append(entry)
    return [
        Task(
            instruction,
            tuple((e["input"], e["output"]) for e in group),
            bool(group[0].get("is_classification", group[0].get("kind") == "classification")),
            str(group[0].get("id") or entry_id(group[0])),
        )
        for instruction, group in by_instruction.items()
    ]


class Pool:
    """The instructions so far, and how near a new one comes to them."""

    def __init__(self, instructions: Sequence[str]) -> None:
        self.known = [(text, Counter(words(text))) for text in instructions]

    def add(self, instruction: str) -> None:
        self.known.append((instruction, Counter(words(instruction))))

    def similar(self, instruction: str, limit: float = TOO_SIMILAR) -> tuple[str, float] | None:
        """The first instruction whose ROUGE-L is above the limit, with it.

        The words two texts share, in any order, bound their longest common subsequence: few pairs need more.
        """
        mine = Counter(words(instruction))
        for text, theirs in self.known:
            if 2 * (mine & theirs).total() > limit * (mine.total() + theirs.total()):
                score = rouge_l(instruction, text)
                if score > limit:
                    return text, score
        return None


def why_no_task(instruction: str) -> str | None:
    """The reason why this is no instruction to keep, or None: the paper's heuristics, for any script."""
    n = len(words(instruction))
    if HEADING.match(instruction) or not re.match(r"[\w\"'“‘(（「《¿¡]", instruction):
        return "begins as a heading or with a sign"
    if REMARK.fullmatch(instruction):
        return "a remark of the teacher"
    if STATEMENT.fullmatch(instruction):
        return "a statement that asks for nothing"
    if NO_TASK.match(instruction):
        return "a program as such, without saying which"
    if not FEWEST <= n <= MOST:
        return f"fewer than {FEWEST} words" if n < FEWEST else f"more than {MOST} words"
    if found := CANNOT_SERVE.search(instruction):
        return f"needs more than text: {found[0].lower()}"
    return None


# ---- new instructions ----


def propose_job(tasks: Sequence[Task], made: Sequence[Task], k: int, n_made: int, place: tuple[int, int, int]) -> Job:
    """The request for new instructions that follows k examples, `n_made` of them machine-made where there are any.

    place: seed, round, and number in the round, on which the draw depends.
    """
    rng = Random(" ".join(map(str, place)))
    shown = rng.sample(made, min(n_made, len(made), k))
    shown += rng.sample(tasks, min(k - len(shown), len(tasks)))
    rng.shuffle(shown)
    lines = [f"Task {i}: {' '.join(task.instruction.split())}" for i, task in enumerate(shown, 1)]
    prompt = PROPOSE.format(tasks="\n".join(lines), next=len(lines) + 1, last=2 * len(lines))
    work = partial(propose, prompt=prompt, parents=[task.id for task in shown])
    return Job("propose " + key_of(*map(str, place)), (place[1], 0, place[2]), prompt, work, reply_tokens=25 * k)


def propose(ask: Ask, prompt: str, parents: list[str]) -> Outcome:
    """New instructions as `kept`; those whose form is wrong are dropped already."""
    reply = ask(prompt)
    if reason := why_unusable(reply):
        return failed(reason, reply=reply)
    texts = [item.strip().strip('"') for item in listed_items(reply)]
    if not texts:
        return failed("no list of tasks in the reply", reply=reply)
    reasons = [(text, why_no_task(text)) for text in texts]
    kept = [{"instruction": text, "parents": parents} for text, reason in reasons if not reason]
    return Outcome([], [drop(reason, instruction=text) for text, reason in reasons if reason], kept)


def accept(outcome: Outcome, pool: Pool) -> tuple[list[dict], list[dict]]:
    """The instructions that are new to the pool, which takes them in; and the others as dropped rows."""
    accepted, dropped = [], []
    for candidate in outcome.kept:
        text = candidate["instruction"]
        if near := pool.similar(text):
            reason = f"ROUGE-L above {TOO_SIMILAR} to another"
            dropped.append(drop(reason, instruction=text, near=near[0], rouge_l=round(near[1], 3)))
        else:
            pool.add(text)
            accepted.append(candidate)
    return accepted, dropped


# ---- instances ----


def instance_job(instruction: str, parents: list[str], tasks: Sequence[Task], seed: int, order: tuple[int, ...]) -> Job:
    rng = Random(f"{seed} {instruction}")
    labels, others = ([task for task in tasks if task.is_classification is wanted] for wanted in (True, False))
    labels, others = (rng.sample(group, min(4, len(group))) for group in (labels, others))
    work = partial(instances, instruction=instruction, labels=labels, others=others,
                   made=made_by("self-instruct", parents, order[0] + 1))  # fmt: skip
    prompt = instance_prompt(instruction, others, False)
    hard = is_hard({"instruction": instruction, "input": "", "output": ""})
    return Job("instances " + key_of(instruction), order, prompt, work, n_asks=2, reply_tokens=60, hard=hard)


def classify_prompt(instruction: str, labels: Sequence[Task], others: Sequence[Task]) -> str:
    pairs = [(task.instruction, answer) for group, answer in ((labels, "yes"), (others, "no")) for task in group]
    Random(instruction).shuffle(pairs)
    examples = "\n\n".join(f"Task: {text}\nAnswer: {answer}" for text, answer in pairs)
    return CLASSIFY.format(examples=examples, instruction=instruction)


def instance_prompt(instruction: str, examples: Sequence[Task], output_first: bool) -> str:
    blocks = []
    for task in examples:
        pairs = [[f"Input: {given or '(none)'}", f"Output: {output}"] for given, output in task.instances[:2]]
        lines = [line for pair in pairs for line in (pair[::-1] if output_first else pair)]
        blocks.append("\n".join([f"Task: {task.instruction}", *lines]))
    form = OUTPUT_FIRST if output_first else INPUT_FIRST
    return form.format(examples="\n\n".join(blocks), instruction=instruction)


def instances(ask: Ask, instruction: str, labels: list[Task], others: list[Task], made: dict) -> Outcome:
    """Ask whether it is a classification task, then for instances, and leave out those that are of no use."""
    verdict = without_thoughts(ask(classify_prompt(instruction, labels, others))) if labels else "no"
    is_classification = bool(re.match(r"\W*(yes\b|是)", verdict, re.IGNORECASE)) or not others
    examples = labels if is_classification else others
    reply = ask(instance_prompt(instruction, examples, is_classification))
    if reason := why_unusable(reply):
        return failed(reason, instruction=instruction, reply=reply)
    text = own_part(reply).strip()
    parts = labelled_parts(text, ("input", "output"))
    if not parts and not is_classification and re.fullmatch(r"\w.*[.!?。！？]", text, re.DOTALL):
        parts = [{"output": text}]  # whole sentences without a label: the answer as such
    pairs = [(bare_input(part.get("input", "")), part.get("output", "")) for part in parts]
    kept, dropped = filter_instances(instruction, pairs, {pair for task in examples for pair in task.instances})
    if not parts:
        dropped = [drop("no input and output in the reply", instruction=instruction, reply=reply)]
    fields = {"kind": "classification"} if is_classification else {}
    entries = [
        {"instruction": instruction, "input": given, "output": output, **fields, "source": "self-instruct"}
        | {"is_classification": is_classification, "made": made}
        for given, output in kept
    ]
    return Outcome(entries, dropped)


def own_part(reply: str) -> str:
    """The reply up to where the teacher went on with another task of its own."""
    pieces = [piece for piece in re.split(r"^\W*Task\b", reply, flags=re.MULTILINE | re.IGNORECASE) if piece.strip()]
    return pieces[0] if pieces else ""


def bare_input(text: str) -> str:
    return "" if NO_INPUT.fullmatch(text) else text


def filter_instances(
    instruction: str, pairs: Sequence[tuple[str, str]], shown: set[tuple[str, str]]
) -> tuple[list[tuple[str, str]], list[dict]]:
    """(those that are kept, rows of those that are not): the paper's heuristics, and what weak teachers do besides."""
    outputs: dict[str, set[str]] = defaultdict(set)
    for given, output in pairs:
        outputs[given].add(output)
    kept, dropped = [], []
    for given, output in pairs:
        reason = why_no_instance(instruction, given, output)
        if not reason and len(outputs[given]) > 1:
            reason = "one input with different outputs"
        if not reason and ((given, output) in kept or (given, output) in shown):
            reason = "the same instance again" if (given, output) in kept else "copied from an example"
        if reason:
            dropped.append(drop(reason, instruction=instruction, input=given, output=output))
        else:
            kept.append((given, output))
    return kept, dropped


def why_no_instance(instruction: str, given: str, output: str) -> str | None:
    if reason := why_unusable(output):
        return "no output" if "nothing" in reason else reason
    if output.split() in (given.split(), instruction.split()):
        return "the output repeats the input or the instruction"
    if output.rstrip().endswith((":", "：", ",", "，")):
        return "the output breaks off"
    if NO_INPUT.fullmatch(output) or re.fullmatch(r"[(\[<][A-Za-z' ]{1,60}[)\]>]", output):
        return "a placeholder instead of an output"
    if not given and NEEDS_INPUT.search(instruction):
        return "speaks of an input that is not there"
    return None


# ---- the loop ----


def self_instruct(
    tasks: Sequence[Task], n: int, journal: Journal, teachers: Sequence[Teacher], *,
    k: int = 8, n_made: int = 2, batch: int = 4, n_workers: int = 4, seed: int = 123,
) -> Results:  # fmt: skip
    """Rounds of `batch` requests for instructions, then instances for the new ones, until there are n entries or more.

    The same journal, tasks and seed go through the same rounds again, without asking, and on from there. It ends early
    when every request of a round fails, or after ten rounds in a row that gave no entry.
    """
    if not tasks:
        raise ValueError("no seed tasks: self-instruct needs examples to begin with")
    pool, made, n_entries, n_barren, round = Pool([task.instruction for task in tasks]), [], 0, 0, 0
    while n_entries < n and n_barren < N_BARREN:
        jobs = [propose_job(tasks, made, k, n_made, (seed, round, i)) for i in range(batch)]
        found = sorted(run_jobs(jobs, journal, teachers, n_workers), key=lambda result: result[0].order)
        todo = []
        for job, outcome in found:
            if isinstance(outcome, ChatError):
                yield job, outcome
                continue
            accepted, dropped = accept(outcome, pool)
            yield job, Outcome(dropped=outcome.dropped + dropped)
            todo += accepted
        if all(isinstance(outcome, ChatError) for _, outcome in found):
            return
        jobs = [
            instance_job(**candidate, tasks=tasks, seed=seed, order=(round, 1, i)) for i, candidate in enumerate(todo)
        ]
        results = []
        for job, outcome in run_jobs(jobs, journal, teachers, n_workers):
            yield job, outcome
            results += [(job.order, outcome.entries)] if isinstance(outcome, Outcome) else []
        entries = [entry for _, found_entries in sorted(results, key=lambda r: r[0]) for entry in found_entries]
        made += tasks_of(entries)
        n_entries, n_barren, round = n_entries + len(entries), 0 if entries else n_barren + 1, round + 1


def expected_jobs(tasks: Sequence[Task], n: int, k: int = 8, seed: int = 123) -> list[Job]:
    """Jobs like those that n entries will take, for the estimate: half of k new instructions a request are kept."""
    texts = [task.instruction for task in tasks]
    n_proposals = -(-n // max(1, k // 2))
    jobs = [propose_job(tasks, [], k, 0, (seed, 0, i)) for i in range(n_proposals)]
    return jobs + [instance_job(texts[i % len(texts)], [], tasks, seed, (0, 1, i)) for i in range(n)]
