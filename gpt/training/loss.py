"""Losses, in nats, summed over the tokens that count; whoever averages divides by a number of tokens, not of batches.

Letters: B batch, T tokens, C n_embd, V vocab_size, N tokens that count.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.model.gpt2 import GPT
from gpt.speed.packing import hidden_where_asked, pack
from gpt.text.dataset import FIRST_KIND, IGNORE_INDEX, Example

CHUNK = 1024  # positions whose logits exist at a time in evaluation: 1024 x 50,257 floats are 206 MB


def supervised_loss(hidden: Tensor, targets: Tensor, output_weight: Tensor) -> tuple[Tensor, int]:
    """(B, T, C), (B, T), (V, C) -> the summed cross entropy in nats and the number of tokens that count.

    The output layer runs at those positions only: in a batch of prompts with short answers that is a fifth of them,
    and for a small model the output layer is the largest part of the work. This is the plain way, for rows as `collate`
    pads them; training (speed/chunked_loss.py) and `evaluate_loss` come to the same without padding.
    """
    counts = targets != IGNORE_INDEX  # (B, T)
    logits = F.linear(hidden[counts], output_weight)  # (N, V)
    return F.cross_entropy(logits.float(), targets[counts], reduction="sum"), len(logits)


def token_losses(hidden: Tensor, targets: Tensor, output_weight: Tensor) -> Tensor:
    """(N, C), (N,), (V, C) -> (N,) nats, without holding all logits at once."""
    chunks = zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)
    return torch.cat([F.cross_entropy(F.linear(h, output_weight).float(), t, reduction="none") for h, t in chunks])


@torch.no_grad()
def evaluate_loss(
    model: GPT, examples: Sequence[Example], batch_size: int = 16, add_up: Callable[[float], float] = float
) -> dict[str, float]:
    """Mean nats per token that counts over all examples, for each way of counting: `all`, `header`, `response`.

    One forward pass gives all three. The result does not depend on batch size or order. `add_up` adds the sums of other
    processes, each with a share of the examples. Raises ValueError if there is nothing to count.
    """
    was_training = model.training
    model.eval()
    sums, ns = dict.fromkeys(FIRST_KIND, 0.0), dict.fromkeys(FIRST_KIND, 0)
    for start in range(0, len(examples), batch_size):
        batch = pack(examples[start : start + batch_size], loss_on="all").to(model.device)
        losses = token_losses(hidden_where_asked(model, batch), batch.targets, model.output_weight)
        for loss_on in FIRST_KIND:
            weights = batch.weights(loss_on)
            sums[loss_on] += (losses @ weights).item()
            ns[loss_on] += int(weights.sum())
    model.train(was_training)
    sums, ns = ({name: add_up(n) for name, n in found.items()} for found in (sums, ns))
    if not all(ns.values()):
        raise ValueError("no token counts in these examples: there is no loss to evaluate")
    return {loss_on: sums[loss_on] / ns[loss_on] for loss_on in FIRST_KIND}
