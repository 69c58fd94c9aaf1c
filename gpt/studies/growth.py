"""How does the cost grow, with the length of a row, the rows of a batch, the model, the number of entries?

Each size is set in a duel against the smallest of its kind: both take turns, so that a machine whose speed changes does
not bend the curve. What is told is the cost of one token (entry, weight) as a multiple of its cost at the smallest
size. It stays at 1 where the cost is linear; beside it stands the multiple that the needed work alone would give.
"""

import itertools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpt.model.gpt2 import GPTConfig
from gpt.studies.arena import Worker
from gpt.studies.benchmark import Duel, Start, write_model
from gpt.studies.contestants import Task
from gpt.studies.speed_report import n_weights, needed_flops
from gpt.text.dataset import encode_entry
from gpt.text.entries import Entry
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import SIZES, write_json

WIDTH, BATCH, N_NEW = 64, 8, 32  # tokens of a row; rows; new tokens for each prompt: where these do not vary


@dataclass(frozen=True)
class Sizes:
    """What is measured, from the smallest on."""

    lengths: Sequence[int] = (64, 128, 256, 512, 1024)  # tokens of a row
    rows: Sequence[int] = (1, 2, 4, 8, 16, 32)
    prompts: Sequence[int] = (1, 4, 16, 64)  # answered together
    entries: Sequence[int] = (1_000, 10_000, 100_000)
    trained: Sequence[str] = ("gpt2-tiny", "gpt2", "gpt2-medium")
    loaded: Sequence[str] = ("gpt2-tiny", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


ALL = Sizes()
LIGHT = Sizes((64, 128), (1, 2), (1, 4), (50, 500), (), ())  # a test of the harness


def entry_of(n_tokens: int, number: int = 0) -> Entry:
    """An entry of so many tokens: what is said does not change the work, unless another entry has the same beginning,
    so each number gives an instruction of its own."""
    entry, tokenizer = {"instruction": f"{number} times say it.", "input": "", "output": "a"}, load_tokenizer()
    n_more = n_tokens - len(encode_entry(entry, tokenizer).ids)
    if n_more < 0:
        raise ValueError(f"no entry is as short as {n_tokens} tokens")
    return entry | {"output": "a" + " a" * n_more}


def write_rows(path: Path, n_rows: int, n_tokens: int) -> str:
    """A file for contestants, with one batch."""
    rows = [entry_of(n_tokens, number) for number in range(n_rows)]
    write_json(path, {"entries": rows, "batch_size": n_rows, "prompts": [], "limits": []})
    return str(path)


def write_prompts(path: Path, n: int, length: int) -> str:
    prompts = [[number, *range(1, length)] for number in range(n)]  # what several begin with would be read once
    write_json(path, {"entries": [], "batch_size": 1, "prompts": prompts, "limits": [N_NEW] * n})
    return str(path)


def write_entries(path: Path, n: int, entries: Sequence[Entry]) -> str:
    """The bundled entries again and again."""
    many = list(itertools.islice(itertools.cycle(entries), n))
    write_json(path, {"entries": many, "batch_size": BATCH, "prompts": [], "limits": []})
    return str(path)


def needed(config: GPTConfig, n_tokens: int) -> float:
    """FLOPs of training, for each token of such rows."""
    return needed_flops(config, {"mean_tokens": n_tokens, "mean_squared_tokens": n_tokens**2}, "all")


def without_room(sizes: Sizes, folder: Path) -> list[str]:
    """The models that would not fit into this machine's memory three times, as they are made, saved and loaded, or not
    on the disk beside the smaller ones."""
    memory, free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), shutil.disk_usage(folder).free
    n_bytes = {name: 4 * n_weights(SIZES[name]) for name in sizes.loaded}
    return [name for name, n in n_bytes.items() if 3 * n > memory or 2 * n > free]


def in_turn(name: str, unit: str, sizes: dict[str, tuple[Task, float]], rounds: int) -> list[Duel]:
    """A duel of each size with the first. `sizes` has a task, and the work that each unit needs there."""
    if not sizes:
        return []
    (first, (smallest, least)), *others = sizes.items()
    return [
        Duel(f"{name}: {size} vs {first}", task, smallest, rounds,
             facts={"growth": name, "unit": unit, "size": size, "first": first, "expected": work / least})
        for size, (task, work) in others
    ]  # fmt: skip


def make_growth(
    task: Task, config: GPTConfig, entries: Sequence[Entry], scratch: Path, rounds: int, sizes: Sizes = ALL
) -> list[Duel]:
    """All duels, made from ours at training; the files that they read go to scratch. Models are left out that this
    machine has no room for; `with_models` writes the others when their turn has come."""
    models = {name: str(scratch / name) for name in sizes.loaded if name not in without_room(sizes, scratch)}
    duels = batch_duels(task, config, scratch, rounds, sizes)
    trained = replace(task, loss_on="all", data=write_rows(scratch / "batch.json", BATCH, WIDTH))
    of_models = {name: (replace(trained, folder=models[name]), needed(SIZES[name], WIDTH))
                 for name in sizes.trained if name in models}  # fmt: skip
    duels += in_turn(f"train, {BATCH} rows of {WIDTH} tokens", "token", of_models, rounds)
    for chore in ("load", "forward"):
        of_models = {name: (replace(task, work=chore, folder=folder), 1.0) for name, folder in models.items()}
        duels += in_turn(chore, "weight", of_models, rounds)
    many = {str(n): write_entries(scratch / f"entries-{n}.json", n, entries) for n in sizes.entries}
    for chore in ("encode", "group", "collate"):
        of_entries = {n: (replace(task, work=chore, data=data), 1.0) for n, data in many.items()}
        duels += in_turn(f"{chore}, entries", "entry", of_entries, rounds)
    return duels


def batch_duels(task: Task, config: GPTConfig, scratch: Path, rounds: int, sizes: Sizes) -> list[Duel]:
    """With one model: longer rows, more rows, more prompts."""
    train, decode = replace(task, loss_on="all"), replace(task, work="decode")
    lengths = {str(n): (replace(train, data=write_rows(scratch / f"length-{n}.json", 1, n)), needed(config, n))
               for n in sizes.lengths if n <= config.context_length}  # fmt: skip
    rows = {str(n): (replace(train, data=write_rows(scratch / f"rows-{n}.json", n, WIDTH)), 1.0) for n in sizes.rows}
    prompts = {str(n): (replace(decode, data=write_prompts(scratch / f"prompts-{n}.json", n, WIDTH)), 1.0)
               for n in sizes.prompts}  # fmt: skip
    return [
        *in_turn("train, tokens in a row", "token", lengths, rounds),
        *in_turn(f"train, rows of {WIDTH} tokens", "token", rows, rounds),
        *in_turn(f"decode {N_NEW} tokens, prompts at once", "token", prompts, rounds),
    ]


def with_models(start: Start) -> Start:
    """`start`, but a model of a known size that its task has no folder for is written first."""

    def start_it(task: Task) -> Worker:
        folder = Path(task.folder)
        if folder.name in SIZES and not folder.exists():
            write_model(folder.name, folder)
        return start(task)

    return start_it
