"""The contestants of the benchmark at training: this library, a textbook's loop, transformers in such a loop, TRL.

A contestant is a generator. It imports its libraries and yields None; loads the model; then every `next` does one piece
of work, a training step here, answers to all prompts in decoders.py, and yields what came of it. All begin from the
same files and are given the same entries in the same order; dropout is off, and everybody clips gradients at norm 1 and
decays weights.

The textbook's forward pass is written out here, on the weights of our model and none of its code: what makes the
library faster must not make its baseline faster too.
Sources: the training loop of PyTorch's tutorials and of Raschka 2024, "Build a Large Language Model (From Scratch)",
chapters 5 and 7; Hugging Face's documentation of `generate` and of TRL's SFTTrainer.
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.hardware.precision import autocast
from gpt.model.gpt2 import GPT
from gpt.text.dataset import Example, InstructionDataset, collate
from gpt.text.entries import Entry
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import StepReport, TrainConfig, make_optimizer, train
from gpt.weights.checkpoint import load_model, read_json

WEIGHT_DECAY, CLIP = 0.1, 1.0  # of every training contestant
NEVER = 10**9  # steps


@dataclass(frozen=True)
class Task:
    """What a contestant is asked to do, as it travels to a process of its own."""

    way: str  # who does it: ours, textbook ...
    work: str  # train, decode ...: a key of WORKS in arena.py
    folder: str  # of the model, in Hugging Face's layout
    data: str  # a JSON file: entries, batch_size, prompts, limits
    loss_on: str = "response"
    precision: str = "float32"
    device: str = "cpu"
    n_prompts: int | None = None  # the first so many; None means all
    lr: float = 5e-5


class Done(NamedTuple):
    """What came of one piece of work."""

    loss: float | Tensor | None  # nats per token that counted; read after the clock has stopped
    amount: int  # what speed is counted in: real tokens (read in training, new in decoding), entries, weights or runs
    ids: list[list[int]] | None = None  # new ids, prompt by prompt


Contestant = Callable[[Task], Iterator[Done | None]]


# ---- training: ours, and the loop that a textbook has ----


def read_data(task: Task) -> SimpleNamespace:
    data = SimpleNamespace(**read_json(Path(task.data)))
    data.prompts, data.limits = data.prompts[: task.n_prompts], data.limits[: task.n_prompts]
    return data


def batches_of(task: Task) -> list[list[Example]]:
    """The entries as examples, batch by batch, in the order of the file."""
    data = read_data(task)
    examples = InstructionDataset(data.entries, load_tokenizer()).examples
    return [examples[i : i + data.batch_size] for i in range(0, len(examples), data.batch_size)]


def our_reports(task: Task, val: Sequence[Entry], eval_every: int) -> Iterator[StepReport]:
    """`gpt.train` as everybody calls it, with the validation before the first step."""
    model, data = load_model(task.folder, task.device), read_data(task)
    dataset = InstructionDataset(data.entries, load_tokenizer())
    rows = list(range(len(dataset)))
    batches = [rows[i : i + data.batch_size] for i in rows[:: data.batch_size]]
    config = TrainConfig(
        epochs=NEVER, batch_size=data.batch_size, micro_batch=data.batch_size, lr=task.lr, schedule="constant",
        warmup=0.0, weight_decay=WEIGHT_DECAY, clip=CLIP, dropout=0.0, loss_on=task.loss_on, precision=task.precision,
        eval_every=eval_every,
    )  # fmt: skip
    val_set = InstructionDataset(val, load_tokenizer())
    yield from train(model, make_optimizer(model, config), dataset, val_set, config, batches_of=lambda epoch: batches)


def train_ours(task: Task) -> Iterator[Done | None]:
    yield None
    for report in our_reports(task, read_data(task).entries[:1], NEVER):
        if report.step:
            yield Done(report.loss, report.n_tokens)


def textbook_logits(model: GPT, inputs: Tensor) -> Tensor:
    """(B, T) -> (B, T, V): GPT-2 line by line, with PyTorch's own attention."""
    T, n_head = inputs.shape[1], model.config.n_head
    x = model.wte(inputs) + model.wpe(torch.arange(T, device=inputs.device))
    for block in model.h:
        qkv = block.attn.c_attn(block.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (n_head, -1)).transpose(1, 2) for part in qkv)  # (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + block.attn.c_proj(y.transpose(1, 2).flatten(2))
        x = x + block.mlp.c_proj(F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh"))
    return F.linear(model.ln_f(x), model.wte.weight)


def plain_loop(
    model: torch.nn.Module, batches: Sequence[list[Example]], loss_of: Callable[[list[Example]], Tensor], task: Task
) -> Iterator[Done]:
    """Loss, backward, clip, step, batch after batch without end."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=task.lr, weight_decay=WEIGHT_DECAY)
    for batch in itertools.cycle(batches):
        optimizer.zero_grad()
        with autocast(torch.device(task.device), task.precision):
            loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        yield Done(loss.detach(), sum(len(example.ids) for example in batch))


def train_textbook(task: Task) -> Iterator[Done | None]:
    yield None
    yield from textbook_steps(load_model(task.folder, task.device), batches_of(task), task)


def textbook_steps(model: GPT, batches: Sequence[list[Example]], task: Task) -> Iterator[Done]:
    """Padded batches, logits at every position."""

    def loss_of(batch: list[Example]) -> Tensor:
        inputs, targets = (tensor.to(task.device) for tensor in collate(batch, task.loss_on))
        return F.cross_entropy(textbook_logits(model, inputs).flatten(0, 1).float(), targets.flatten())

    yield from plain_loop(model, batches, loss_of, task)


# ---- training: transformers and TRL, which take unshifted labels ----


def row_labels(example: Example, loss_on: str) -> list[int]:
    """A label for each id, -100 where nothing counts: what `collate` masks, before its shift."""
    return [-100, *collate([example], loss_on)[1][0].tolist()]


def train_transformers(task: Task) -> Iterator[Done | None]:
    """Its model, with the loss that it computes itself, in a plain loop."""
    from transformers import GPT2LMHeadModel

    yield None
    model = GPT2LMHeadModel.from_pretrained(task.folder, dtype=torch.float32).to(task.device)  # else the file's
    eot_id = load_tokenizer().eot_id

    def loss_of(batch: list[Example]) -> Tensor:
        width = max(len(example.ids) for example in batch)
        rows = [(e.ids, row_labels(e, task.loss_on), width - len(e.ids)) for e in batch]
        ids = torch.tensor([ids + [eot_id] * n for ids, _, n in rows], device=task.device)
        labels = torch.tensor([labels + [-100] * n for _, labels, n in rows], device=task.device)
        mask = torch.tensor([[1] * len(ids) + [0] * n for ids, _, n in rows], device=task.device)
        return model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss

    yield from plain_loop(model, batches_of(task), loss_of, task)


def train_trl(task: Task, is_packed: bool = False) -> Iterator[Done | None]:
    """SFTTrainer without gradient checkpointing. It runs in a thread that waits after every step, because a Trainer
    cannot be stepped from outside."""
    import datasets
    from transformers import AutoTokenizer, GPT2LMHeadModel, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    yield None
    datasets.disable_progress_bars()
    examples = [example for batch in batches_of(task) for example in batch]
    batch_size = read_data(task).batch_size
    room = batch_size * sum(len(example.ids) for example in examples) // len(examples)  # a batch in one row
    steps, going = queue.Queue(), threading.Semaphore(0)

    class Recorded(SFTTrainer):
        def training_step(self, model: torch.nn.Module, inputs: dict, *others: object) -> Tensor:
            n = int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["input_ids"].numel()
            loss = super().training_step(model, inputs, *others)
            self.done = Done(loss.detach(), n)
            return loss

    class Wait(TrainerCallback):
        def on_step_end(self, *others: object, **more: object) -> None:
            steps.put(trainer.done)
            going.acquire()

    scratch = TemporaryDirectory(prefix="gpt-trl-")
    config = SFTConfig(
        output_dir=scratch.name, per_device_train_batch_size=1 if is_packed else batch_size, packing=is_packed,
        max_length=room if is_packed else 1024, max_steps=NEVER, learning_rate=task.lr, weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP, lr_scheduler_type="constant", gradient_checkpointing=False, bf16=task.precision == "bf16",
        use_cpu=task.device == "cpu", dataloader_pin_memory=task.device != "cpu", save_strategy="no", report_to="none",
        disable_tqdm=True, train_sampling_strategy="sequential",
    )  # fmt: skip
    rows = [{"input_ids": example.ids, "labels": row_labels(example, task.loss_on)} for example in examples]
    model = GPT2LMHeadModel.from_pretrained(task.folder, dtype=torch.float32)
    trainer = Recorded(
        model, config, train_dataset=datasets.Dataset.from_list(rows), callbacks=[Wait()],
        processing_class=AutoTokenizer.from_pretrained(task.folder),
    )  # fmt: skip

    def run() -> None:
        try:
            trainer.train()
        except BaseException as error:
            steps.put(error)

    threading.Thread(target=run, daemon=True).start()
    while True:
        done = steps.get()
        if isinstance(done, BaseException):
            raise done
        yield done
        going.release()


TRAINERS: dict[str, Contestant] = {
    "ours": train_ours,
    "textbook": train_textbook,
    "transformers": train_transformers,
    "trl": train_trl,
    "trl-packed": lambda task: train_trl(task, is_packed=True),
}
