"""DPO: learning from pairs of responses which of two is preferred, without a reward model.

    reward(response) = beta * (log p(response | prompt) - log p_ref(response | prompt))
    loss = -log sigmoid(reward(chosen) - reward(rejected))

p is the model that learns, p_ref the same model before its first step. log p is summed over the tokens of the response
and its end of text. The reference never changes, so its log-probabilities are computed once, before training, and only
one model lies in memory.

Source: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
equation 7; the implicit reward is that of section 4.
Letters: B rows or pairs, T tokens, C n_embd, V vocab_size, N tokens that count.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt.model.gpt2 import GPT
from gpt.text.dataset import IGNORE_INDEX, Example, Kind, collate, encode_entry
from gpt.text.tokenizer import Tokenizer
from gpt.tuning.pairs import PreferenceEntry


class Pair(NamedTuple):
    """Two rows that share their prompt's ids."""

    chosen: Example
    rejected: Example


def encode_pair(entry: PreferenceEntry, tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024) -> Pair:
    """Both responses after one prompt, in rows of at most max_length ids.

    The longer response decides how much of the prompt there is room for: two prompts cut to different lengths would be
    two questions, and the difference of the answers' probabilities would mean nothing.
    """
    chosen, rejected = entry["output"], entry["rejected"]
    is_longer = len(tokenizer.encode(chosen)) >= len(tokenizer.encode(rejected))
    long, short = (chosen, rejected) if is_longer else (rejected, chosen)
    row = encode_entry(entry | {"output": long}, tokenizer, template, max_length)
    n = sum(kind < Kind.RESPONSE for kind in row.kinds)  # of the prompt
    ids = tokenizer.encode(short)[: max_length - n - 1]
    other = Example([*row.ids[:n], *ids, tokenizer.eot_id], [*row.kinds[:n], *[Kind.RESPONSE] * len(ids), Kind.END])
    return Pair(row, other) if is_longer else Pair(other, row)


class PreferenceDataset:
    """Pairs encoded once. n_cut: those that lost the end of their prompt or of a response."""

    def __init__(
        self, entries: Sequence[PreferenceEntry], tokenizer: Tokenizer, template: str = "alpaca", max_length: int = 1024
    ) -> None:
        self.entries = list(entries)
        self.pairs = [encode_pair(entry, tokenizer, template, max_length) for entry in entries]
        whole = (encode_pair(entry, tokenizer, template, max_length=1 << 40) for entry in entries)
        self.n_cut = sum(pair != uncut for pair, uncut in zip(self.pairs, whole, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def lengths(self) -> list[int]:
        """Tokens of each pair, of both its rows."""
        return [len(chosen.ids) + len(rejected.ids) for chosen, rejected in self.pairs]

    def counts(self) -> dict[str, int]:
        return {"entries": len(self.pairs), "tokens": sum(self.lengths()), "cut": self.n_cut}


def response_log_probs(model: GPT, examples: Sequence[Example]) -> Tensor:
    """(B,): the log-probability of each row's response and its end, given its prompt, in nats."""
    inputs, targets = (tensor.to(model.device) for tensor in collate(examples))
    counts = targets != IGNORE_INDEX  # (B, T)
    logits = F.linear(model.hidden(inputs)[counts], model.output_weight)  # (N, V)
    losses = F.cross_entropy(logits.float(), targets[counts], reduction="none")  # (N,)
    return -losses.new_zeros(len(examples)).index_add(0, counts.nonzero()[:, 0], losses)


def pair_log_probs(model: GPT, pairs: Sequence[Pair]) -> Tensor:
    """(B, 2): chosen and rejected, from one forward pass."""
    rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    return response_log_probs(model, rows).view(2, len(pairs)).T


@torch.no_grad()
def reference_log_probs(model: GPT, pairs: Sequence[Pair], batch_size: int = 8) -> Tensor:
    """(B, 2) on the CPU: what the model gives to all pairs now, dropout off."""
    was_training = model.training
    model.eval()
    starts = range(0, len(pairs), batch_size)
    found = [pair_log_probs(model, pairs[start : start + batch_size]).cpu() for start in starts]
    model.train(was_training)
    return torch.cat(found)


def dpo_loss(policy: Tensor, reference: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, 2) of chosen and rejected under both models -> losses (B,) in nats a pair, and the implicit
    rewards (B, 2). A small beta lets the model move far from the reference."""
    rewards = beta * (policy - reference.detach())
    return -F.logsigmoid(rewards[:, 0] - rewards[:, 1]), rewards.detach()


def preference_scores(policy: Tensor, reference: Tensor, beta: float = 0.1) -> dict[str, float]:
    """Means over pairs: the loss; the margin between the two rewards; accuracy, how often the chosen response has the
    higher reward; and likelier, how often it is the more probable one, which can be asked of the reference too."""
    losses, rewards = dpo_loss(policy, reference, beta)
    margins = rewards[:, 0] - rewards[:, 1]
    return {
        "preference": losses.mean().item(),
        "margin": margins.mean().item(),
        "accuracy": (margins > 0).float().mean().item(),
        "likelier": (policy[:, 0] > policy[:, 1]).float().mean().item(),
    }
