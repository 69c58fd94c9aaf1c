"""What comes before training, as tasks for the benchmark: entries become batches, a file becomes a model.

See contestants.py for what a contestant is. There is one way of each, ours: `growth.py` measures how the cost grows.
"""

import random
from collections.abc import Iterator

import torch

from gpt.studies.contestants import Contestant, Done, Task, read_data
from gpt.text.dataset import InstructionDataset, batches_by_length, collate
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import load_model

READ = 64  # tokens of the row that `forward` reads


def encode(task: Task) -> Iterator[Done | None]:
    yield None
    entries, tokenizer = read_data(task).entries, load_tokenizer()
    while True:
        yield Done(None, len(InstructionDataset(entries, tokenizer)))


def group(task: Task) -> Iterator[Done | None]:
    """Into batches of about one length."""
    yield None
    data = read_data(task)
    lengths = InstructionDataset(data.entries, load_tokenizer()).lengths()
    while True:
        batches = list(batches_by_length(lengths, data.batch_size, random.Random(0)))
        yield Done(None, sum(map(len, batches)))


def collate_all(task: Task) -> Iterator[Done | None]:
    """Every batch of an epoch, one after the other."""
    yield None
    data = read_data(task)
    dataset = InstructionDataset(data.entries, load_tokenizer())
    batches = list(batches_by_length(dataset.lengths(), data.batch_size, random.Random(0)))
    while True:
        rows = sum(len(collate([dataset[i] for i in batch], task.loss_on)[0]) for batch in batches)
        yield Done(None, rows)


def load(task: Task) -> Iterator[Done | None]:
    yield None
    while True:
        yield Done(None, sum(p.numel() for p in load_model(task.folder, task.device).parameters()))


def forward(task: Task) -> Iterator[Done | None]:
    """One row through the model."""
    yield None
    model, ids = load_model(task.folder, task.device).eval(), torch.arange(READ, device=task.device)[None]
    while True:
        with torch.inference_mode():
            model(ids)
        yield Done(None, sum(p.numel() for p in model.parameters()))


CHORES: dict[str, Contestant] = {
    "encode": encode,
    "group": group,
    "collate": collate_all,
    "load": load,
    "forward": forward,
}
