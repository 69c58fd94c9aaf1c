"""The contestants of the benchmark at decoding: every prompt is continued to the length of its reference.

So speed does not depend on what a model says, and weights may be random. See contestants.py for what a contestant is.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gpt.model.generate import generate
from gpt.model.gpt2 import GPT
from gpt.speed.decoding import PACKED, pack_weights
from gpt.studies.contestants import Contestant, Done, Task, read_data, textbook_logits
from gpt.text.dataset import InstructionDataset, collate
from gpt.text.entries import Entry, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import load_model


def check_lengths(ids: Sequence[list[int]], limits: Sequence[int]) -> None:
    """Raises ValueError if a row was not continued to its length: its contestant did other work than asked."""
    for row, (new, limit) in enumerate(zip(ids, limits, strict=True)):
        if len(new) != limit:
            raise ValueError(f"prompt {row} got {len(new)} new tokens where {limit} were asked for")


def decoding_model(task: Task) -> GPT:
    """Our model as one would decode with it: on a CPU packed, but for several rows in float32."""
    model, is_one = load_model(task.folder, task.device).eval(), len(read_data(task).prompts) == 1
    if task.precision == "bf16":
        return model.to(torch.bfloat16)
    if task.precision in PACKED or (is_one and task.device == "cpu"):
        return pack_weights(model, task.precision)
    return model


def decode_ours(task: Task) -> Iterator[Done | None]:
    """`gpt.generate`, all prompts at once."""
    yield None
    model, data = decoding_model(task), read_data(task)
    while True:  # no id is the end of text, so every row gets as many as it may have
        found = generate(model, data.prompts, max_new_tokens=data.limits, eot_id=-1)
        yield Done(None, sum(data.limits), [one.ids for one in found])


def decode_textbook(task: Task) -> Iterator[Done | None]:
    """Prompt by prompt without cache: all tokens so far are read again for every new one, with logits at each."""
    yield None
    model, data = load_model(task.folder, task.device), read_data(task)
    while True:
        found = []
        for prompt, limit in zip(data.prompts, data.limits, strict=True):
            ids = torch.tensor([prompt], device=task.device)
            for _ in range(limit):
                with torch.no_grad():
                    next_id = textbook_logits(model, ids)[:, -1].argmax(-1, keepdim=True)
                ids = torch.cat([ids, next_id], dim=1)
            found.append(ids[0, len(prompt) :].tolist())
        yield Done(None, sum(data.limits), found)


def decode_transformers(task: Task) -> Iterator[Done | None]:
    """Its `generate`, all prompts in one batch, padded on the left as it wants them."""
    from transformers import GPT2LMHeadModel, StoppingCriteria

    class AtLength(StoppingCriteria):
        def __init__(self, n_prompt: int, limits: list[int]) -> None:
            self.ends = torch.tensor(limits, device=task.device) + n_prompt

        def __call__(self, input_ids: Tensor, scores: Tensor, **more: object) -> Tensor:
            return input_ids.shape[1] >= self.ends

    yield None
    dtype = torch.bfloat16 if task.precision == "bf16" else torch.float32
    model, data = GPT2LMHeadModel.from_pretrained(task.folder, dtype=dtype).to(task.device).eval(), read_data(task)
    model.generation_config.eos_token_id = None  # lengths are given
    width, pad = max(map(len, data.prompts)), load_tokenizer().eot_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in data.prompts], device=task.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in data.prompts], device=task.device)
    while True:
        with torch.inference_mode():
            rows = model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max(data.limits),
                stopping_criteria=[AtLength(width, data.limits)], pad_token_id=pad,
            )  # fmt: skip
        found = [row[width : width + limit].tolist() for row, limit in zip(rows, data.limits, strict=True)]
        yield Done(None, sum(data.limits), found)


@torch.inference_mode()
def agreement(form: str, entries: Sequence[Entry], n_entries: int = 100) -> dict[str, float]:
    """How often the bundled model has the same likeliest token when its weights are packed: over all tokens of test
    entries, and the next of their responses. (Random weights are unsure of every token and would not tell.)"""
    model, packed = load_model("gpt2-tiny"), pack_weights(load_model("gpt2-tiny"), form)
    examples = InstructionDataset(split_entries(list(entries))[2][:n_entries], load_tokenizer()).examples
    same: dict[str, list[Tensor]] = {"all": [], "response": []}
    for example in examples:
        ids = torch.tensor([example.ids])
        logits = [one.logits(one.hidden(ids)[0]) for one in (model, packed)]
        is_same = logits[0].argmax(-1) == logits[1].argmax(-1)
        for loss_on, found in same.items():
            found.append(is_same[:-1][collate([example], loss_on)[1][0] >= 0])
    return {loss_on: torch.cat(found).float().mean().item() for loss_on, found in same.items()}


DECODERS: dict[str, Contestant] = {
    "ours": decode_ours,
    "textbook": decode_textbook,
    "transformers": decode_transformers,
}
