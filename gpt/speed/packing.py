"""A batch without padding, in which a beginning that several rows share is computed once.

    row 1    Below is an instruction ... Name a fruit . ...        Attention looks back only, so what a token becomes
    row 2    Below is an instruction ... Add 2 and 3 . ...         depends on the tokens before it and on nothing else:
                                                                   equal beginnings give equal vectors.
    nodes    Below is an instruction ... Name a fruit . ... Add 2 and 3 . ...

Written this way the rows are a tree (a trie), and its nodes are all that the linear layers see: prompts begin with the
same preamble, so of eight rows of 62 tokens about 300 nodes are left, where padding would make 680 tokens of them. Only
attention needs whole rows, and gets them by looking nodes up. What is asked for are the hidden states that predict a
target that counts, so the last block computes its MLP for those alone.

Loss and gradients are those of `collate`, `GPT.hidden` and `supervised_loss`, which say the same plainly. Dropout's
pattern is one for all rows that share a node; it is drawn from the same distribution as ever.

Letters: B rows, T the longest of them, N nodes, M predictions (a node and a target), C n_embd, H n_head, D = C / H.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gpt.model.generate import common_beginning
from gpt.model.gpt2 import GPT, Block, CausalSelfAttention, attend
from gpt.text.dataset import FIRST_KIND, Example, Kind


class Packed(NamedTuple):
    """Rows as the nodes of a tree."""

    ids: Tensor  # (N,) the token at each node
    positions: Tensor  # (N,) its depth, which is its position in every row it stands in
    rows: Tensor  # (B, T) the nodes of each row; node 0 fills a row up
    places: Tensor  # (N,) where in rows, read as one line, a node stands first
    asked: Tensor  # (M,) the node that predicts
    targets: Tensor  # (M,) the id to be predicted; no pair of node and target comes twice
    counts: Tensor  # (M, 4) how many rows have this prediction as a target of each Kind

    def to(self, device: torch.device) -> "Packed":
        return Packed(*(tensor.to(device, non_blocking=True) for tensor in self))

    def weights(self, loss_on: str) -> Tensor:
        """(M,) how often each prediction counts."""
        return self.counts[:, FIRST_KIND[loss_on] :].sum(1)


def pack(examples: Sequence[Example], loss_on: str = "response") -> Packed:
    """Rows -> the tree, with the predictions that count for `loss_on`.

    In alphabetical order a row shares with the one before it all that it shares with any earlier row.
    """
    ordered = sorted(examples, key=lambda example: example.ids)
    width = max(len(example.ids) for example in ordered) - 1
    ids, positions, rows, places, asked, targets = [], [], [], [], [], []
    pairs, kinds = [], []  # of each target of each row: the prediction it belongs to, and its kind
    above, nodes, made = [], [], []  # the row before: its ids, its nodes, its predictions
    for b, (row, row_kinds) in enumerate(ordered):
        n_same = len(common_beginning([above, row]))
        n_old = min(n_same, len(nodes), len(row) - 1)  # the last id of a row is predicted and never read
        nodes = nodes[:n_old] + list(range(len(ids), len(ids) + len(row) - 1 - n_old))
        ids += row[n_old:-1]
        positions += range(n_old, len(row) - 1)
        places += range(b * width + n_old, b * width + len(row) - 1)
        rows.append(nodes + [0] * (width - len(nodes)))
        made = made[: max(0, n_same - 1)]  # what the shared ids after the first one are predicted by
        n_before = len(targets)
        targets += row[len(made) + 1 :]
        asked += nodes[len(made) :]
        made = made + list(range(n_before, len(targets)))
        pairs += made
        kinds += row_kinds[1:]
        above = row
    counts = torch.zeros(len(targets), len(Kind))
    found = torch.tensor([pairs, kinds])  # (2, targets of all rows)
    counts.index_put_(tuple(found[:, found[1] >= min(Kind)]), torch.tensor(1.0), accumulate=True)
    whole = Packed(*map(torch.tensor, (ids, positions, rows, places, asked, targets)), counts)
    keep = whole.weights(loss_on) > 0
    return whole._replace(asked=whole.asked[keep], targets=whole.targets[keep], counts=counts[keep])


def pick(x: Tensor, index: Tensor) -> Tensor:
    """x[index]: (N, C), (...) -> (..., C). An embedding does the same, and its backward pass, which adds up what comes
    back for a row that was picked several times, takes a CPU half the time and has a fixed order on CUDA."""
    return F.embedding(index, x)


def hidden_where_asked(model: GPT, batch: Packed, checkpointing: bool = False) -> Tensor:
    """(M, C): what `GPT.hidden` gives at the places that predict a target that counts.

    With checkpointing a block keeps its input alone and computes the rest again on the way back.
    """
    if batch.rows.shape[1] > model.config.context_length:
        raise ValueError(f"{batch.rows.shape[1]} tokens do not fit the context of {model.config.context_length}")
    x = embed(model, batch.ids) + model.wpe(batch.positions)  # (N, C)
    x = F.dropout(x, model.config.dropout, model.training)
    for layer, block in enumerate(model.h):
        asked = batch.asked if layer == len(model.h) - 1 else None
        if checkpointing and torch.is_grad_enabled():
            x = checkpoint(run_block, block, x, batch, asked, use_reentrant=False)
        else:
            x = run_block(block, x, batch, asked)
    return model.ln_f(x)  # (M, C)


def embed(model: GPT, ids: Tensor) -> Tensor:
    """(N,) -> (N, C). The gradient of a tied embedding comes as the few rows that were read, and is added to the output
    layer's: a second matrix of V x C, nearly all of it zeros, would be the largest piece of memory of the step."""
    if model.config.tied and type(model.wte) is nn.Embedding and model.wte.weight.requires_grad:
        return F.embedding(ids, model.wte.weight, sparse=True)
    return model.wte(ids)


def run_block(block: Block, x: Tensor, batch: Packed, asked: Tensor | None) -> Tensor:
    """A block on nodes: (N, C) -> (N, C), or (M, C) if only the nodes asked for are needed after it."""
    x = x + attend_in_rows(block.attn, block.ln_1(x), batch)
    x = x if asked is None else pick(x, asked)
    return x + block.mlp(block.ln_2(x))


def attend_in_rows(attn: CausalSelfAttention, x: Tensor, batch: Packed) -> Tensor:
    """(N, C) -> (N, C). Each row of the batch sees itself alone; of a node that several rows share, one answer is
    taken, for they are equal. What fills a row up stands behind it, so nothing sees it."""
    (B, T), C = batch.rows.shape, x.shape[1]
    heads = pick(attn.c_attn(x), batch.rows).view(B, T, 3, attn.n_head, C // attn.n_head)
    q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
    y = attend(q, k, v, None, attn.dropout if attn.training else 0.0)
    y = pick(y.transpose(1, 2).reshape(B * T, C), batch.places)  # (N, C)
    return F.dropout(attn.c_proj(y), attn.dropout, attn.training)
