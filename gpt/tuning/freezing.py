"""What stays as it is, and what learns at a rate of its own.

Lower blocks hold what all text has in common, and a small set of entries can spoil them. Freezing keeps them; rates
that fall from the top block down let them move a little (Howard and Ruder 2018, "Universal Language Model Fine-tuning
for Text Classification", section 3.2).
"""

import re

from gpt.model.gpt2 import GPT

PART = r"embeddings|(?:first|all-but):\d+"


def check_freeze(what: str) -> None:
    """Raises ValueError if it is not a list that `freeze` reads."""
    if not re.fullmatch(f"(({PART})(,({PART}))*)?", what):
        raise ValueError(f"freeze is {what!r}: use embeddings, first:N, all-but:N, with commas between")


def freeze(model: GPT, what: str) -> None:
    """Exclude parts from training, in place: "embeddings", "first:N" blocks, or "all-but:N", the last blocks.

    A tied output layer is the embedding and frozen with it. Raises ValueError for blocks that the model does not have.
    """
    embeddings, blocks = [model.wte, model.wpe], list(model.h)
    for part in filter(None, what.split(",")):
        kind, n = part.partition(":")[0], int(part.partition(":")[2] or 0)
        if n > len(blocks):
            raise ValueError(f"freeze is {what!r}, and the model has {len(blocks)} blocks")
        below = {"embeddings": 0, "first": n, "all-but": len(blocks) - n}[kind]
        for module in (embeddings if kind != "first" else []) + blocks[:below]:
            module.requires_grad_(False)


def lr_factor(name: str, n_layer: int, layer_decay: float, embeddings: float = 0.0) -> float:
    """A parameter's share of the learning rate, by its name. From the top block down each has `layer_decay` times that
    of the one above it; the embeddings follow, unless they are given a share of their own."""
    if name.startswith(("wte.", "wpe.")):
        return embeddings or layer_decay**n_layer
    layer = int(name.split(".")[1]) if name.startswith("h.") else n_layer - 1
    return layer_decay ** (n_layer - 1 - layer)
