"""Packed weights against the plain ones: the same answers, or nearly, and a clear word where they cannot be had."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gpt.model.generate import generate
from gpt.model.gpt2 import GPT
from gpt.speed import decoding
from gpt.speed.decoding import FORMS, PACKED, Float16Linear, Int8Linear, pack_weights
from gpt.text.entries import load_entries
from gpt.text.prompts import encode_prompt
from gpt.text.tokenizer import load_tokenizer
from gpt.tuning.lora import add_lora, merged_copy
from gpt.weights.checkpoint import load_model, save_model, untie
from scripts import respond
from scripts.new_run import ENTRIES
from tests.reference import random_model

needs_fbgemm = pytest.mark.skipif(not decoding.HAS_FBGEMM, reason="PyTorch without FBGEMM")


class OneDigit(Int8Linear):
    """The usual way: PyTorch's dynamic quantisation, one scale for the inputs of all rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized.linear_dynamic(x, self.packed, True) + self.bias


def prompts(n: int) -> list[list[int]]:
    return [encode_prompt(entry, load_tokenizer()) for entry in load_entries(ENTRIES)[:n]]


def likeliest(model: GPT) -> torch.Tensor:
    """The next token after each of a few prompts' tokens, as the model has it."""
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([ids]))[0].argmax(-1) for ids in prompts(30)])


def outliers(n_rows: int, n: int) -> torch.Tensor:
    """Rows as GPT-2 has them: a few numbers are a hundred times as large as the others."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, n, generator=generator)
    x[:, 5] *= 100
    return x


@pytest.mark.long
def test_float32_has_the_same_ids_in_another_order_of_memory() -> None:
    plain, packed = load_model("gpt2-tiny"), pack_weights(load_model("gpt2-tiny"), "float32")
    assert generate(packed, prompts(6), max_new_tokens=12) == generate(plain, prompts(6), max_new_tokens=12)
    for name in ("h.0.attn.c_attn", "h.7.mlp.c_fc"):  # more rows than columns
        assert packed.get_submodule(name).weight.T.is_contiguous()
    assert packed.h[0].mlp.c_proj.weight.is_contiguous() and packed.wte.weight.T.is_contiguous()


@pytest.mark.long
@needs_fbgemm
def test_float16_has_the_same_likeliest_tokens() -> None:
    packed = pack_weights(load_model("gpt2-tiny"), "float16")
    assert (likeliest(packed) == likeliest(load_model("gpt2-tiny"))).float().mean() > 0.999


@pytest.mark.long
@needs_fbgemm
def test_int8_nearly_has_the_same_likeliest_tokens_and_one_digit_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    right = likeliest(load_model("gpt2-tiny"))
    assert (likeliest(pack_weights(load_model("gpt2-tiny"), "int8")) == right).float().mean() > 0.95
    monkeypatch.setitem(PACKED, "int8", OneDigit)
    assert (likeliest(pack_weights(load_model("gpt2-tiny"), "int8")) == right).float().mean() < 0.9


@needs_fbgemm
def test_int8_rounds_weights_and_hardly_anything_else() -> None:
    """The authority is a product in float64 with the rounded weights."""
    weight, bias, x = torch.randn(96, 64), torch.randn(96), outliers(7, 64)
    scales = weight.abs().amax(1, keepdim=True).double() / 127
    right = F.linear(x.double(), (weight / scales).round() * scales, bias.double())
    unit = x.abs().amax(1, keepdim=True) * weight.norm(dim=1)  # of errors: as large as the largest input times a row
    two, one = ((layer(weight, bias)(x) - right).abs() / unit for layer in (Int8Linear, OneDigit))
    assert two.max() < 3e-4
    assert one.max() > 3e-3


@needs_fbgemm
def test_neighbours_change_nothing_of_a_row_to_the_bit() -> None:
    weight, x = torch.randn(96, 64), outliers(9, 64)
    x[4] *= 1000
    for layer, is_alone in ((Int8Linear(weight, None), True), (OneDigit(weight, None), False)):
        assert all(torch.equal(layer(x)[i], layer(x[i : i + 1])[0]) for i in range(9)) == is_alone


@needs_fbgemm
@pytest.mark.parametrize("layer", [Float16Linear, Int8Linear])
def test_shapes_are_those_of_a_linear_layer(layer: type) -> None:
    packed = layer(torch.randn(20, 16), torch.randn(20))
    for shape in ((1, 16), (3, 16), (2, 3, 16)):
        assert packed(torch.randn(shape)).shape == (*shape[:-1], 20)
    assert torch.equal(Int8Linear(torch.zeros(20, 16), None)(torch.zeros(2, 16)), torch.zeros(2, 20))


@needs_fbgemm
def test_packing_leaves_pytorchs_settings_as_they_were() -> None:
    before = torch.backends.quantized.engine
    pack_weights(random_model(), "int8")
    assert torch.backends.quantized.engine == before


@needs_fbgemm
@pytest.mark.parametrize("form", FORMS)
def test_an_untied_output_layer_is_packed_and_the_embedding_stays(form: str) -> None:
    model, inputs = untie(random_model()), torch.arange(6)[None]
    with torch.no_grad():
        model.lm_head.weight.mul_(-1)  # so that the wrong one would be seen
        right = model(inputs)
        torch.testing.assert_close(pack_weights(model, form)(inputs), right, rtol=0.05, atol=0.05 * right.std().item())


@needs_fbgemm
def test_what_cannot_be_packed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="weights in 'int4' are not known: use float32, float16, int8"):
        pack_weights(random_model(), "int4")
    with pytest.raises(ValueError, match=r"from float32, not from .*bfloat16 on cpu"):
        pack_weights(random_model().bfloat16(), "int8")
    adapted = random_model()
    add_lora(adapted)
    with pytest.raises(ValueError, match="adapters have to be merged before"):
        pack_weights(adapted, "int8")
    packed = pack_weights(merged_copy(adapted), "int8")
    with pytest.raises(ValueError, match="weights are packed once"):
        pack_weights(packed, "float16")
    with pytest.raises(ValueError, match="cannot be saved: save the model before"):
        save_model(packed, tmp_path / "model")
    monkeypatch.setattr(decoding, "HAS_FBGEMM", False)
    with pytest.raises(ValueError, match="weights in int8 need a processor with AVX2"):
        pack_weights(random_model(), "int8")


@needs_fbgemm
def test_a_model_answers_from_the_command_line_with_packed_weights(capsys: pytest.CaptureFixture) -> None:
    said = []
    for form in FORMS:
        assert respond.main(["gpt2-tiny", "Name a color.", "--max-new-tokens", "4", "--weights", form]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]  # int8 may differ
    assert respond.main(["gpt2-tiny", "Name a color.", "--weights", "int4"]) == 2
    assert "use float32, float16, int8" in capsys.readouterr().err
