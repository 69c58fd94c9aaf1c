"""The training loop, by hand: AdamW, warmup and cosine, clipping, accumulation by counted tokens, exact resume.

`train` is a generator: it yields a StepReport after every step, and whoever drives it draws bars, saves and stops.
What a step does depends on the weights, the optimizer's state, the configuration and the step's number alone: the order
of the entries follows from seed and epoch, dropout from seed and step. So a run that is stopped goes on bit for bit.
"""

import math
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from gpt.model.gpt2 import GPT
from gpt.text.dataset import FIRST_KIND, InstructionDataset, batches_by_length, collate
from gpt.training.loss import evaluate_loss, supervised_loss


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step, batch and entries."""


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run."""

    epochs: int = 2  # passes over the training entries
    batch_size: int = 8  # entries a step
    micro_batch: int = 8  # entries at a time; smaller needs less memory and gives the same step
    lr: float = 5e-5  # learning rate at its peak
    schedule: str = "cosine"  # after the warmup: cosine, linear or constant
    warmup: float = 0.05  # fraction of the steps
    weight_decay: float = 0.1  # on matrices, not on biases and layer norms
    clip: float = 1.0  # gradient norm
    dropout: float = 0.1  # probability
    loss_on: str = "response"  # tokens that count: response, header (and response) or all
    precision: str = "float32"  # float32, or bf16 for matrix products (weights stay float32)
    max_length: int = 1024  # tokens a row, at most; the model's context if that is shorter
    drop_last: bool = False  # leave out an epoch's last batch if it is not full
    eval_every: int = 0  # steps between validation losses; 0 means twice an epoch
    seed: int = 123  # of the split, the order of the entries and dropout

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch", "lr", "clip", "max_length"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be more than 0")
        for name in ("warmup", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 0 and less than 1")
        for name in ("weight_decay", "eval_every"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be negative")
        choices = {"schedule": SCHEDULES, "loss_on": FIRST_KIND, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}")


SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class StepReport:
    """What one step did. Step 0 comes before training and has validation losses only."""

    step: int  # steps done
    n_steps: int  # of the whole run
    epoch: float  # passes done
    loss: float | None  # nats per token that counted
    lr: float
    n_tokens: int  # real tokens read, without padding
    val: dict[str, float] | None = None  # the three losses over the whole validation set, when evaluated


def lr_at(step: int, n_steps: int, config: TrainConfig) -> float:
    """The learning rate of step 0 .. n_steps - 1: a linear rise, then down to a tenth of the peak, or flat."""
    n_warmup = int(config.warmup * n_steps)
    if step < n_warmup:
        return config.lr * (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - 1 - n_warmup)
    if config.schedule == "constant":
        return config.lr
    fall = done if config.schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
    return config.lr * (1 - 0.9 * fall)


def make_optimizer(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only: decay would pull the gains of layer norms from 1 towards 0."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Matrix products in bf16 where asked for; softmax, layer norm and loss stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def epoch_batches(dataset: InstructionDataset, config: TrainConfig, epoch: int) -> list[list[int]]:
    """Positions of the entries of each step of an epoch (0, 1, ...); they follow from the seed."""
    lengths = [len(example.ids) for example in dataset.examples]
    rng = random.Random(f"{config.seed} {epoch}")
    return list(batches_by_length(lengths, config.batch_size, rng, config.drop_last))


def train(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    train_set: InstructionDataset,
    val_set: InstructionDataset,
    config: TrainConfig,
    first_step: int = 0,
) -> Iterator[StepReport]:
    """Train to the end, from step `first_step` on; yields after every step and once before the first.

    Raises TrainingError, before the weights are touched, for a loss that is not finite.
    """
    steps_per_epoch = len(epoch_batches(train_set, config, 0))
    if not steps_per_epoch:
        raise ValueError(f"{len(train_set)} entries do not fill one batch of {config.batch_size}: use a smaller one")
    n_steps = config.epochs * steps_per_epoch
    eval_every = config.eval_every or max(1, steps_per_epoch // 2)
    if first_step == 0:
        yield StepReport(0, n_steps, 0.0, None, 0.0, 0, evaluate_loss(model, val_set.examples))
    for step in range(first_step, n_steps):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first_step:
            batches = epoch_batches(train_set, config, epoch)
        lr = lr_at(step, n_steps, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        loss = train_step(model, optimizer, train_set, batches[position], config, step)
        done = step + 1
        is_due = done % eval_every == 0 or done == n_steps
        val = evaluate_loss(model, val_set.examples) if is_due else None
        n_tokens = sum(len(train_set[i].ids) for i in batches[position])
        yield StepReport(done, n_steps, done / steps_per_epoch, loss, lr, n_tokens, val)


def train_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    dataset: InstructionDataset,
    rows: list[int],
    config: TrainConfig,
    step: int,
) -> float:
    """One update from the entries at `rows`; returns nats per token that counted.

    Every micro-batch's sum is divided by the whole step's number of tokens, so that each token weighs the same however
    the step is cut: a mean of means would give a token of a short answer many times the weight of one of a long answer.
    """
    model.train()
    micro_batches = [rows[i : i + config.micro_batch] for i in range(0, len(rows), config.micro_batch)]
    batches = [collate([dataset[i] for i in micro], config.loss_on) for micro in micro_batches]
    n_counted = sum(int((targets >= 0).sum()) for _, targets in batches)
    total = 0.0
    for inputs, targets in batches:
        with autocast(model.device, config.precision):
            hidden = model.hidden(inputs.to(model.device))
            loss_sum, _ = supervised_loss(hidden, targets.to(model.device), model.output_weight)
        total += loss_sum.item()
        if not math.isfinite(total):
            optimizer.zero_grad(set_to_none=True)
            shown = [f"{dataset.entries[i]['instruction'][:40]!r}" for i in rows]
            raise TrainingError(f"the loss of step {step + 1} is {total}, in the batch of entries {', '.join(shown)}")
        (loss_sum / n_counted).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total / n_counted
