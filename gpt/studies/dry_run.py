"""What a run will take, before it begins: parameters, memory by part, time. Measured on a few of its own steps.

The batch of the most tokens comes first: it decides the memory. The others are spread over the lengths, and a line
through them, seconds = a + b x tokens, is added up over all batches of an epoch, since short batches take longer a
token.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpt.hardware.memory import peak_bytes
from gpt.hardware.precision import make_scaler
from gpt.model.gpt2 import GPT
from gpt.text.dataset import Example, InstructionDataset
from gpt.training.loss import evaluate_loss
from gpt.training.train import TrainConfig, epoch_batches, make_optimizer, train_step

N_STEPS = 12  # that are measured
N_VALIDATED = 64  # entries whose validation is measured
OPTIMIZER_STATES = 2  # numbers that AdamW keeps for each weight, both float32


@dataclass(frozen=True)
class Forecast:
    """Bytes and seconds of a run."""

    n_parameters: int
    n_trained: int
    n_steps: int
    n_validations: int
    step_seconds: float  # the mean
    validation_seconds: float
    peak_bytes: int  # of the process, or of the GPU; 0 where nobody counts

    @property
    def seconds(self) -> float:
        """Training and validation; saving, and the responses afterwards, come on top."""
        return self.n_steps * self.step_seconds + self.n_validations * self.validation_seconds

    def parts(self) -> dict[str, int]:
        """Bytes by part. The rest is activations, and on a CPU Python with its libraries."""
        known = {
            "weights": 4 * self.n_parameters,
            "gradients": 4 * self.n_trained,
            "AdamW": 4 * OPTIMIZER_STATES * self.n_trained,
        }
        return known | {"activations and the rest": max(0, self.peak_bytes - sum(known.values()))}


def forecast(
    model: GPT,
    sides: dict[str, InstructionDataset],
    config: TrainConfig,
    on_step: Callable[[], None] = lambda: None,
) -> Forecast:
    """What the run will take; `on_step` is called after each measured step. The model comes as `choose_trained` leaves
    it; its weights are changed, so load it anew before the run."""
    train_set, val_set = sides["train"], sides["val"]
    optimizer, scaler = make_optimizer(model, config), make_scaler(model.device, config.precision)
    batches = epoch_batches(train_set, config, 0)
    lengths = train_set.lengths()
    tokens = [sum(lengths[i] for i in batch) for batch in batches]
    by_tokens = sorted(range(len(batches)), key=tokens.__getitem__)
    spread = np.linspace(0, len(batches) - 1, min(N_STEPS, len(batches))).round().astype(int)
    seen, seconds = [], []
    for number in [by_tokens[-1], *(by_tokens[i] for i in reversed(spread))]:
        began = time.perf_counter()
        train_step(model, optimizer, train_set, batches[number], config, len(seen), scaler)
        seen.append(tokens[number])
        seconds.append(time.perf_counter() - began)
        on_step()
    step_seconds = float(line_through(seen[1:], seconds[1:])(np.array(tokens)).mean())  # the first one warms up
    chosen = val_set.examples[:: -(-len(val_set) // N_VALIDATED)]
    began = time.perf_counter()
    evaluate_loss(model, chosen)
    share = count(val_set.examples) / count(chosen)
    n_steps = config.epochs * len(batches)
    every = config.eval_every or max(1, len(batches) // 2)
    return Forecast(
        model.n_parameters(), sum(p.numel() for p in model.parameters() if p.requires_grad),
        n_steps, 1 + -(-n_steps // every), step_seconds, share * (time.perf_counter() - began),
        peak_bytes(model.device),
    )  # fmt: skip


def line_through(x: list[float], y: list[float]) -> np.polynomial.Polynomial:
    """The least-squares line; the mean where all x are the same or the line falls, as more tokens cannot cost less."""
    line = np.polynomial.Polynomial.fit(x, y, 1 if len(set(x)) > 2 else 0).convert()
    return line if len(line.coef) < 2 or line.coef[1] >= 0 else np.polynomial.Polynomial([float(np.mean(y))])


def count(examples: list[Example]) -> int:
    return sum(len(example.ids) for example in examples)
