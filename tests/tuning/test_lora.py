import copy
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from gpt.model.generate import generate
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.tuning.adapter import base_digest, load_adapter, save_adapter
from gpt.tuning.lora import LoRALinear, add_lora, lora_layers, merge_lora, merged_copy, unmerge_lora, use_adapters
from gpt.weights.checkpoint import read_json, save_model, untie, write_json
from gpt.weights.tf_checkpoint import CheckpointError
from tests.reference import SMALL, random_model

IDS = torch.randint(0, 50257, (2, 9), generator=torch.Generator().manual_seed(0))
EXPECTED = {"attn.c_attn": (48, 144), "attn.c_proj": (48, 48), "mlp.c_fc": (48, 192), "mlp.c_proj": (192, 48)}


def stir(model: nn.Module, seed: int = 1) -> None:
    """Give every lora_B numbers as training would: fresh ones are zero, and no mistake in them would show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor = IDS) -> Tensor:
    found = model(ids)
    return found if isinstance(found, Tensor) else found.logits


def far(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of a base model that both sides read."""
    save_model(random_model(), tmp_path / "base")
    return tmp_path / "base"


def theirs(base: Path) -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(base).eval()


# ---- what learns ----


def test_a_fresh_adapter_changes_nothing(model: GPT) -> None:
    before = logits(model)
    add_lora(model)
    assert torch.equal(logits(model), before)


def test_the_adapters_alone_learn_and_their_shapes_are_the_papers(model: GPT) -> None:
    layers = add_lora(model, rank=4)
    assert layers == [f"h.{i}.{name}" for i in range(3) for name in EXPECTED]
    trained = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    expected = {}
    for layer in layers:
        n_in, n_out = EXPECTED[layer.split(".", 2)[2]]
        expected[f"{layer}.adapters.default.lora_A"] = (4, n_in)
        expected[f"{layer}.adapters.default.lora_B"] = (n_out, 4)
    assert trained == expected


def test_gpt2_has_as_many_trained_parameters_as_the_docstring_says() -> None:
    with torch.device("meta"):
        model = GPT(GPTConfig())
        add_lora(model, rank=8)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 1_179_648


@pytest.mark.parametrize("target", ["lm_head", "wte", "wpe", "ln_1", "attn", "c_att", "", "*"])
def test_only_matrices_of_the_blocks_are_targets(target: str, model: GPT) -> None:
    for one in (model, untie(model)):  # with an lm_head that is a layer by itself, too
        with pytest.raises(ValueError, match=r"is no layer of the blocks: use c_attn, c_proj, c_fc"):
            add_lora(one, targets=["c_attn", target])
        assert not lora_layers(one)
        assert all(p.requires_grad for p in one.parameters())


def test_no_target_reaches_the_tied_head_and_a_step_leaves_it_alone(model: GPT) -> None:
    before, head = model.wte.weight.detach().clone(), model.output_weight
    add_lora(model)
    assert model.output_weight is head is model.wte.weight
    model(IDS).logsumexp(-1).sum().backward()
    torch.optim.AdamW(model.parameters(), lr=0.1).step()
    assert torch.equal(model.wte.weight, before)
    assert model.h[0].attn.c_attn.adapters["default"].lora_B.abs().max() > 0.05


def test_a_target_may_name_one_kind_of_layer_or_one_layer(model: GPT) -> None:
    assert add_lora(copy.deepcopy(model), targets=["attn.c_proj"]) == [f"h.{i}.attn.c_proj" for i in range(3)]
    assert add_lora(model, targets=["h.1.mlp.c_fc"]) == ["h.1.mlp.c_fc"]


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"alpha": float("nan")}])
def test_impossible_numbers_are_refused(wrong: dict, model: GPT) -> None:
    with pytest.raises(ValueError, match="use a rank of 1 or more"):
        add_lora(model, **wrong)


def test_the_scale_is_alpha_over_rank_and_without_it_the_update_would_be_many_times_too_large(model: GPT) -> None:
    add_lora(model, rank=16, alpha=1.0)
    stir(model)
    layer, x = model.h[0].mlp.c_fc, torch.randn(5, 48)
    adapter = layer.adapters["default"]
    plain = x @ layer.weight.T + layer.bias
    update = x @ adapter.lora_A.T @ adapter.lora_B.T
    assert torch.allclose(layer(x), plain + update / 16, atol=1e-5)
    assert not torch.allclose(layer(x), plain + update, atol=1e-1)  # alpha and rank forgotten


def test_dropout_acts_in_training_only(model: GPT) -> None:
    add_lora(model, dropout=0.5)
    stir(model)
    assert torch.equal(logits(model.eval()), logits(model))
    model.train()
    assert far(logits(model), logits(model)) > 0.01
    assert model.h[0].attn.c_attn.adapters["default"].training


def test_adapters_added_to_a_model_in_evaluation_do_not_drop_out(model: GPT) -> None:
    assert not model.training
    add_lora(model, dropout=0.5)
    stir(model)
    assert torch.equal(logits(model), logits(model))


def test_the_start_follows_from_the_seed(model: GPT) -> None:
    copies = [copy.deepcopy(model) for _ in range(3)]
    for one, seed in zip(copies, (1, 1, 2), strict=True):
        torch.rand(seed)  # the global state has no part in it
        add_lora(one, seed=seed)
    a, b, c = (one.h[0].attn.c_attn.adapters["default"].lora_A for one in copies)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert a.abs().max() <= 48**-0.5


# ---- merging ----


def test_merged_equals_unmerged_and_the_way_back_is_exact_to_rounding(model: GPT) -> None:
    before = {name: t.clone() for name, t in model.state_dict().items()}
    plain = logits(model)
    add_lora(model)
    stir(model)
    unmerged = logits(model)
    merge_lora(model)
    merge_lora(model)  # a second time adds nothing
    assert far(unmerged, plain) > 0.1
    assert far(logits(model), unmerged) < 1e-4
    assert far(model.h[0].attn.c_attn.weight, before["h.0.attn.c_attn.weight"]) > 0.1
    unmerge_lora(model)
    assert far(logits(model), unmerged) < 1e-4
    for name, layer in lora_layers(model).items():
        assert far(layer.weight, before[f"{name}.weight"]) < 1e-6


def test_a_merged_copy_is_a_plain_model_and_leaves_the_other_to_the_bit(model: GPT, tmp_path: Path) -> None:
    add_lora(model, dropout=0.3)
    stir(model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    plain = merged_copy(model)
    assert not lora_layers(plain)
    assert far(logits(plain), logits(model)) < 1e-4
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert plain.wte.weight.data_ptr() == model.wte.weight.data_ptr()  # shared
    assert not model.wte.weight.requires_grad
    save_model(plain, tmp_path)
    assert far(logits(theirs(tmp_path)), logits(model)) < 1e-4


def test_generation_gives_the_same_ids_with_adapters_beside_or_in_the_weights(model: GPT) -> None:
    add_lora(model)
    stir(model)
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13, 14]]
    beside = generate(model, prompts, max_new_tokens=12)
    assert beside == generate(merged_copy(model), prompts, max_new_tokens=12)
    use_adapters(model, [])
    assert beside != generate(model, prompts, max_new_tokens=12)


def test_while_merged_nothing_else_happens_to_the_adapters(model: GPT, tmp_path: Path) -> None:
    add_lora(model)
    stir(model)
    merge_lora(model)
    for wrong in (lambda: use_adapters(model, []), lambda: add_lora(model, name="b"),
                  lambda: save_adapter(model, tmp_path)):  # fmt: skip
        with pytest.raises(ValueError, match="call unmerge_lora first"):
            wrong()


# ---- several adapters ----


def test_several_adapters_lie_on_one_base_and_add_up(model: GPT) -> None:
    plain = logits(model)
    for seed, (name, targets) in enumerate({"a": ["c_attn"], "b": ["c_attn", "c_fc"]}.items()):
        add_lora(model, targets=targets, name=name, seed=seed)
    stir(model)
    found = {}
    for names in (["a"], ["b"], ["a", "b"], []):
        use_adapters(model, names)
        found[tuple(names)] = logits(model)
        assert far(logits(merged_copy(model)), found[tuple(names)]) < 1e-4
    assert torch.equal(found[()], plain)
    assert min(far(found[x], found[y]) for x, y in [(("a",), ("b",)), (("a",), ("a", "b")), (("b",), ())]) > 0.1
    layer, x = model.h[1].attn.c_attn, torch.randn(4, 48)
    use_adapters(model, ["a", "b"])
    update = sum(layer.adapters[name](x) for name in "ab")
    assert torch.allclose(layer(x), x @ layer.weight.T + layer.bias + update, atol=1e-5)


def test_the_newest_adapter_alone_learns(model: GPT) -> None:
    add_lora(model, name="a")
    add_lora(model, name="b")
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"b"}
    assert model.h[0].attn.c_attn.active == ("b",)


@pytest.mark.parametrize("name", ["a", "", "a.b", "a b"])
def test_a_name_that_is_taken_or_is_none_is_refused(name: str, model: GPT) -> None:
    add_lora(model, name="a", targets=["c_fc"])
    with pytest.raises(ValueError, match="adapter name"):
        add_lora(model, name=name)
    with pytest.raises(ValueError, match="no adapter nobody"):
        use_adapters(model, ["nobody"])


# ---- PEFT ----


@pytest.mark.long
@pytest.mark.parametrize(
    "targets", [["c_attn"], ["c_attn", "c_proj", "c_fc"], ["attn.c_proj"], ["h.1.mlp.c_fc", "h.0.attn.c_attn"]]
)
def test_peft_reads_our_adapter_and_has_the_same_outputs(targets: list[str], base: Path, tmp_path: Path) -> None:
    model = random_model()
    add_lora(model, rank=4, alpha=10.0, dropout=0.1, targets=targets)
    stir(model)
    save_adapter(model, tmp_path / "adapter", str(base))
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "adapter").eval()
    assert far(logits(peft), logits(model)) < 1e-4
    assert far(logits(peft), logits(theirs(base))) > 0.1
    assert far(logits(peft.merge_and_unload()), logits(merged_copy(model))) < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"target_modules": ["c_attn", "c_fc", "c_proj"]}])
def test_we_read_pefts_adapter_and_have_the_same_outputs(settings: dict, base: Path, tmp_path: Path) -> None:
    config = LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", fan_in_fan_out=True, **settings)
    peft = get_peft_model(theirs(base), config).eval()
    stir(peft)
    peft.save_pretrained(tmp_path / "adapter")
    model = random_model()
    load_adapter(model, tmp_path / "adapter", "theirs")
    assert far(logits(model), logits(peft)) < 1e-4
    merge_lora(model)
    assert far(logits(model), logits(peft)) < 1e-4


def test_a_product_that_is_turned_would_be_found_out(base: Path, tmp_path: Path) -> None:
    """attn.c_proj is square: with its product turned the shapes fit, and something else is computed."""
    model = random_model()
    add_lora(model, targets=["attn.c_proj"])
    stir(model)
    save_adapter(model, tmp_path, str(base))
    right = PeftModel.from_pretrained(theirs(base), tmp_path).eval()
    for layer in lora_layers(model).values():
        adapter = layer.adapters["default"]
        layer.weight.data += adapter.product().T - adapter.product()
    assert far(logits(right), logits(model)) > 0.1


@pytest.mark.long
def test_training_takes_the_same_way_as_pefts(base: Path, tmp_path: Path) -> None:
    """Ten steps from the same start: gradients and scale agree, not only outputs."""
    ours = random_model(scale=1.0)
    save_model(ours, base)
    add_lora(ours, rank=4, alpha=8.0)
    save_adapter(ours, tmp_path / "start", str(base))
    peft = PeftModel.from_pretrained(theirs(base), tmp_path / "start", is_trainable=True)
    for model in (ours, peft):
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(10):
            found = model(IDS)
            found = found if isinstance(found, Tensor) else found.logits
            nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert far(logits(ours), logits(theirs(base))) > 0.1
    assert far(logits(ours), logits(peft.eval())) < 1e-3


# ---- adapters alone ----


def saved(folder: Path, **settings: object) -> GPT:
    model = random_model()
    add_lora(model, **settings)
    stir(model)
    save_adapter(model, folder)
    return model


def test_an_adapter_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model = saved(tmp_path / "a", rank=3, alpha=5.0, dropout=0.25, targets=["c_fc", "c_attn"])
    other = random_model()
    load_adapter(other, tmp_path / "a", "again")
    assert torch.equal(logits(other), logits(model))
    adapter = other.h[2].mlp.c_fc.adapters["again"]
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (3, 5.0, 0.25)
    save_adapter(other, tmp_path / "b", name="again")
    assert (
        load_file(tmp_path / "b/adapter_model.safetensors").keys()
        == load_file(tmp_path / "a/adapter_model.safetensors").keys()
    )
    assert read_json(tmp_path / "b/adapter_config.json") == read_json(tmp_path / "a/adapter_config.json")


def test_two_saved_adapters_lie_on_one_base(tmp_path: Path) -> None:
    single = {name: saved(tmp_path / name, seed=seed, rank=seed) for seed, name in enumerate("ab", start=2)}
    model = random_model()
    for name in single:
        load_adapter(model, tmp_path / name, name)
    for name, alone in single.items():
        use_adapters(model, [name])
        assert torch.equal(logits(model), logits(alone))


def test_an_adapter_of_another_base_is_an_error_that_says_so(tmp_path: Path) -> None:
    saved(tmp_path)
    other = random_model(seed=5)  # the same shapes, other weights: nothing but the digest can tell
    with pytest.raises(CheckpointError, match="was trained on a base with other weights"):
        load_adapter(other, tmp_path)
    assert not lora_layers(other)
    load_adapter(other, tmp_path, any_base=True)
    assert lora_layers(other)


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(**{**vars(SMALL), "n_embd": 64}),
        GPTConfig(**{**vars(SMALL), "n_layer": 2}),
        GPTConfig(**{**vars(SMALL), "n_embd": 192}),
    ],
)
def test_an_adapter_of_another_size_is_an_error_even_where_any_base_is_taken(config: GPTConfig, tmp_path: Path) -> None:
    saved(tmp_path)
    model = random_model(config)
    with pytest.raises(CheckpointError, match="belongs to another"):
        load_adapter(model, tmp_path, any_base=True)
    assert not lora_layers(model)


def test_one_changed_weight_makes_another_base_and_adapters_do_not(model: GPT) -> None:
    digest = base_digest(model)
    add_lora(model)
    stir(model)
    assert base_digest(model) == digest
    with torch.no_grad():
        model.wpe.weight[3, 5] += 1e-3
    assert base_digest(model) != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora True: only plain LoRA"),
        ({"rank_pattern": {"c_attn": 2}}, r"rank_pattern \{.*\}: only plain LoRA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa': only plain LoRA"),
        ({"bias": "all"}, "bias 'all': only plain LoRA"),
        ({"r": "8"}, "r '8', .*: give numbers"),
        ({"r": 4}, r"would fit this base"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type is 'PROMPT_TUNING', and 'LORA' is read here"),
    ],
)
def test_what_is_more_than_lora_is_refused_and_not_ignored(change: dict, message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    write_json(tmp_path / "adapter_config.json", read_json(tmp_path / "adapter_config.json") | change)
    model = random_model()
    with pytest.raises(CheckpointError, match=message):
        load_adapter(model, tmp_path)
    assert not lora_layers(model)


@pytest.mark.parametrize("damage", ["cut off", "gone", "a tensor is missing", "no layer of a block"])
def test_a_damaged_adapter_is_said(damage: str, tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "gone":
        path.unlink()
    elif damage == "a tensor is missing":
        save_file({key: tensor for key, tensor in tensors.items() if key != first}, path)
    else:
        save_file({key.replace("h.0.attn.c_attn", "lm_head"): t for key, t in tensors.items()}, path)
    with pytest.raises(CheckpointError, match=r"damaged or missing|some are missing|belongs to another base"):
        load_adapter(random_model(), tmp_path)


def test_saving_needs_an_adapter(model: GPT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no adapter 'default'"):
        save_adapter(model, tmp_path)
    assert isinstance(model.h[0].attn.c_attn, nn.Linear)
    assert not isinstance(model.h[0].attn.c_attn, LoRALinear)
