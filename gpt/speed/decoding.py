"""Weights that are packed for decoding on a CPU: fewer bytes, or the same ones in another order.

A pass that adds one id to one row does two operations for each weight that it reads, so it takes as long as reading
them takes: half the bytes, half the time. Products are as exact as the form lets them be:

    float32   the same numbers; a matrix with more rows than columns is stored by columns, so that one row's product
              with it reads memory from end to end; several rows at a time are better off with the plain model
    float16   10 bits of mantissa for 23, an error of 2e-4 of a product
    int8      each row of a matrix as integers of -127 to 127 with a scale, an error of 7e-3 of a product

int8 multiplies integers with integers, so the inputs are rounded too. The usual way (PyTorch's dynamic quantisation)
writes them with one digit of 7 bits, and where one number of a row is far larger than the others, as in GPT-2, nothing
is left for these. Here they have two digits: two rows of one product, for which the weights are read once. And each row
has its own scale, so what it gets does not depend on its neighbours in a batch.

Sources: Dettmers et al. 2022, "LLM.int8()", sections 2 and 4 (a scale for each row; what large numbers do); Khudia et
al. 2021, "FBGEMM: Enabling High-Performance Low-Precision Deep Learning Inference", whose products these are.
Letters: M rows, in and out the sizes of a layer.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt.model.gpt2 import GPT

DIGIT = 63  # the largest, of 7 bits with a sign: AVX2 adds two products with 8 bits within 16
ZERO = 64  # added to digits, as FBGEMM's are unsigned
HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines


class PackedLinear(nn.Module):
    """A linear layer whose weight is in a form that a product alone can read."""

    def _save_to_state_dict(self, *given: object) -> None:
        raise ValueError("weights that are packed for decoding cannot be saved: save the model before")


class Float16Linear(PackedLinear):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.packed = torch.ops.quantized.linear_prepack_fp16(weight.contiguous(), bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic_fp16(x, self.packed)


class Int8Linear(PackedLinear):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias
        scales = weight.abs().amax(1).double().clamp_min(1e-30) / 127  # (out,)
        with warnings.catch_warnings(), packed_by("fbgemm"):
            warnings.filterwarnings("ignore", ".*quantized tensor creation functions")  # the product takes no others
            integers = torch.quantize_per_channel(weight, scales, torch.zeros_like(scales).long(), 0, torch.qint8)
            self.packed = torch.ops.quantized.linear_prepack(integers, None)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (M, in)
        scale = rows.abs().amax(-1, keepdim=True).clamp_min(1e-30) / DIGIT  # (M, 1)
        scaled = rows / scale
        first = scaled.round()
        second = (scaled - first) * (2 * DIGIT)  # what is left of it is a half at most
        digits = torch.cat([first, second])  # (2 M, in)
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(digits, 1.0, ZERO, self.packed)
        first, second = y.chunk(2)
        y = torch.addcmul(self.bias, torch.add(first, second, alpha=0.5 / DIGIT), scale)  # (M, out)
        return y.view(*x.shape[:-1], -1)


@contextmanager
def packed_by(engine: str) -> Iterator[None]:
    """PyTorch's own choice differs with the processor, and the product above is FBGEMM's alone."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


PACKED = {"float16": Float16Linear, "int8": Int8Linear}
FORMS = ("float32", *PACKED)


@torch.no_grad()
def pack_weights(model: GPT, form: str) -> GPT:
    """Bring the matrices into this form, in place. Afterwards the model is for decoding alone; in float16 and int8 it
    cannot even be saved.

    >>> generate(pack_weights(load_model("gpt2"), "int8"), prompts)

    Raises ValueError for a form, a machine or a model with which that cannot be done.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, PackedLinear))}
    layers.pop("lm_head", None)  # as the tied one, it is read through output_weight
    check_packable(model, form, list(layers.values()))
    model.eval().requires_grad_(False)
    if form == "float32":
        for weight in (*(layer.weight for layer in layers.values()), model.output_weight):
            if weight.shape[0] > weight.shape[1]:
                weight.data = weight.T.contiguous().T
        model.logits = partial(F.linear, weight=model.output_weight)  # GPT.logits turns the product around for few
        return model  # rows, which takes ten times as long with a weight stored by columns
    for name, layer in layers.items():
        model.set_submodule(name, PACKED[form](layer.weight, layer.bias))
    model.logits = PACKED[form](model.output_weight, None).forward  # in place of the method
    return model


def check_packable(model: GPT, form: str, layers: list[nn.Module]) -> None:
    if form not in FORMS:
        raise ValueError(f"weights in {form!r} are not known: use {', '.join(FORMS)}")
    if any(type(layer) is not nn.Linear for layer in layers):
        raise ValueError("weights are packed once, and adapters have to be merged before (lora.merged_copy)")
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.float32:
        raise ValueError(
            f"weights are packed for a CPU and from float32, not from {model.wte.weight.dtype} on {model.device}"
        )
    if form in PACKED and not HAS_FBGEMM:
        raise ValueError(f"weights in {form} need a processor with AVX2: use float32")
