"""The speedrun: how many seconds from a fixed start to a fixed validation loss?

The start is the bundled gpt2-tiny, the entries are the bundled ones in one order, and everybody takes batches of 8. The
loss on responses is looked at every so many steps, with the clock running, and the weights are loaded within the time
too. Whoever wants to compete adds a contestant to RUNNERS: the rules are start, entries, batches and target.
The idea: Jordan 2024, "modded-nanogpt", which fixes the loss and lets everything else free.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from gpt.model.gpt2 import GPT
from gpt.studies.contestants import (
    Contestant,
    Done,
    Task,
    batches_of,
    our_reports,
    read_data,
    textbook_logits,
    textbook_steps,
)
from gpt.text.dataset import Example, InstructionDataset, collate
from gpt.text.entries import Entry, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import load_model, write_json

START, BATCH, N_VAL, LR = "gpt2-tiny", 8, 96, 5e-4
EVERY = 20  # steps between looks at the loss
TARGET = 2.4  # nats per token of the responses; the start has 5.24
AT_MOST = 2000  # steps


def write_run(path: Path, entries: Sequence[Entry], target: float) -> None:
    """The file that the contestants read."""
    trained, val, _ = split_entries(list(entries))
    trained, val = random.Random(123).sample(trained, len(trained)), random.Random(123).sample(val, N_VAL)
    write_json(path, {"entries": trained, "val": val, "batch_size": BATCH, "every": EVERY, "target": target,
                      "prompts": [], "limits": []})  # fmt: skip


def missed(task: Task, loss: float | None) -> ValueError:
    return ValueError(f"{task.way} has a loss of {loss} after {AT_MOST} steps and did not reach the target")


def run_ours(task: Task) -> Iterator[Done | None]:
    """`gpt.train`, which validates by itself."""
    yield None
    data = read_data(task)
    while True:
        loss = None
        for report in islice(our_reports(task, data.val, data.every), AT_MOST + 1):
            loss = report.val["response"] if report.val else loss
            if loss is not None and loss <= data.target:
                break
        else:
            raise missed(task, loss)
        yield Done(loss, 1)


def run_textbook(task: Task) -> Iterator[Done | None]:
    """The textbook's loop with a look at the loss in between."""
    yield None
    data, batches = read_data(task), batches_of(task)
    val = InstructionDataset(data.val, load_tokenizer()).examples
    while True:
        model, loss = load_model(task.folder, task.device), None
        for step, _ in enumerate(islice(textbook_steps(model, batches, task), AT_MOST), 1):
            loss = textbook_val(model, val, task) if step % data.every == 0 else loss
            if loss is not None and loss <= data.target:
                break
        else:
            raise missed(task, loss)
        yield Done(loss, 1)


@torch.no_grad()
def textbook_val(model: GPT, examples: Sequence[Example], task: Task) -> float:
    """Nats per token of the responses."""
    total = n = 0
    for start in range(0, len(examples), BATCH):
        inputs, targets = (t.to(task.device) for t in collate(examples[start : start + BATCH], "response"))
        total += F.cross_entropy(
            textbook_logits(model, inputs).flatten(0, 1), targets.flatten(), reduction="sum"
        ).item()
        n += int((targets >= 0).sum())
    return total / n


RUNNERS: dict[str, Contestant] = {"ours": run_ours, "textbook": run_textbook}
