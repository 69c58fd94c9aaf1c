"""The training loop, by hand: AdamW, warmup and cosine, clipping, accumulation by counted tokens, exact resume.

The batches are packed: `pack` shifts and masks as `text.dataset.collate` does, without padding (speed/packing.py).
`train` is a generator: it yields a StepReport after every step, and whoever drives it draws bars, saves and stops.
What a step does depends on the weights, the states of optimizer and loss scaler, the configuration and the step's
number alone: the order of the entries follows from seed and epoch, dropout from seed and step. So a run that is stopped
goes on bit for bit.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from gpt.hardware.memory import halve_until_it_fits
from gpt.hardware.precision import PRECISIONS, autocast, make_scaler
from gpt.hardware.processes import add_gradients, everyone, seed_dropout, share
from gpt.model.gpt2 import GPT
from gpt.speed.chunked_loss import packed_loss
from gpt.speed.packing import pack
from gpt.text.dataset import FIRST_KIND, InstructionDataset, batches_by_length
from gpt.text.entries import Entry
from gpt.training.loss import evaluate_loss
from gpt.tuning.freezing import check_freeze, freeze, lr_factor
from gpt.tuning.lora import TARGETS, add_lora


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
    decay_all: bool = False  # weight decay on biases and layer norms too
    clip: float = 1.0  # gradient norm; 0 leaves it as it is
    dropout: float = 0.1  # probability
    loss_on: str = "response"  # tokens that count: response, header (and response) or all
    checkpointing: bool = False  # less memory, more time: blocks keep their input alone and run again
    precision: str = "float32"  # of matrix products: float32, bf16 or, on CUDA, fp16
    max_length: int = 1024  # tokens a row, at most; the model's context if that is shorter
    drop_last: bool = False  # leave out an epoch's last batch if it is not full
    eval_every: int = 0  # steps between validation losses; 0 means twice an epoch
    patience: int = 0  # validations without a new best after which the run ends; 0 means never
    seed: int = 123  # of the split, the order of the entries and dropout
    lr_embeddings: float = 0.0  # learning rate of the embeddings, at its peak; 0 means lr
    lr_layer_decay: float = 1.0  # a block's learning rate over that of the block above it
    freeze: str = ""  # what stays as it is, by commas: embeddings, first:N or all-but:N blocks
    lora_rank: int = 0  # of LoRA's adapters, which then learn alone; 0 means none
    lora_alpha: float = 16.0  # an adapter's output is scaled by alpha / rank
    lora_dropout: float = 0.0  # probability, on an adapter's input
    lora_targets: str = ",".join(TARGETS)  # layers of the blocks that get adapters

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "micro_batch", "lr", "max_length", "lr_layer_decay", "lora_alpha"):
            if not 0 < getattr(self, name) < math.inf:  # NaN is refused too
                raise ValueError(f"{name} is {getattr(self, name)}: it must be more than 0 and finite")
        for name in ("warmup", "dropout", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 0 and less than 1")
        for name in ("weight_decay", "clip", "eval_every", "patience", "lr_embeddings", "lora_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 0 and finite")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}: it must be at least 0 and less than 2**32")
        choices = {"schedule": SCHEDULES, "loss_on": FIRST_KIND, "precision": PRECISIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(known)}")
        check_freeze(self.freeze)
        if self.lora_rank and (self.freeze or self.lr_embeddings):
            raise ValueError("LoRA freezes the whole model: leave out freeze and lr_embeddings, or lora_rank")


SCHEDULES = ("cosine", "linear", "constant")


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
    skipped: bool = False  # gradients overflowed fp16: the weights stayed as they were
    micro_batch: int = 0  # entries at a time; less than the configuration's once memory has not sufficed


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


def choose_trained(model: GPT, config: TrainConfig) -> None:
    """Leave to training what the settings say, in place: LoRA's adapters, or all that `freeze` does not name.

    A tied output layer is the embedding and frozen with it. Raises ValueError for blocks that the model does not have.
    """
    if config.lora_rank:
        targets = config.lora_targets.split(",")
        add_lora(model, config.lora_rank, config.lora_alpha, config.lora_dropout, targets, seed=config.seed)
    freeze(model, config.freeze)


def make_optimizer(model: GPT, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with decay on matrices only, if not asked otherwise: it would pull the gains of layer norms towards 0. For
    each learning rate there is a group of matrices and one of vectors."""
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            factor = lr_factor(name, model.config.n_layer, config.lr_layer_decay, config.lr_embeddings / config.lr)
            groups.setdefault((factor, p.dim() >= 2), []).append(p)
    decay = {True: config.weight_decay, False: config.weight_decay if config.decay_all else 0.0}
    return torch.optim.AdamW(
        [
            {"params": groups[factor, is_matrix], "weight_decay": decay[is_matrix], "lr_factor": factor}
            for factor, is_matrix in sorted(groups, reverse=True)
        ],
        lr=config.lr,
        fused=True,
    )


def epoch_batches(dataset: InstructionDataset, config: TrainConfig, epoch: int) -> list[list[int]]:
    """Positions of the entries of each step of an epoch (0, 1, ...); they follow from the seed."""
    rng = random.Random(f"{config.seed} {epoch}")
    return list(batches_by_length(dataset.lengths(), config.batch_size, rng, config.drop_last))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next update; each group takes its own share of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_factor", 1.0)  # a state saved by an older version has none


def named(entries: Sequence[Entry], rows: Sequence[int]) -> str:
    """The entries at `rows`, for a message: each by the beginning of its instruction."""
    return ", ".join(f"{entries[i]['instruction'][:40]!r}" for i in rows)


def train(
    model: GPT, optimizer: torch.optim.Optimizer, train_set: InstructionDataset, val_set: InstructionDataset,
    config: TrainConfig, first_step: int = 0, *, scaler: torch.amp.GradScaler | None = None,
    batches_of: Callable[[int], list[list[int]]] | None = None,
) -> Iterator[StepReport]:  # fmt: skip
    """Train to the end, from step `first_step` on; yields after every step and once before the first.

    `batches_of` gives the positions of an epoch's entries step by step, in place of `epoch_batches`.
    Raises TrainingError for a loss or gradient that is not finite, before the weights are touched.
    """
    scaler = scaler or make_scaler(model.device, config.precision)
    batches_of = batches_of or (lambda epoch: epoch_batches(train_set, config, epoch))
    steps_per_epoch = len(batches_of(0))
    if not steps_per_epoch:
        raise ValueError(f"{len(train_set)} entries do not fill one batch of {config.batch_size}: use a smaller one")
    n_steps = config.epochs * steps_per_epoch
    eval_every = config.eval_every or max(1, steps_per_epoch // 2)
    if first_step == 0:
        yield StepReport(0, n_steps, 0.0, None, 0.0, 0, validate(model, val_set, 0), micro_batch=config.micro_batch)
    for step in range(first_step, n_steps):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or step == first_step:
            batches = batches_of(epoch)
        lr = lr_at(step, n_steps, config)
        set_lr(optimizer, lr)
        loss, is_updated, fits = train_step(model, optimizer, train_set, batches[position], config, step, scaler)
        config = replace(config, micro_batch=fits)
        done = step + 1
        is_due = done % eval_every == 0 or done == n_steps
        val = validate(model, val_set, done) if is_due else None
        n_tokens = sum(len(train_set[i].ids) for i in batches[position])
        yield StepReport(done, n_steps, done / steps_per_epoch, loss, lr, n_tokens, val, not is_updated, fits)


def validate(model: GPT, val_set: InstructionDataset, step: int) -> dict[str, float]:
    """The three losses; TrainingError if one is not finite, for then no model could be called the best."""
    losses = evaluate_loss(model, share(val_set.examples), add_up=lambda n: sum(everyone(n)))
    if not all(map(math.isfinite, losses.values())):
        raise TrainingError(f"the validation losses after step {step} are {losses}: the model is broken")
    return losses


def train_step(
    model: GPT, optimizer: torch.optim.Optimizer, dataset: InstructionDataset, rows: list[int], config: TrainConfig,
    step: int, scaler: torch.amp.GradScaler,
) -> tuple[float, bool, int]:  # fmt: skip
    """One update from the entries at `rows`: nats per token that counted, whether there was an update, and how many
    entries at a time memory allowed; with fewer than asked for the step is begun again and has the same result.

    Every micro-batch's sum is divided by the whole step's number of tokens, over all processes, so that each token
    weighs the same however the step is cut: a mean of means would give a token of a short answer many times the weight
    of one of a long answer.
    """
    model.train()
    first_kind = FIRST_KIND[config.loss_on]
    n_counted = sum(kind >= first_kind for i in rows for kind in dataset[i].kinds[1:])
    mine = share(rows)
    factor = scaler.scale(torch.ones((), device=model.device)) / n_counted

    def accumulate(micro_batch: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        seed_dropout(config.seed, step)
        loss = torch.zeros((), device=model.device)
        for start in range(0, len(mine), micro_batch):
            batch = pack([dataset[i] for i in mine[start : start + micro_batch]], config.loss_on)
            with autocast(model.device, config.precision):
                part = packed_loss(model, batch.to(model.device), config.loss_on, factor, config.checkpointing)
            part.backward()
            loss += part.detach()
        return (loss / factor).item()  # once a step: the GPU must not wait for whoever asks how far it is

    try:
        total, fits = halve_until_it_fits(accumulate, config.micro_batch)
        total = sum(everyone(total))
        if not math.isfinite(total):
            raise FloatingPointError("loss", total)
        add_gradients(model.parameters())
        return total / n_counted, update(model, optimizer, config, scaler), fits
    except FloatingPointError as error:
        name, value = error.args
        shown = named(dataset.entries, rows)
        raise TrainingError(f"the {name} of step {step + 1} is {value}, in the batch of entries {shown}") from None
    finally:
        optimizer.zero_grad(set_to_none=True)


def update(model: GPT, optimizer: torch.optim.Optimizer, config: TrainConfig, scaler: torch.amp.GradScaler) -> bool:
    """Clip the gradients and apply them. False if they overflowed fp16: the scaler leaves the step out and scales the
    next losses by half as much, so some such steps belong to every run."""
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip or math.inf).item()
    is_hopeless = not scaler.is_enabled() or scaler.get_scale() < 1  # scaled down so far, all the next ones overflow
    if is_hopeless and not math.isfinite(norm):
        raise FloatingPointError("gradient norm", norm)
    scaler.step(optimizer)
    scaler.update()
    return math.isfinite(norm)
