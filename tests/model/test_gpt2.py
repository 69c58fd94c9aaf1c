import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from gpt.model.gpt2 import GPT, MLP, GPTConfig, KVCache, attend
from gpt.weights.checkpoint import SIZES, TURNED
from tests.reference import numpy_logits, random_model

TOLERANCE = 1e-4
PARAMETERS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt2-tiny": 8_084_864,
}


def transformers_twin(model: GPT) -> GPT2LMHeadModel:
    """Hugging Face's model with the same weights, set one by one without our loader."""
    c = model.config
    config = GPT2Config(
        vocab_size=c.vocab_size, n_positions=c.context_length, n_embd=c.n_embd, n_layer=c.n_layer, n_head=c.n_head
    )
    twin = GPT2LMHeadModel(config).eval()
    theirs = dict(twin.transformer.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            theirs[name].copy_(parameter.t() if TURNED.fullmatch(name) else parameter)
    return twin


@pytest.mark.parametrize("length", [1, 2, 17, 128])
def test_logits_equal_transformers(model: GPT, length: int) -> None:
    ids = torch.randint(0, 50257, (2, length), generator=torch.Generator().manual_seed(length))
    with torch.no_grad():
        ours, theirs = model(ids), transformers_twin(model)(ids).logits
    assert ours.shape == (2, length, 50257)
    assert (ours - theirs).abs().max() < TOLERANCE
    assert ours.std() > 0.1  # large enough for the comparison to mean something


@pytest.mark.slow
def test_logits_of_the_real_shape_equal_transformers() -> None:
    model = random_model(SIZES["gpt2"], scale=1.5)
    ids = torch.randint(0, 50257, (1, 1024))
    with torch.no_grad():
        assert (model(ids) - transformers_twin(model)(ids).logits).abs().max() < TOLERANCE


def test_logits_equal_a_model_written_in_numpy(model: GPT) -> None:
    ids = [464, 3797, 3332, 319, 262, 2603, 13, 50256]
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    ours = model(torch.tensor([ids]))[0].detach().numpy()
    assert np.abs(ours - numpy_logits(weights, ids, model.config.n_head)).max() < TOLERANCE


def test_wrong_variants_would_not_pass_the_comparison(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turned square c_proj, swapped queries and keys, the exact GELU and another eps all "almost work"."""
    ids = torch.randint(0, 50257, (1, 40))
    right = model(ids)

    def distance(wrong: GPT) -> float:
        return (wrong(ids) - right).abs().max().item()

    turned = copy.deepcopy(model)
    turned.h[0].attn.c_proj.weight.data = turned.h[0].attn.c_proj.weight.data.t()
    swapped = copy.deepcopy(model)
    q, k, v = swapped.h[0].attn.c_attn.weight.data.chunk(3)
    swapped.h[0].attn.c_attn.weight.data = torch.cat([k, q, v])
    eps = copy.deepcopy(model)
    for block in eps.h:
        block.ln_1.eps = 1e-3
    assert min(distance(turned), distance(swapped), distance(eps)) > 10 * TOLERANCE
    monkeypatch.setattr(MLP, "forward", lambda self, x: self.c_proj(F.gelu(self.c_fc(x))))
    assert distance(model) > TOLERANCE


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_the_release(name: str) -> None:
    with torch.device("meta"):
        assert GPT(SIZES[name]).n_parameters() == PARAMETERS[name]


def test_an_untied_output_layer_would_add_51_million_parameters() -> None:
    with torch.device("meta"):
        untied = GPT(GPTConfig(n_embd=1024, n_layer=24, n_head=16, tied=False))
    assert untied.n_parameters() == 354_823_168 + 50257 * 1024  # the 406M of a well-known mistake


def test_logits_have_50257_columns_and_the_output_layer_is_the_embedding(model: GPT) -> None:
    assert model(torch.tensor([[1]])).shape[-1] == 50257
    assert model.output_weight is model.wte.weight


@pytest.mark.parametrize("context", [32, 1024])
def test_pieces_through_the_cache_give_the_logits_of_the_whole(context: int) -> None:
    model = random_model(GPTConfig(vocab_size=301, context_length=context, n_embd=48, n_layer=3, n_head=4))
    ids = torch.randint(0, 301, (2, context))
    pieces = [5, 1, 9, 5, context - 22, 1, 1]  # the last two are the last two positions
    cache = KVCache(model.config, 2, context, like=model.wte.weight)
    found, start = [], 0
    with torch.no_grad():
        for n in pieces:
            found.append(model(ids[:, start : start + n], cache))
            cache.advance(n)
            start += n
        whole = model(ids)
    assert (torch.cat(found, 1) - whole).abs().max() < TOLERANCE


def test_a_causal_flag_instead_of_the_mask_would_give_other_logits(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """`is_causal=True` counts from the first slot: the second of two new tokens would see slots 0 and 1 only."""
    ids = torch.randint(0, 50257, (1, 7))
    whole = model(ids)
    cache = KVCache(model.config, 1, 128, like=model.wte.weight)
    model(ids[:, :5], cache)
    cache.advance(5)
    monkeypatch.setattr(KVCache, "mask", lambda self, positions: None)
    assert (model(ids[:, 5:], cache) - whole[:, 5:]).abs().max() > 100 * TOLERANCE


def test_rows_of_different_lengths_share_a_cache(model: GPT) -> None:
    rows = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15, 16]]
    follow = [[21, 22, 23], [24, 25, 26], [27, 28, 29]]
    padded = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    cache = KVCache(model.config, 3, 128, like=model.wte.weight)
    with torch.no_grad():
        model.hidden(padded, cache)
        cache.advance([6, 2, 4])
        together = model(torch.tensor(follow), cache)
        for row in range(3):
            alone = model(torch.tensor([rows[row] + follow[row]]))[0, -3:]
            assert (together[row] - alone).abs().max() < TOLERANCE
        cache.advance(3)
        cache.keep([2, 1])
        assert cache.longest == 7
        later = model(torch.tensor([[31], [32]]), cache)
        alone = model(torch.tensor([rows[1] + follow[1] + [32]]))[0, -1]
        assert (later[1, 0] - alone).abs().max() < TOLERANCE
    cache.keep([])
    assert (cache.longest, len(cache.lengths)) == (0, 0)


def test_one_token_too_many_is_refused_with_the_limit(model: GPT) -> None:
    model(torch.zeros(1, 128, dtype=torch.long))
    with pytest.raises(ValueError, match="129 tokens do not fit the context of 128"):
        model(torch.zeros(1, 129, dtype=torch.long))
    cache = KVCache(model.config, 1, 128, like=model.wte.weight)
    model.hidden(torch.zeros(1, 128, dtype=torch.long), cache)
    cache.advance(128)
    with pytest.raises(ValueError, match="129 tokens"):
        model.hidden(torch.zeros(1, 1, dtype=torch.long), cache)


def test_a_cache_with_less_room_than_the_context_says_so(model: GPT) -> None:
    cache = KVCache(model.config, 1, 8, like=model.wte.weight)
    model.hidden(torch.zeros(1, 8, dtype=torch.long), cache)
    cache.advance(8)
    with pytest.raises(ValueError, match="the cache has room for 8 tokens a row, not 9"):
        model.hidden(torch.zeros(1, 1, dtype=torch.long), cache)


def test_dropout_works_in_training_and_not_in_evaluation() -> None:
    model = random_model(GPTConfig(vocab_size=50, context_length=16, n_embd=24, n_layer=2, n_head=2, dropout=0.5))
    ids = torch.randint(0, 50, (1, 16))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_new_weights_are_drawn_as_openai_drew_them() -> None:
    """Normal, 0.02; what is added to the residual stream, twice a block, smaller by the square root of its number."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=500, context_length=64, n_embd=96, n_layer=8, n_head=2))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            expected = 0.02 / 16**0.5 if "c_proj" in name else 0.02
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
            assert abs(parameter.mean().item()) < 0.1 * expected, name
        else:
            assert torch.equal(parameter, torch.full_like(parameter, "ln_" in name and name.endswith("weight"))), name


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="n_embd 100 does not divide into 12 heads"):
        GPTConfig(n_embd=100)


@pytest.mark.parametrize("length", [7, 256, 257])
def test_attention_written_out_for_bfloat16_on_the_cpu_equals_the_fused_kernel(length: int) -> None:
    """Forward and backward; at 257 tokens the fused kernel itself takes over."""
    torch.manual_seed(0)
    exact = [torch.randn(2, 3, length, 16, requires_grad=True) for _ in range(3)]
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    wanted = F.scaled_dot_product_attention(*exact, is_causal=True)
    seen = attend(*rounded, None, 0.0)
    wanted.square().sum().backward()
    seen.float().square().sum().backward()
    assert (seen - wanted).abs().max() < 0.05
    for a, b in zip(rounded, exact, strict=True):
        assert (a.grad - b.grad).norm() < 0.03 * b.grad.norm()
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[0] = True  # with a mask of its own, not the causal one
    masked = F.scaled_dot_product_attention(*exact, attn_mask=mask)
    assert (attend(*rounded, mask, 0.0) - masked).abs().max() < 0.05
    leaking = F.scaled_dot_product_attention(*exact)  # the wrong variant: no causal mask
    assert (leaking - wanted).abs().max() > 0.5


def test_the_softmax_of_bfloat16_scores_is_computed_in_float32_and_rounded() -> None:
    scores = (3 * torch.randn(8, 200, 200)).bfloat16()
    assert torch.equal(scores.softmax(-1), scores.float().softmax(-1).bfloat16())
    powers = (scores - scores.amax(-1, keepdim=True)).exp()  # the wrong variant: each step in bfloat16
    assert not torch.equal(powers / powers.sum(-1, keepdim=True), scores.softmax(-1))
