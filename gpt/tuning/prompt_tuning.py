"""Prompt tuning: the whole model stays as it is, and a few vectors in front of the text learn.

    prompt = add_prompt(model, tokenizer.encode("Follow the instruction."))      five vectors, and their ids
    train(model, optimizer, with_prompt(train_set, prompt), with_prompt(val_set, prompt), config)
    generate(model, [prompt + encode_prompt(entry, tokenizer)])

The vectors stand where the embeddings of tokens would stand. Here they have ids, those after the vocabulary, and the
embedding looks them up: loss, KV cache and generation need to know nothing of them. The output layer has no rows for
them, so they are read and never written. One such prompt for each task, and one model serves all tasks in one batch.

Source: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2.
Letters: B batch, T tokens, C n_embd, P vectors of the prompt.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model.gpt2 import GPT
from gpt.text.dataset import Example, InstructionDataset, Kind
from gpt.tuning.adapter import read_folder, write_folder
from gpt.weights.tf_checkpoint import CheckpointError

NEVER = min(Kind) - 1  # the kind of a prompt vector's id: it comes before all that a loss counts


class PromptEmbedding(nn.Embedding):
    """The token embedding, and behind its last row those of the prompt, which are a parameter of their own."""

    def __init__(self, wte: nn.Embedding, prompt: Tensor) -> None:
        super().__init__(*wte.weight.shape, device="meta")  # no weights but the given ones
        self.weight = wte.weight
        self.prompt = nn.Parameter(prompt)  # (P, C)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C)"""
        place = ids - self.num_embeddings  # in the prompt; negative for a token
        tokens = F.embedding(ids.masked_fill(place >= 0, 0), self.weight)
        return torch.where((place >= 0)[..., None], F.embedding(place.clamp(min=0), self.prompt), tokens)


def add_prompt(model: GPT, start: Sequence[int]) -> list[int]:
    """Give the model a prompt of one vector for each id of `start`, in place, freeze all else, and return the vectors'
    ids. They begin as the embeddings of those tokens: random ones ended worse in the source (section 3.2)."""
    if not start or isinstance(model.wte, PromptEmbedding):
        raise ValueError("a prompt needs one token or more to start from, and a model that has no prompt yet")
    if len(start) >= model.config.context_length:
        raise ValueError(f"a prompt of {len(start)} vectors leaves no room in {model.config.context_length} positions")
    model.requires_grad_(False)
    model.wte = PromptEmbedding(model.wte, model.wte.weight[list(start)].clone())
    return prompt_ids(model)


def prompt_ids(model: GPT) -> list[int]:
    """The ids of the model's prompt: vocab_size, vocab_size + 1, ..."""
    first = model.config.vocab_size
    return list(range(first, first + len(model.wte.prompt)))


def with_prompt(dataset: InstructionDataset, prompt: Sequence[int]) -> InstructionDataset:
    """The same entries with the prompt before each; encode them with a max_length that leaves room for it."""
    prompted = copy.copy(dataset)
    prompted.examples = [Example([*prompt, *ids], [*[NEVER] * len(prompt), *kinds]) for ids, kinds in dataset.examples]
    return prompted


def save_prompt(model: GPT, folder: Path, base: str = "") -> None:
    """Write the prompt alone, in PEFT's format. `base` is the base model's name or folder, as PEFT looks for it."""
    shape = model.config
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": len(model.wte.prompt), "token_dim": shape.n_embd}
    config |= {"num_layers": shape.n_layer, "num_attention_heads": shape.n_head, "num_transformer_submodules": 1}
    write_folder(folder, model, base, config, {"prompt_embeddings": model.wte.prompt})


def load_prompt(model: GPT, folder: str | Path, *, any_base: bool = False) -> list[int]:
    """Put a prompt from a folder, ours or PEFT's, on its base model, in place, and return its ids. Raises
    CheckpointError if it is damaged or belongs to another base (with `any_base`: only if it does not fit)."""
    folder = Path(folder)
    vectors = read_folder(folder, model, "PROMPT_TUNING", any_base)[1].get("prompt_embeddings", torch.empty(0))
    if vectors.dim() != 2 or vectors.shape[1] != model.config.n_embd:
        raise CheckpointError(f"{folder}: prompt vectors of shape {tuple(vectors.shape)} belong to another base: here"
                              f" n_embd is {model.config.n_embd}")  # fmt: skip
    prompt = add_prompt(model, [0] * len(vectors))
    with torch.no_grad():
        model.wte.prompt.copy_(vectors)
    return prompt
