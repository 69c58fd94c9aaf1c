"""Pretraining of a small GPT-2 from plain text: the bundled `gpt2-tiny` was made with it, on two CPU cores.

Four fifths of a model this small are its vocabulary, and a 50,257-wide output layer is most of the work of a step.
So the loss is a sampled softmax for most of the run: the right token competes with the other targets of the batch and
with tokens drawn at random, and each logit is corrected by how likely its token was to be among the candidates
(Jean et al. 2015, "On Using Very Large Target Vocabulary", section 3). The last steps use all tokens and set the level.

Letters: N tokens of a batch, C n_embd, K candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.hardware.precision import autocast
from gpt.model.gpt2 import GPT


@dataclass(frozen=True)
class PretrainConfig:
    """How long and how fast; the learning rate rises, stays flat, and falls linearly to zero."""

    tokens: int = 30_000_000  # in all
    batch_tokens: int = 6144  # a step
    row_length: int = 256  # tokens; the model's whole context in the last stretch
    whole_context_from: float = 0.85  # fraction of the tokens
    lr: float = 4e-3  # at its peak
    warmup: int = 200  # steps
    flat_until: float = 0.5  # fraction of the tokens after which the rate falls
    full_softmax_from: float = 0.97  # fraction of the tokens
    n_sampled: int = 1000  # random candidates of the sampled softmax, a step
    repeats: float = 0.2  # fraction of rows that consist of repeated pieces
    tasks: float = 0.4  # fraction of rows of task-like text, once it comes in
    tasks_from: float = 0.25  # fraction of the tokens after which it comes in
    weight_decay: float = 0.1  # on the matrices of the blocks
    clip: float = 1.0  # gradient norm
    precision: str = "float32"  # of matrix products: float32, or bf16 where the machine has it
    seed: int = 0  # of the data and of the first weights

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bf16"):
            raise ValueError(f"precision {self.precision!r} is not for pretraining: use float32 or bf16")


class Mixture:
    """Rows of ids out of several texts. A weight says how many times more often than its length alone would have it a
    text is drawn: a small one drawn as often as a large one would soon be known by heart."""

    def __init__(self, sources: dict[str, np.ndarray], weights: dict[str, float], vocab_size: int, eot_id: int) -> None:
        self.names = sorted(sources)
        self.sources, self.eot_id = sources, eot_id
        total = sum(weights[name] * len(sources[name]) for name in self.names)
        self.shares = [weights[name] * len(sources[name]) / total for name in self.names]
        counts = sum(
            share * np.bincount(sources[name], minlength=vocab_size) / len(sources[name])
            for name, share in zip(self.names, self.shares, strict=True)
        )
        self.unigram = torch.from_numpy((counts + 1e-8) / (counts + 1e-8).sum()).float()  # (V,)

    def row(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """A stretch of one source, wherever it falls."""
        ids = self.sources[self.names[rng.choice(len(self.names), p=self.shares)]]
        start = rng.integers(0, max(1, len(ids) - length))
        return ids[start : start + length]

    def repeated_row(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Pieces of 6 to 40 ids, each written two to four times: this is where copying is learned, and most
        instructions need it (induction heads, Olsson et al. 2022). Some are shuffled, and some are any ids at all:
        a rare word is copied only by a model that copies whatever stands there."""
        pieces, n = [], 0
        while n < length:
            size, kind = int(rng.integers(6, 41)), rng.random()
            piece = self.row(size, rng)
            if kind < 0.4:
                piece = rng.permutation(piece)
            elif kind < 0.6:
                piece = rng.integers(0, len(self.unigram), size).astype(piece.dtype)
            piece = np.tile(piece, int(rng.integers(2, 5)))
            pieces += [piece, np.array([self.eot_id], dtype=piece.dtype)]
            n += len(piece) + 1
        return np.concatenate(pieces)[:length]


def sampled_softmax_loss(hidden: Tensor, targets: Tensor, weight: Tensor, unigram: Tensor, n_sampled: int) -> Tensor:
    """(N, C), (N,), (V, C), (V,) -> mean nats over a few thousand candidates instead of all V tokens."""
    draw = unigram.pow(0.6) / unigram.pow(0.6).sum()
    sampled = torch.multinomial(draw, n_sampled, replacement=True)
    candidates = torch.unique(torch.cat([targets, sampled]))  # (K,) in rising order
    missed = len(targets) * torch.log1p(-unigram[candidates]) + n_sampled * torch.log1p(-draw[candidates])
    correction = torch.log(-torch.expm1(missed))  # log of the probability to be a candidate
    n_padding = -len(candidates) % 512  # few different shapes: on a CPU each new one is compiled and kept
    candidates_and_padding = F.pad(candidates, (0, n_padding))
    correction = F.pad(correction, (0, n_padding), value=torch.inf)  # logits of -inf
    logits = F.linear(hidden, weight[candidates_and_padding]).float() - correction  # (N, K)
    return F.cross_entropy(logits, torch.searchsorted(candidates, targets))


def lr_at(step: int, config: PretrainConfig) -> float:
    """Warm up, stay, fall to zero: a run can go on from any point of the flat part with another end."""
    done = step * config.batch_tokens / config.tokens
    rise = min(1.0, (step + 1) / config.warmup)
    fall = min(1.0, max(0.0, 1 - done) / (1 - config.flat_until))
    return config.lr * min(rise, fall)


def make_optimizer(model: GPT, config: PretrainConfig) -> torch.optim.AdamW:
    """Decay only on the matrices of the blocks: embeddings of rare tokens would shrink between their visits."""
    matrices = [p for name, p in model.named_parameters() if name.startswith("h.") and p.dim() == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("h.") and p.dim() == 2)]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.95), fused=True)


def pretrain(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    mixture: Mixture,
    config: PretrainConfig,
    task_row: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]] | None = None,
    first_step: int = 0,
) -> Iterator[tuple[int, float]]:
    """Train and yield (step, loss in nats per counted token). A step's data depends on the seed and the step alone, so
    a run that is stopped and started again at `first_step` sees what it would have seen.

    `task_row(length, rng)` gives ids and which of them count; of the other rows every id counts.
    """
    n_steps = config.tokens // config.batch_tokens
    model.train()
    for step in range(first_step, n_steps):
        rng = np.random.default_rng([config.seed, step])
        torch.manual_seed(config.seed * 1_000_003 + step)
        done = step / n_steps
        full = done >= config.full_softmax_from
        context = model.config.context_length
        length = min(config.row_length, context) if done < config.whole_context_from else context
        rows = config.batch_tokens // length // (2 if full else 1)  # all logits at once: half the batch fits better
        kinds = rng.random(rows)
        tasks = config.tasks if task_row is not None and done >= config.tasks_from else 0.0
        batch = np.empty((rows, length + 1), dtype=np.int64)
        counted = np.ones((rows, length + 1), dtype=bool)
        for row, kind in enumerate(kinds):
            if kind < tasks:
                batch[row], counted[row] = task_row(length + 1, rng)
            else:
                make_row = mixture.repeated_row if kind < tasks + config.repeats else mixture.row
                batch[row] = make_row(length + 1, rng)
        ids, counts = (torch.from_numpy(array).to(model.device) for array in (batch, counted))  # (B, T + 1)
        for group in optimizer.param_groups:
            group["lr"] = lr_at(step, config)
        with autocast(model.device, config.precision):
            hidden = model.hidden(ids[:, :-1])[counts[:, 1:]]  # (N, C)
            targets = ids[:, 1:][counts[:, 1:]]  # (N,)
            if full:
                loss = F.cross_entropy(model.logits(hidden).float(), targets)
            else:
                loss = sampled_softmax_loss(
                    hidden, targets, model.output_weight, mixture.unigram.to(model.device), config.n_sampled
                )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield step, loss.item()


@torch.no_grad()
def held_out_loss(model: GPT, ids: np.ndarray, length: int = 256, rows: int = 60) -> float:
    """Mean nats per token over `rows` stretches of `length` tokens, evenly spaced, all 50,257 tokens competing."""
    was_training = model.training
    model.eval()
    length = min(length, len(ids) - 1, model.config.context_length)
    n = min(rows, (len(ids) - 1) // length)
    total = 0.0
    for start in np.linspace(0, len(ids) - length - 1, n).astype(int):
        piece = torch.from_numpy(ids[start : start + length + 1].astype(np.int64)).to(model.device)
        total += F.cross_entropy(model(piece[None, :-1])[0].float(), piece[1:]).item()
    model.train(was_training)
    return total / n


def curve_lines(stages: Sequence[dict]) -> dict[str, tuple[list[float], list[float]]]:
    """Losses by million tokens read in all stages, as `plot_lines` takes them: on what is learned, task-like text and
    all, and on held-out text. A stage is {"config": ..., "curve": points}, tokens counted from its own beginning."""
    lines, read = {"learned, running mean": ([], []), "held-out text": ([], [])}, 0
    for stage in stages:
        for point in stage["curve"]:
            for name, (xs, ys) in zip(("loss", "held_out"), lines.values(), strict=True):
                if point.get(name) is not None:
                    xs.append((read + point["tokens"]) / 1e6)
                    ys.append(point[name])
        read += stage["config"]["tokens"]
    return lines
