"""LoRA: the model's matrices stay as they are, and beside some of them two thin ones learn.

    y = W x   ->   y = W x + scale * lora_B (lora_A x)      lora_A (rank, in), lora_B (out, rank), scale = alpha / rank

lora_B starts at zero, so the model is unchanged before its first step. rank * (in + out) numbers learn instead of
in * out, 1,179,648 of gpt2's at rank 8: a hundredth, and so are gradients and the optimizer's state. An adapter is a
small file of its own, which can be swapped, or merged into W so that it costs nothing.

Only matrices inside the blocks get adapters. The output layer never does: it is the embedding, read the other way.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model.gpt2 import GPT

TARGETS = ("c_attn", "c_proj", "c_fc")  # every matrix of a block; c_proj is the name of two


class Adapter(nn.Module):
    """The two thin matrices beside one linear layer."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = linear.in_features**-0.5  # as PyTorch draws the weights of a linear layer
        lora_A = torch.empty(rank, linear.in_features).uniform_(-bound, bound, generator=generator)
        self.lora_A = nn.Parameter(lora_A.to(linear.weight))  # its device and dtype
        self.lora_B = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    @property
    def scale(self) -> float:
        """alpha / rank: with another rank, the same alpha and learning rate still fit."""
        return self.alpha / self.rank

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), what is added to the layer's own output."""
        x = F.dropout(x, self.dropout, self.training)
        return F.linear(F.linear(x, self.lora_A), self.lora_B) * self.scale  # (..., in) -> (..., rank) -> (..., out)

    def product(self) -> Tensor:
        """(out, in): the same as one matrix, to be added to the layer's own."""
        return self.lora_B @ self.lora_A * self.scale


class LoRALinear(nn.Linear):
    """A linear layer with adapters by name. Those that are `active` are added; its own weight keeps its name."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")  # no weights but the given ones
        self.weight, self.bias = linear.weight, linear.bias
        self.adapters = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.merged: tuple[str, ...] = ()  # those whose product lies in the weight

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        for adapter in self.unmerged():
            y = y + adapter(x)
        return y

    def unmerged(self) -> list[Adapter]:
        return [self.adapters[name] for name in self.active if name not in self.merged]

    def merged_weight(self) -> Tensor:
        """(out, in): the weight with the products of the active adapters in it."""
        return self.weight + sum(adapter.product() for adapter in self.unmerged())


def lora_layers(model: GPT) -> dict[str, LoRALinear]:
    """The layers that have adapters, by name: `h.0.attn.c_attn` ..."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def find_targets(model: GPT, targets: Sequence[str]) -> list[str]:
    """The layers of the blocks whose names end in one of the targets. ValueError for a target that none has."""
    names = [name for name, module in model.h.named_modules(prefix="h") if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise ValueError(f"LoRA target {target!r} is no layer of the blocks: use {', '.join(TARGETS)}")
    return [name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)]


def add_lora(
    model: GPT,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    targets: Sequence[str] = TARGETS,
    *,
    name: str = "default",
    seed: int = 123,
) -> list[str]:
    """Put an adapter beside each targeted layer, in place, make it the active one, and freeze all else, earlier
    adapters too. Returns the layers' names. Raises ValueError for impossible numbers, targets and names.

    >>> add_lora(model, rank=8, targets=["c_attn"])
    ['h.0.attn.c_attn', 'h.1.attn.c_attn', ...]
    """
    if rank < 1 or not alpha > 0 or not 0 <= dropout < 1:
        raise ValueError(f"LoRA with rank {rank}, alpha {alpha}, dropout {dropout}: use a rank of 1 or more, an alpha"
                         " above 0 and a dropout of at least 0 and less than 1")  # fmt: skip
    found = find_targets(model, targets)
    if not name.isidentifier() or any(name in layer.adapters for layer in lora_layers(model).values()):
        raise ValueError(f"adapter name {name!r}: use letters and digits, and a name that no adapter here has")
    check_unmerged(model)
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)  # on the CPU: the same start on every device
    for path in found:
        parent, leaf = model.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2]
        if not isinstance(linear := getattr(parent, leaf), LoRALinear):
            linear = LoRALinear(linear)
            setattr(parent, leaf, linear)
        linear.adapters[name] = Adapter(linear, rank, alpha, dropout, generator)
    use_adapters(model, [name])
    model.train(model.training)  # the new modules too: their dropout goes by it
    return found


def use_adapters(model: GPT, names: Sequence[str]) -> None:
    """Make these adapters the active ones, whose updates add up. None at all leaves the base model."""
    layers = lora_layers(model).values()
    check_unmerged(model)
    if unknown := set(names) - {name for layer in layers for name in layer.adapters}:
        raise ValueError(f"the model has no adapter {', '.join(sorted(unknown))}")
    for layer in layers:
        layer.active = tuple(name for name in names if name in layer.adapters)


# ---- merging ----


def check_unmerged(model: GPT) -> None:
    if any(layer.merged for layer in lora_layers(model).values()):
        raise ValueError("adapters are merged into the weights: call unmerge_lora first")


@torch.no_grad()
def merge_lora(model: GPT) -> None:
    """Add the active adapters' products to the weights, in place: the same outputs at the base model's speed."""
    for layer in lora_layers(model).values():
        layer.weight.copy_(layer.merged_weight())
        layer.merged = layer.active


@torch.no_grad()
def unmerge_lora(model: GPT) -> None:
    """Take them out again. The weights are those from before up to rounding, about 1e-7 of their size."""
    for layer in lora_layers(model).values():
        layer.weight.sub_(sum(layer.adapters[name].product() for name in layer.merged))
        layer.merged = ()


@torch.no_grad()
def merged_copy(model: GPT) -> GPT:
    """A plain GPT with the active adapters in its weights. Tensors without an adapter are shared, and the given model
    stays as it is, to the bit: training goes on with it."""
    merged = {f"{name}.weight": layer.merged_weight() for name, layer in lora_layers(model).items()}
    plain = GPT.without_weights(model.config)
    plain.load_state_dict(base_state(model) | merged, assign=True)
    return plain.requires_grad_(True).train(model.training)


def base_state(model: GPT) -> dict[str, Tensor]:
    """The base model's own tensors: those whose names a plain GPT has."""
    names = list(GPT.without_weights(model.config).state_dict())
    state = model.state_dict()
    return {name: state[name] for name in names}
