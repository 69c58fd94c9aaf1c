"""GPT-2, all of it: token ids in, logits out.

    ids -> wte + wpe -> n_layer x Block -> ln_f -> logits        Block: x + attn(ln_1(x)), then x + mlp(ln_2(x))

Modules and parameters carry the names of OpenAI's release. Linear weights are stored as PyTorch does, (out, in);
`weights/checkpoint.py` turns OpenAI's (in, out) around.

Letters: B batch, T new tokens, S tokens seen (old and new), C n_embd, H n_head, D = C / H, V vocab_size.
Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model; the defaults are GPT-2 small, 124M parameters."""

    vocab_size: int = 50257
    context_length: int = 1024  # tokens; a position has a learned vector, so there is no going past it
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    dropout: float = 0.0  # probability, in training only
    tied: bool = True  # the output layer is the token embedding, as OpenAI trained it

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} does not divide into {self.n_head} heads: choose a multiple")


class KVCache:
    """Keys and values of the tokens seen so far, so that each is computed once. Skip it at the first reading: without
    a cache the model is complete, and `generate.py` shows what it is for.

    A token's slot is its position. Rows of different lengths therefore start at slot 0 together, their padding stands
    to the right as in training, and a later token overwrites it: no left pads, no shifted positions.
    """

    def __init__(self, config: GPTConfig, batch_size: int, max_length: int, like: Tensor) -> None:
        """At most max_length tokens a row, on the device and in the dtype of `like` (a parameter of the model)."""
        shape = (config.n_layer, batch_size, config.n_head, 0, config.n_embd // config.n_head)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)  # room for rows and slots: see `reserve`
        self.lengths = torch.zeros(batch_size, dtype=torch.long, device=like.device)  # (B,) tokens seen, row by row
        self.longest, self.max_length = 0, max_length  # max(lengths), as asking the GPU in every step would wait

    def reserve(self, n_rows: int, n_slots: int) -> None:
        """Make room where there is none; for a quarter more slots than asked, as what is there has to be copied."""
        rows, slots = self.keys.shape[1], self.keys.shape[3]
        if n_rows > rows or n_slots > slots:
            n_slots = min(self.max_length, n_slots * 5 // 4 + 16) if n_slots > slots else slots
            more = (0, 0, 0, n_slots - slots, 0, 0, 0, max(0, n_rows - rows))  # F.pad counts axes from the last
            self.keys, self.values = F.pad(self.keys, more), F.pad(self.values, more)

    def positions(self, n_new: int) -> Tensor:
        """Where the next n_new tokens of each row stand: (B, T)."""
        if self.longest + n_new > self.max_length:
            raise ValueError(f"the cache has room for {self.max_length} tokens a row, not {self.longest + n_new}")
        self.reserve(len(self.lengths), self.longest + n_new)
        return self.lengths[:, None] + torch.arange(n_new, device=self.lengths.device)

    def mask(self, positions: Tensor) -> Tensor | None:
        """Which slots each new token may see: those up to its own. (B, T) -> (B, 1, T, S), or None if all are new."""
        if self.longest == 0:
            return None  # slots are the inputs themselves: plain causal attention, which has a faster kernel
        slots = torch.arange(self.longest + positions.shape[1], device=positions.device)
        return (slots <= positions[..., None])[:, None]

    def write(self, layer: int, positions: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values (B, H, T, D) into their slots and return all so far, (B, H, S, D)."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[layer, rows, :, positions] = k.transpose(1, 2).to(self.keys.dtype)  # indexed: (B, T, H, D)
        self.values[layer, rows, :, positions] = v.transpose(1, 2).to(self.values.dtype)
        B, S = len(k), self.longest + k.shape[2]
        return self.keys[layer, :B, :, :S].to(k.dtype), self.values[layer, :B, :, :S].to(v.dtype)

    def advance(self, n_new: list[int] | int) -> None:
        """Count the tokens just read; a list gives each row its own number, without its padding."""
        self.lengths += n_new if isinstance(n_new, int) else torch.tensor(n_new, device=self.lengths.device)
        self.longest = self.longest + n_new if isinstance(n_new, int) else int(self.lengths.max())

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, which then stand in this order. Only those that change their place are copied."""
        if places := [place for place, row in enumerate(rows) if place != row]:
            for stored in (self.keys, self.values):
                stored[:, places, :, : self.longest] = stored[:, [rows[place] for place in places], :, : self.longest]
        self.lengths = self.lengths[rows]
        self.longest = int(self.lengths.max()) if rows else 0

    def repeated(self, n: int) -> "KVCache":
        """A cache of n rows that go on from what the one row of this has read."""
        rows = copy.copy(self)
        rows.keys, rows.values = (stored.repeat(1, n, 1, 1, 1) for stored in (self.keys, self.values))
        rows.lengths = self.lengths.repeat(n)
        return rows

    def add(self, other: "KVCache") -> None:
        """Let the rows of another cache follow those of this one."""
        first, n = len(self.lengths), len(self.lengths) + len(other.lengths)
        self.reserve(n, other.longest)
        for ours, theirs in ((self.keys, other.keys), (self.values, other.values)):
            ours[:, first:n, :, : other.longest] = theirs[:, : n - first, :, : other.longest]
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.longest = max(self.longest, other.longest)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(q kT / sqrt(D)) v: (B, H, T, D) and (B, H, S, D) -> (B, H, T, D). Without a mask, causal.

    PyTorch's fused kernel never holds all (T, S) scores at once. That pays but in one place: for short rows in
    bfloat16 on a CPU the formula written out takes half its time or less, forward and backward."""
    if mask is None and q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= 256:
        future = torch.full((q.shape[2], k.shape[2]), -torch.inf, dtype=q.dtype).triu(1)
        scores = q @ k.mT * q.shape[-1] ** -0.5 + future  # (B, H, T, S)
        return F.dropout(scores.softmax(-1), dropout) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None)


class CausalSelfAttention(nn.Module):
    """Each token gathers from itself and the tokens before it, with n_head attention patterns side by side."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # queries, keys and values in one product
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head, self.dropout, self.layer = config.n_head, config.dropout, layer

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        B, T, C = x.shape
        heads = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)  # (B, T, 3, H, D)
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        if cache is not None:
            k, v = cache.write(self.layer, positions, k, v)  # (B, H, S, D)
        y = attend(q, k, v, mask, self.dropout if self.training else 0.0)  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    """Each token for itself: four times wider, a bend, and back."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd)
        self.dropout = config.dropout

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.c_fc(x), approximate="tanh")  # OpenAI trained with the tanh form; the exact one is off by 1e-3
        return F.dropout(self.c_proj(x), self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)  # eps 1e-5, PyTorch's default and OpenAI's
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.attn(self.ln_1(x), positions, mask, cache)
        return x + self.mlp(self.ln_2(x))


class _NoFilling(TorchFunctionMode):
    """Leaves out what torch.nn.init does: on the meta device, too, it would import PyTorch's compiler, two seconds."""

    def __torch_function__(
        self, func: Callable, types: Sequence, args: Sequence = (), kwargs: Mapping | None = None
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class GPT(nn.Module):
    """GPT-2. `model(inputs)` gives logits at every position, `model.hidden(inputs)` what the output layer reads."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        if not config.tied:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init)

    @classmethod
    def without_weights(cls, config: GPTConfig) -> "GPT":
        """A model of names and shapes, on the meta device: `load_state_dict(..., assign=True)` gives it its tensors."""
        with torch.device("meta"), _NoFilling():
            return cls(config)

    def _init(self, module: nn.Module) -> None:
        """Normal weights of 0.02; layers that write to the residual stream start smaller, as there are 2 a block."""
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (CausalSelfAttention, MLP)):  # called after the layers inside it
            nn.init.normal_(module.c_proj.weight, std=0.02 * (2 * self.config.n_layer) ** -0.5)

    @property
    def output_weight(self) -> Tensor:
        """(V, C): one row for each token, compared with the hidden state."""
        return self.wte.weight if self.config.tied else self.lm_head.weight

    @property
    def device(self) -> torch.device:
        return self.wte.weight.device

    def n_parameters(self) -> int:
        """Each once: the tied output layer adds none."""
        return sum(parameter.numel() for parameter in self.parameters())

    def hidden(self, inputs: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) ids -> (B, T, C). With a cache, inputs follow what it holds; call `cache.advance` afterwards."""
        T = inputs.shape[1]
        last = T + (cache.longest if cache is not None else 0)
        if last > self.config.context_length:
            raise ValueError(f"{last} tokens do not fit the context of {self.config.context_length}: shorten the input")
        positions = torch.arange(T, device=inputs.device) if cache is None else cache.positions(T)  # (T,) or (B, T)
        mask = None if cache is None else cache.mask(positions)
        x = self.wte(inputs) + self.wpe(positions)  # (B, T, C)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.h:
            x = block(x, positions, mask, cache)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V)"""
        if hidden.device.type == "cpu" and hidden.dim() == 2 and len(hidden) > 1:  # the same product, laid out so that
            return (self.output_weight @ hidden.T).T.contiguous()  # a few rows take half the time or a third
        return F.linear(hidden, self.output_weight)

    def forward(self, inputs: Tensor, cache: KVCache | None = None) -> Tensor:
        """(B, T) ids -> (B, T, V) logits for the token after each."""
        return self.logits(self.hidden(inputs, cache))
