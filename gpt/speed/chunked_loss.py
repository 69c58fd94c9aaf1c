"""Cross entropy without ever holding all logits: a chunk of positions at a time, forward and backward together.

The gradient of a position's cross entropy by its logits is what the model believes less what is true,

    d loss / d logits = softmax(logits) - onehot(target)

so it is known as soon as the logits are. It is pushed through the output layer at once, and the logits are dropped:
for 8 rows of 1,024 tokens they, their softmax and their gradient would take 5 GB, a chunk takes 0.1.

Letters: M predictions, C n_embd, V vocab_size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.model.gpt2 import GPT
from gpt.speed.packing import Packed, hidden_where_asked

CHUNK = 512  # positions whose logits exist at a time: 512 x 50,257 floats are 103 MB


class ChunkedCrossEntropy(torch.autograd.Function):
    """(M, C), (V, C), (M,), (M,) -> the cross entropies in nats, times their weights, summed."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, output_weight: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        total, d_output, d_hidden = weights.new_zeros(()), None, []
        for h, t, w in zip(hidden.split(CHUNK), targets.split(CHUNK), weights.split(CHUNK), strict=True):
            logits = F.linear(h, output_weight).float()  # (chunk, V)
            log_sum = logits.logsumexp(1)
            total += ((log_sum - pick_targets(logits, t)) * w).sum()
            believed = logits.sub_(log_sum[:, None]).exp_()  # in place: each copy would be as large as the chunk
            d_logits = believed.scatter_add_(1, t[:, None], -torch.ones_like(w)[:, None]).mul_(w[:, None])
            d_hidden.append((d_logits @ output_weight).to(h.dtype))
            if ctx.needs_input_grad[1]:
                d_chunk = (d_logits.T @ h).to(output_weight.dtype)  # (V, C)
                d_output = d_chunk if d_output is None else d_output.add_(d_chunk)
        ctx.gradients = torch.cat(d_hidden), d_output
        return total

    @staticmethod
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_output = ctx.gradients
        ctx.gradients = None  # held by nobody else, they can be added to in place
        if d_total.device.type != "cpu" or d_total != 1:  # a pass over V x C numbers; on CUDA asking would cost more
            d_hidden.mul_(d_total)
            d_output = d_output if d_output is None else d_output.mul_(d_total)
        return d_hidden, d_output, None, None


def pick_targets(logits: Tensor, targets: Tensor) -> Tensor:
    """(M, V), (M,) -> (M,)"""
    return logits.gather(1, targets[:, None])[:, 0]


def packed_loss(model: GPT, batch: Packed, loss_on: str, factor: Tensor, checkpointing: bool = False) -> Tensor:
    """The nats of the batch's predictions that count, summed, times a factor: one over the number of tokens of the step
    and, for fp16, the scale. Here it reaches the gradients before they are rounded, and without a pass of its own."""
    hidden = hidden_where_asked(model, batch, checkpointing)
    return ChunkedCrossEntropy.apply(hidden, model.output_weight, batch.targets, batch.weights(loss_on) * factor)
