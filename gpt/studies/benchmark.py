"""The benchmark: this library against what people would use instead.

A duel sets ours against one peer. Each runs in a process of its own, from the same weights, on the same entries in the
same order; they take turns (A B A B) while the other sleeps. Each pair of turns gives a ratio of real tokens per second
(padding is no work); a duel tells the median of its ratios, with the lowest and the highest. Before any turn counts,
the losses of the first two steps are compared with those that transformers has, or the ids with those of the peer, and
a contestant that computes something else is refused. `speed_report.py` makes tables and pictures of it.
"""

import importlib.util
import json
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from gpt.model.gpt2 import GPT
from gpt.studies.arena import Worker
from gpt.studies.contestants import Task
from gpt.studies.speedrun import LR, START, write_run
from gpt.text.dataset import FIRST_KIND, Example, InstructionDataset
from gpt.text.entries import Entry
from gpt.text.prompts import encode_prompt
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import SIZES, find_folder, load_model, save_model, write_json

MEAN_TOKENS, MEAN_RESPONSE = 57, 13  # of the best-known published set: a row, and its response with the end of text
TOLERANCE = {"float32": 1e-4, "bf16": 1e-2}  # of the first step's loss, as a share; the order of sums differs
AFTER_A_STEP = {"float32": 5e-3, "bf16": 0.1}  # of the second one's: AdamW's first update has the signs alone
SAME_IDS = 0.9  # of two that decode in float32: a tie may fall either way, and what follows it differs
DRAWN = 24  # candidates for each entry of the benchmark
PACKED = "packed documents share rows, so a step's loss is not comparable and was not checked"
FEW = 8  # prompts that are answered without a cache
DECODING = ("float32", "bf16", "float16", "int8")  # what ours decodes in: the last two as weights alone, on a CPU


class WrongWork(ValueError):
    """A contestant does not compute what the others do."""


@dataclass(frozen=True)
class Duel:
    name: str
    ours: Task
    peer: Task
    rounds: int
    note: str = ""
    facts: dict = field(default_factory=dict)  # stand in the result as they are

    @property
    def is_between_ways(self) -> bool:
        """Two ways of the same work, so that results can be compared; else one way at two sizes."""
        return self.ours.way != self.peer.way


# ---- what is measured on ----


def draw_entries(entries: Sequence[Entry], n: int, seed: int) -> list[Entry]:
    """n entries whose lengths have the published means: of DRAWN at random, the one that brings both nearest."""
    dataset = InstructionDataset(entries, load_tokenizer())
    if n > len(dataset):
        raise ValueError(f"{n} entries are wanted, {len(dataset)} are there")
    sizes = [(len(e.ids), n_response(e)) for e in dataset.examples]
    left, rng = set(range(len(sizes))), random.Random(seed)
    chosen, wanted = [], (0, 0)  # how many tokens, of rows and of responses, are missing to the means
    while len(chosen) < n:
        wanted = (wanted[0] + MEAN_TOKENS, wanted[1] + MEAN_RESPONSE)

        def distance(row: int, wanted: tuple[int, int] = wanted) -> float:
            return abs(wanted[0] - sizes[row][0]) / MEAN_TOKENS + abs(wanted[1] - sizes[row][1]) / MEAN_RESPONSE

        row = min(rng.sample(sorted(left), min(DRAWN, len(left))), key=distance)
        left.remove(row)
        wanted = (wanted[0] - sizes[row][0], wanted[1] - sizes[row][1])
        chosen.append(dataset.entries[row])
    return chosen


def n_response(example: Example) -> int:
    """Tokens of the response, with its end of text."""
    return sum(kind >= FIRST_KIND["response"] for kind in example.kinds)


def write_data(path: Path, entries: Sequence[Entry], batch_size: int, n_prompts: int) -> dict[str, float]:
    """The file that the contestants read: entries in batches, and the prompts of the last n of them with the lengths of
    their references. Gives the means over all."""
    tokenizer = load_tokenizer()
    trained, asked = entries[: len(entries) - n_prompts], entries[len(entries) - n_prompts :]
    limits = [len(tokenizer.encode(entry["output"])) + 1 for entry in asked]  # with its end of text
    prompts = [encode_prompt(entry, tokenizer) for entry in asked]
    write_json(path, {"entries": trained, "batch_size": batch_size, "prompts": prompts, "limits": limits})
    examples = InstructionDataset(entries, tokenizer).examples
    return {
        "mean_tokens": statistics.mean(len(e.ids) for e in examples),
        "mean_response": statistics.mean(map(n_response, examples)),
        "mean_squared_tokens": statistics.mean(len(e.ids) ** 2 for e in examples),
    }


def write_one(data: Path, path: Path, n_new: int = 64) -> None:
    """The same file with one prompt alone, the one of median length, to be continued by n_new tokens."""
    found = json.loads(data.read_text(encoding="utf-8"))
    prompt = sorted(found["prompts"], key=len)[len(found["prompts"]) // 2]
    write_json(path, found | {"prompts": [prompt], "limits": [n_new]})


def write_model(name: str, folder: Path) -> bool:
    """Write the model's weights in Hugging Face's layout, which all contestants read; random ones where its own are not
    here. Gives whether they are random."""
    try:
        model, is_random = load_model(find_folder(name)), False
    except FileNotFoundError:
        if name not in SIZES:
            raise
        torch.manual_seed(0)
        model, is_random = GPT(SIZES[name]), True
    save_model(model, folder)
    return is_random


def make_duels(task: Task, one: str, rounds: int, has_peers: bool) -> list[Duel]:
    """All duels, in the order in which they are fought, made from ours at training in float32; `one` is the file with
    one prompt."""
    duels = []

    def add(
        name: str, ours: Task, way: str, precision: str, n: int = rounds, note: str = "", **changed: object
    ) -> None:
        peer = replace(ours, way=way, precision=precision, **changed)
        duels.append(Duel(f"{name} {ours.precision} vs {way} {precision}", ours, peer, n, note))

    bf16, whole = replace(task, precision="bf16"), replace(task, loss_on="all")
    add("train response", task, "textbook", "float32")
    add("train response", bf16, "textbook", "bf16")
    add("train response", bf16, "textbook", "float32")
    add("train all", whole, "textbook", "float32")
    if has_peers:
        for ours in (task, bf16):
            for way in ("transformers", "trl", "trl-packed"):
                add("train response", ours, way, ours.precision, note=PACKED if way == "trl-packed" else "")
        for way in ("transformers", "trl"):
            add("train all", whole, way, "float32")
    fewer = max(1, rounds - 2)
    many = replace(task, work="decode")
    add("decode many", many, "textbook", "float32", 1, f"the textbook answers {FEW} prompts at most", n_prompts=FEW)
    for precision in DECODING if task.device == "cpu" else DECODING[:2]:
        for name, of in (("many", many), ("one", replace(many, data=one))):
            ours = replace(of, precision=precision)
            if has_peers:
                add(f"decode {name}", ours, "transformers", "float32", fewer)
            elif name == "one":
                add(f"decode {name}", ours, "textbook", "float32", fewer)
    return duels


def make_speedrun(task: Task, path: Path, entries: Sequence[Entry], target: float, rounds: int) -> list[Duel]:
    """From the bundled weights to a loss; `path` is the file that the contestants will read. See speedrun.py."""
    write_run(path, entries, target)
    ours = replace(task, work="speedrun", folder=str(find_folder(START)), data=str(path), lr=LR)
    return [Duel(f"{START} to {target} nats, ours vs textbook", ours, replace(ours, way="textbook"), rounds)]


def is_wanted(name: str, only: Sequence[str], measured: dict[str, dict]) -> bool:
    """Whether to fight a duel: those with a part of `only` in their name (or matched by it: * and ?), else all that are
    not measured to their end."""
    if only:
        return any(part in name or fnmatch(name, part) for part in only)
    return not measured.get(name, {}).get("is_whole")


# ---- a duel ----


Start = Callable[[Task], Worker]
Right = tuple[Sequence[float], str]  # the losses of the first two steps, and who says so


def right_losses(task: Task, start: Start) -> Right:
    """What transformers has in float32, or the textbook without it."""
    way = "transformers" if importlib.util.find_spec("transformers") else "textbook"
    contestant = start(replace(task, way=way, precision="float32"))
    try:
        return contestant.turn(2)["losses"], way
    finally:
        contestant.close()


def check_losses(task: Task, losses: Sequence[float], expected: Sequence[float]) -> None:
    """Raises WrongWork if the first two steps have other losses than expected."""
    for step, (loss, right) in enumerate(zip(losses, expected, strict=True), 1):
        limit = (TOLERANCE if step == 1 else AFTER_A_STEP)[task.precision]
        if not abs(loss - right) <= limit * right:
            raise WrongWork(
                f"{task.way} ({task.precision}, loss on {task.loss_on}) has a loss of {loss:.5f} in step {step} where "
                f"{right:.5f} is right, so it does other work: no speed is measured"
            )


def check_ids(task: Task, ids: Sequence[list[int]], expected: Sequence[list[int]]) -> None:
    """Raises WrongWork if too few of the new ids are those expected."""
    if (share := same_share(ids, expected)) < SAME_IDS:
        raise WrongWork(
            f"{task.way} ({task.precision}) has {share:.0%} of the ids that are right, so it does other work: no speed "
            "is measured"
        )


def same_share(a: Sequence[list[int]], b: Sequence[list[int]]) -> float:
    """Of the new ids of the prompts that both answered; a peer may have been given fewer."""
    pairs = [pair for rows in zip(a, b, strict=False) for pair in zip(*rows, strict=True)]
    return sum(x == y for x, y in pairs) / len(pairs)


def warm_up(duel: Duel, workers: Sequence[Worker], right: Right | None) -> None:
    """A first turn of each, which counts for nothing but shows whether both do the work."""
    if duel.ours.work == "speedrun":
        return  # its clock runs from the start
    ours, peer = (worker.turn(2 if right else 1) for worker in workers)
    for task, done in ((duel.ours, ours), (duel.peer, peer)):
        if right and task.way != "trl-packed":
            check_losses(task, done["losses"], right[0])
    if duel.is_between_ways and duel.ours.work == "decode" and duel.ours.precision == duel.peer.precision == "float32":
        check_ids(duel.ours, ours["ids"], peer["ids"])


def check_amounts(duel: Duel, turns: Sequence[dict]) -> None:
    """Raises WrongWork if two that are given the same did not do as much. Packed rows hold other entries each step."""
    is_same = duel.ours.n_prompts == duel.peer.n_prompts and duel.peer.way != "trl-packed"
    ours, peer = (turn["amount"] for turn in turns)
    if duel.is_between_ways and is_same and ours != peer:
        raise WrongWork(f"{duel.name}: in one turn ours did {ours} tokens and the peer {peer} of the same work")


def fight(duel: Duel, start: Start, steps: int, right: Right | None = None) -> Iterator[dict]:
    """The duel so far, after each round. Raises WrongWork before the first round if a contestant has other losses than
    the right ones."""
    workers: list[Worker] = []
    try:
        for task in (duel.ours, duel.peer):
            workers.append(start(task))
        warm_up(duel, workers, right)
        rounds = []
        for _ in range(duel.rounds):
            rounds.append([worker.turn(steps if duel.ours.work == "train" else 1) for worker in workers])
            check_amounts(duel, rounds[-1])
            yield summary(duel, rounds) | {"losses_checked_with": right[1] if right else None}
    finally:
        for worker in workers:
            worker.close()


def fight_all(duels: Sequence[Duel], start: Start, steps: int) -> Iterator[tuple[Duel, dict]]:
    """Each duel in turn, so far, after each of its rounds."""
    right: dict[str, Right] = {}  # by the tokens that count
    for duel in duels:
        is_checked = duel.ours.work == "train" and duel.is_between_ways
        if is_checked and duel.ours.loss_on not in right:
            right[duel.ours.loss_on] = right_losses(duel.ours, start)
        losses = right[duel.ours.loss_on] if is_checked else None
        for result in fight(duel, start, steps, losses):
            yield duel, result


def summary(duel: Duel, rounds: Sequence[Sequence[dict]]) -> dict:
    """What the rounds say: medians, and of the ratio the lowest and the highest as well."""
    speeds = [[turn["amount"] / turn["seconds"] for turn in turns] for turns in rounds]
    ratios = [ours / peer for ours, peer in speeds]
    sides = {
        side: asdict(task) | {
            "per_second": statistics.median(speed[place] for speed in speeds),
            "seconds": [turns[place]["seconds"] for turns in rounds],
            "amount": [turns[place]["amount"] for turns in rounds],
            "peak_bytes": rounds[-1][place]["peak_bytes"],
            "libraries_bytes": rounds[-1][place]["libraries_bytes"],
        }
        for place, (side, task) in enumerate((("ours", duel.ours), ("peer", duel.peer)))
    }  # fmt: skip
    for side in sides.values():
        del side["folder"], side["data"]  # temporary places
    result = {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios), "ratios": ratios}
    if duel.ours.work == "decode" and duel.is_between_ways:
        result["same_ids"] = same_share(*(turn["ids"] for turn in rounds[-1]))
    return (
        result | sides | duel.facts | {"note": duel.note, "rounds": len(rounds), "is_whole": len(rounds) == duel.rounds}
    )
