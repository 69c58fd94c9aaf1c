import copy
import dataclasses
import math
import random

import pytest
import torch

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.dataset import InstructionDataset, collate
from gpt.text.tokenizer import Tokenizer
from gpt.training import train as module
from gpt.training.loss import supervised_loss
from gpt.training.train import (
    TrainConfig,
    TrainingError,
    choose_trained,
    epoch_batches,
    lr_at,
    make_optimizer,
    make_scaler,
    train,
    train_step,
)
from gpt.tuning.lora import lora_layers
from tests.reference import random_model

TINY = GPTConfig(context_length=64, n_embd=16, n_layer=2, n_head=2, dropout=0.2)
WORDS = "river teacher garden window market doctor bridge candle forest kitchen".split()


@pytest.fixture
def dataset(tokenizer: Tokenizer) -> InstructionDataset:
    rng = random.Random(0)
    entries = [
        {"instruction": " ".join(rng.choices(WORDS, k=3)), "input": "", "output": " ".join(rng.choices(WORDS, k=k))}
        for k in [1, 1, 2, 3, 12, 30] * 7
    ]
    return InstructionDataset(entries, tokenizer, "short", 64)


def tiny(dropout: float = 0.2) -> GPT:
    return random_model(GPTConfig(**{**vars(TINY), "dropout": dropout}), scale=1.0)


def gradients(model: GPT, dataset: InstructionDataset, rows: list[int], micro_batch: int) -> dict[str, torch.Tensor]:
    """What one step would apply: the optimizer only looks."""
    seen = {}

    class Look(torch.optim.SGD):
        def step(self) -> None:
            seen.update({name: p.grad.clone() for name, p in model.named_parameters()})

    config = TrainConfig(micro_batch=micro_batch, clip=1e9)
    train_step(model, Look(model.parameters(), lr=0.0), dataset, rows, config, 0, make_scaler(model.device, "float32"))
    return seen


def test_accumulation_gives_the_same_gradients_however_a_step_is_cut(dataset: InstructionDataset) -> None:
    model, rows = tiny(dropout=0.0), [0, 4, 5, 8, 11, 13, 17, 20]
    whole = gradients(model, dataset, rows, 8)
    for micro_batch in (4, 2, 1, 3):
        for name, gradient in gradients(model, dataset, rows, micro_batch).items():
            assert (gradient - whole[name]).abs().max() < 1e-6, (name, micro_batch)


def test_a_mean_of_micro_batch_means_would_weigh_tokens_differently(dataset: InstructionDataset) -> None:
    model, rows = tiny(dropout=0.0), [0, 4, 5, 8, 11, 13, 17, 20]
    whole = gradients(model, dataset, rows, 8)["wte.weight"]
    model.zero_grad()
    for row in rows:
        inputs, targets = collate([dataset[row]])
        loss_sum, n = supervised_loss(model.hidden(inputs), targets, model.output_weight)
        (loss_sum / n / len(rows)).backward()
    assert (model.wte.weight.grad - whole).abs().max() > 1e-3


def run(
    model: GPT, dataset: InstructionDataset, config: TrainConfig, n: int, optimizer=None, first: int = 0, scaler=None
) -> tuple:
    optimizer = optimizer or make_optimizer(model, config)
    reports = []
    for report in train(model, optimizer, dataset, dataset, config, first, scaler=scaler):
        reports.append(report)
        if report.step == n:
            break
    return optimizer, reports


@pytest.mark.long
def test_twenty_steps_equal_ten_and_a_resume_and_ten_bit_for_bit(dataset: InstructionDataset) -> None:
    config = TrainConfig(epochs=4, batch_size=8, micro_batch=4, lr=1e-2, dropout=0.2)
    straight = tiny()
    _, all_reports = run(straight, dataset, config, 20)
    first = tiny()
    optimizer, _ = run(first, dataset, config, 10)
    saved = copy.deepcopy((first.state_dict(), optimizer.state_dict()))
    torch.manual_seed(999)  # another process has another random state
    torch.rand(5)
    second = tiny()
    second.load_state_dict(saved[0])
    optimizer = make_optimizer(second, config)
    optimizer.load_state_dict(saved[1])
    _, later = run(second, dataset, config, 20, optimizer, first=10)
    assert [r.loss for r in all_reports[11:]] == [r.loss for r in later]
    for (name, a), b in zip(straight.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.long
def test_a_resume_without_the_optimizer_or_the_position_would_be_another_run(dataset: InstructionDataset) -> None:
    config = TrainConfig(epochs=4, batch_size=8, lr=1e-2)
    straight, first = tiny(), tiny()
    run(straight, dataset, config, 20)
    run(first, dataset, config, 10)
    for start in (10, 0):  # a fresh optimizer at the right place; everything from the start
        second = tiny()
        second.load_state_dict(first.state_dict())
        run(second, dataset, config, 20, first=start)
        assert not torch.equal(second.wte.weight, straight.wte.weight)


def test_decay_falls_on_matrices_only() -> None:
    model = tiny()
    decayed, plain = make_optimizer(model, TrainConfig(weight_decay=0.1)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert {names[id(p)].split(".")[-1] for p in plain["params"]} == {"weight", "bias"}
    assert all("ln_" in names[id(p)] or names[id(p)].endswith("bias") for p in plain["params"])
    assert all(names[id(p)].endswith("weight") and "ln_" not in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_decay_on_all_pulls_the_gains_to_zero_and_happens_on_request_only() -> None:
    def gain_after(config: TrainConfig) -> float:
        model = tiny()
        optimizer = make_optimizer(model, config)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        before = model.ln_f.weight.mean().item()
        for _ in range(50):
            optimizer.step()
        return model.ln_f.weight.mean().item() / before

    assert gain_after(TrainConfig(lr=0.1, weight_decay=0.1)) == pytest.approx(1.0)
    assert gain_after(TrainConfig(lr=0.1, weight_decay=0.1, decay_all=True)) == pytest.approx(0.99**50)
    assert {group["weight_decay"] for group in make_optimizer(tiny(), TrainConfig(decay_all=True)).param_groups} == {
        0.1
    }


# ---- what learns, and how fast ----


@pytest.mark.long
@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        ("", set()),
        ("embeddings", {"wte", "wpe"}),
        ("first:1", {"h.0"}),
        ("embeddings,first:2", {"wte", "wpe", "h.0", "h.1"}),
        ("all-but:1", {"wte", "wpe", "h.0", "h.1"}),
        ("all-but:0", {"wte", "wpe", "h.0", "h.1", "h.2"}),
        ("all-but:3", {"wte", "wpe"}),
    ],
)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(
    freeze: str, frozen: set[str], dataset: InstructionDataset
) -> None:
    model = random_model(dataclasses.replace(TINY, n_layer=3), scale=1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(epochs=1, batch_size=21, lr=1e-2, freeze=freeze)
    choose_trained(model, config)
    run(model, dataset, config, 2)
    for name, p in model.named_parameters():
        is_frozen = any(name.startswith(f"{part}.") for part in frozen)
        assert torch.equal(p, before[name]) == is_frozen, name
        assert p.requires_grad != is_frozen


def test_more_blocks_than_there_are_cannot_be_frozen() -> None:
    for freeze in ("first:3", "all-but:3"):
        with pytest.raises(ValueError, match=f"freeze is '{freeze}', and the model has 2 blocks"):
            choose_trained(tiny(), TrainConfig(freeze=freeze))


def rates(config: TrainConfig, dataset: InstructionDataset) -> dict[str, float]:
    """Each part's learning rate in the first step."""
    model = tiny()
    choose_trained(model, config)
    optimizer, _ = run(model, dataset, config, 1)
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        ".".join(names[id(p)].split(".")[: 1 + (names[id(p)][0] == "h")]): group["lr"]
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.long
def test_parts_have_rates_of_their_own(dataset: InstructionDataset) -> None:
    plain = {"epochs": 1, "batch_size": 21, "lr": 1e-2, "schedule": "constant", "warmup": 0.0}
    assert rates(TrainConfig(**plain), dataset) == dict.fromkeys(("wte", "wpe", "h.0", "h.1", "ln_f"), 1e-2)
    falling = rates(TrainConfig(**plain, lr_layer_decay=0.5), dataset)
    assert falling == pytest.approx({"wte": 2.5e-3, "wpe": 2.5e-3, "h.0": 5e-3, "h.1": 1e-2, "ln_f": 1e-2})
    own = rates(TrainConfig(**plain, lr_layer_decay=0.5, lr_embeddings=1e-4), dataset)
    assert own == pytest.approx(falling | {"wte": 1e-4, "wpe": 1e-4})
    warming = rates(TrainConfig(**plain | {"warmup": 0.99, "epochs": 50}, lr_embeddings=1e-3), dataset)
    assert warming["wte"] == pytest.approx(warming["h.0"] / 10)  # the schedule is one for all
    assert warming["h.0"] < 1e-3


def test_groups_of_several_rates_still_decay_matrices_only() -> None:
    model = tiny()
    groups = make_optimizer(model, TrainConfig(lr_layer_decay=0.5, weight_decay=0.1)).param_groups
    assert len(groups) == 5  # three rates, matrices and vectors; the embeddings have no vectors
    assert all({p.dim() for p in group["params"]} == {2 if group["weight_decay"] else 1} for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.long
def test_an_optimizer_saved_before_rates_could_differ_goes_on_bit_for_bit(dataset: InstructionDataset) -> None:
    config = TrainConfig(epochs=2, batch_size=21, lr=1e-2)
    straight, first, second = tiny(), tiny(), tiny()
    run(straight, dataset, config, 4)
    saved = run(first, dataset, config, 2)[0].state_dict()
    for group in saved["param_groups"]:
        del group["lr_factor"]
    second.load_state_dict(first.state_dict())
    optimizer = make_optimizer(second, config)
    optimizer.load_state_dict(saved)
    run(second, dataset, config, 4, optimizer, first=2)
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))


@pytest.mark.long
def test_with_lora_the_adapters_learn_and_the_base_stays_to_the_bit(dataset: InstructionDataset) -> None:
    model = tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(epochs=6, batch_size=8, lr=3e-2, dropout=0.0, lora_rank=4, lora_targets="c_attn,c_fc")
    choose_trained(model, config)
    assert set(lora_layers(model)) == {f"h.{i}.{name}" for i in (0, 1) for name in ("attn.c_attn", "mlp.c_fc")}
    optimizer, reports = run(model, dataset, config, 10**6)
    assert reports[-1].val["response"] < reports[0].val["response"] - 0.3
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 8


@pytest.mark.parametrize("other", [{"freeze": "embeddings"}, {"lr_embeddings": 1e-4}])
def test_what_means_nothing_beside_lora_is_refused(other: dict) -> None:
    with pytest.raises(ValueError, match="LoRA freezes the whole model: leave out freeze and lr_embeddings"):
        TrainConfig(lora_rank=4, **other)


def test_a_clip_of_zero_leaves_gradients_as_they_are(dataset: InstructionDataset) -> None:
    def gradient(clip: float) -> torch.Tensor:
        model, seen = tiny(dropout=0.0), []

        class Look(torch.optim.SGD):
            def step(self) -> None:
                seen.append(model.wte.weight.grad.clone())

        config, scaler = TrainConfig(clip=clip), make_scaler(model.device, "float32")
        train_step(model, Look(model.parameters(), lr=0.0), dataset, [0, 4, 5], config, 0, scaler)
        return seen[0]

    assert torch.equal(gradient(0.0), gradient(1e9))
    assert gradient(0.0).norm() > 1.0 > gradient(0.5).norm()


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = TrainConfig(lr=1.0, warmup=0.1)
    rates = [lr_at(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == rates[10] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert rates[54] == pytest.approx(1 - 0.9 * (1 - math.cos(math.pi * 44 / 89)) / 2)
    linear = TrainConfig(lr=1.0, warmup=0.0, schedule="linear")
    assert [lr_at(s, 11, linear) for s in (0, 2, 5, 10)] == pytest.approx([1.0, 0.82, 0.55, 0.1])
    for schedule in ("cosine", "linear"):
        shortest = [[lr_at(s, n, TrainConfig(lr=1.0, warmup=0.0, schedule=schedule)) for s in range(n)] for n in (1, 2)]
        assert shortest == [[1.0], pytest.approx([1.0, 0.1])]
    assert {lr_at(s, 11, TrainConfig(lr=2.0, warmup=0.0, schedule="constant")) for s in range(11)} == {2.0}


def test_every_epoch_sees_every_entry_once_in_another_order(dataset: InstructionDataset) -> None:
    config = TrainConfig(batch_size=8)
    epochs = [epoch_batches(dataset, config, epoch) for epoch in range(2)]
    for batches in epochs:
        assert sorted(i for batch in batches for i in batch) == list(range(len(dataset)))
    assert epochs[0] != epochs[1]
    assert epochs[0] == epoch_batches(dataset, config, 0)


def test_training_learns_and_reports(dataset: InstructionDataset) -> None:
    config = TrainConfig(epochs=6, batch_size=8, lr=1e-2, dropout=0.0)
    _, reports = run(tiny(0.0), dataset, config, 10**6)
    assert reports[0].step == 0
    assert reports[0].loss is None
    assert (reports[0].epoch, reports[0].lr, reports[0].n_tokens) == (0.0, 0.0, 0)
    assert set(reports[0].val) == {"all", "header", "response"}
    assert reports[-1].step == reports[-1].n_steps == 36
    assert [r.epoch for r in reports[::6]] == [0, 1, 2, 3, 4, 5, 6]
    assert reports[-1].val["response"] < reports[0].val["response"] - 3
    assert sum(r.n_tokens for r in reports) == 6 * sum(len(e.ids) for e in dataset.examples)
    assert [r.step for r in reports if r.val] == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36]


@pytest.mark.long
def test_the_loss_and_gradient_of_a_step_over_all_entries_are_those_of_the_mean_over_all_tokens(
    dataset: InstructionDataset,
) -> None:
    config = TrainConfig(epochs=2, batch_size=len(dataset), micro_batch=8, dropout=0.0)
    _, reports = run(tiny(0.0), dataset, config, 2)
    for before, after in zip(reports, reports[1:], strict=False):
        assert after.loss == pytest.approx(before.val["response"], rel=1e-5)
    assert [report.epoch for report in reports] == [0.0, 1.0, 2.0]
    model, rows = tiny(0.0), [0, 4, 5, 8]
    inputs, targets = collate([dataset[i] for i in rows])
    loss_sum, n = supervised_loss(model.hidden(inputs), targets, model.output_weight)
    (loss_sum / n).backward()
    plain = model.wte.weight.grad.clone()
    assert torch.allclose(gradients(tiny(0.0), dataset, rows, 2)["wte.weight"], plain, atol=1e-6)


# ---- numbers that are not finite ----


@pytest.mark.long
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(dataset: InstructionDataset) -> None:
    model, config = tiny(), TrainConfig(batch_size=8, lr=1e-2)
    optimizer, _ = run(model, dataset, config, 3)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.ln_f.bias[0] = torch.inf
    before["ln_f.bias"][0] = torch.inf
    with pytest.raises(TrainingError, match=r"loss of step 4 is (nan|inf), in the batch of entries '"):
        run(model, dataset, config, 10, optimizer, first=3)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_touched(dataset: InstructionDataset) -> None:
    """The loss is finite, so a check of the loss alone would let it through."""
    model, config = tiny(), TrainConfig(batch_size=8, lr=1e-2)
    before = copy.deepcopy(model.state_dict())
    model.h[1].mlp.c_fc.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=r"gradient norm of step 1 is (nan|inf), in the batch of entries '"):
        run(model, dataset, config, 10)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_clipping_alone_would_turn_such_a_gradient_into_weights_of_nan(dataset: InstructionDataset) -> None:
    model = tiny()
    optimizer = make_optimizer(model, TrainConfig())
    inputs, targets = collate([dataset[0]])
    supervised_loss(model.hidden(inputs), targets, model.output_weight)[0].backward()
    model.h[1].mlp.c_fc.weight.grad[0, 0] = torch.inf
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    assert model.h[1].mlp.c_fc.weight.isnan().any()


def test_a_validation_loss_that_is_not_finite_is_an_error_and_not_a_best_model(
    dataset: InstructionDataset, tokenizer: Tokenizer
) -> None:
    model = tiny()
    with torch.no_grad():
        model.wpe.weight[40:] = torch.nan  # positions that only the longest rows reach
    short = InstructionDataset(dataset.entries[:3], tokenizer, "short", 64)
    with pytest.raises(TrainingError, match="validation losses after step 0 are"):
        next(train(model, make_optimizer(model, TrainConfig()), short, dataset, TrainConfig()))


# ---- fp16 ----


@pytest.fixture
def fp16_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU can compute in fp16 and scale losses too, if slowly: enough to see the steps."""
    monkeypatch.setattr(module, "make_scaler", lambda device, precision: torch.amp.GradScaler("cpu"))


def test_fp16_is_refused_without_cuda(dataset: InstructionDataset) -> None:
    config = TrainConfig(precision="fp16")
    with pytest.raises(ValueError, match="precision fp16 is for CUDA, this is cpu: use float32"):
        run(tiny(), dataset, config, 1)
    for precision in ("float32", "bf16"):
        assert not make_scaler(torch.device("cpu"), precision).is_enabled()


@pytest.mark.slow
@pytest.mark.usefixtures("fp16_on_cpu")
def test_fp16_stays_near_float32(dataset: InstructionDataset) -> None:
    config = TrainConfig(epochs=2, batch_size=8, lr=1e-2, dropout=0.0, precision="fp16")
    _, reports = run(tiny(0.0), dataset, config, 10**6)
    plain = TrainConfig(**{**vars(config), "precision": "float32"})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    expected = run(tiny(0.0), dataset, plain, 10**6, scaler=scaler)[1][-1].val["response"]
    assert reports[-1].val["response"] == pytest.approx(expected, rel=0.02)
    assert reports[-1].val["response"] != expected


@pytest.mark.gpu
def test_fp16_on_cuda_stays_near_float32(dataset: InstructionDataset) -> None:
    losses = {}
    for precision in ("float32", "fp16"):
        config = TrainConfig(epochs=2, batch_size=8, lr=1e-2, dropout=0.0, precision=precision)
        losses[precision] = run(tiny(0.0).cuda(), dataset, config, 10**6)[1][-1].val["response"]
    assert losses["fp16"] == pytest.approx(losses["float32"], rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bf16", 0.02)])
def test_losses_on_cuda_are_the_cpus(dataset: InstructionDataset, precision: str, tolerance: float) -> None:
    losses = {}
    for device, products in (("cpu", "float32"), ("cuda", precision)):
        config = TrainConfig(epochs=2, batch_size=8, lr=1e-3, dropout=0.0, precision=products)
        reports = run(tiny(0.0).to(device), dataset, config, 10**6)[1]
        losses[device] = [report.loss for report in reports if report.loss is not None]
    assert len(losses["cpu"]) > 8
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=tolerance)


@pytest.mark.long
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(dataset: InstructionDataset) -> None:
    model, config = tiny(0.0), TrainConfig(epochs=5, batch_size=8, lr=1e-2, dropout=0.0, precision="fp16")
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**21), make_optimizer(model, config)
    before, seen = copy.deepcopy(model.state_dict()), []
    for report in train(model, optimizer, dataset, dataset, config, scaler=scaler):
        if report.step == 0:
            continue
        seen.append(report.skipped)
        unchanged = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
        assert unchanged == report.skipped
        assert math.isfinite(report.loss)
        if not report.skipped:
            break
    *skipped, last = seen
    assert all(skipped)
    assert not last
    assert len(skipped) >= 3
    assert scaler.get_scale() == 2.0 ** (21 - len(skipped))


@pytest.mark.long
def test_gradients_that_overflow_at_every_scale_are_an_error(dataset: InstructionDataset) -> None:
    model = tiny()
    model.h[1].mlp.c_fc.weight.register_hook(lambda gradient: gradient * torch.inf)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # 4, 2, 1, then below 1
    with pytest.raises(TrainingError, match=r"gradient norm of step 4 is"):
        run(model, dataset, TrainConfig(batch_size=8, precision="fp16"), 10**6, scaler=scaler)


@pytest.mark.long
def test_bf16_stays_near_float32(dataset: InstructionDataset) -> None:
    losses = {}
    for precision in ("float32", "bf16"):
        config = TrainConfig(epochs=2, batch_size=8, lr=1e-2, dropout=0.0, precision=precision)
        losses[precision] = run(tiny(0.0), dataset, config, 10**6)[1][-1].val["response"]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bf16"] != losses["float32"]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"max_length": 0}, {"micro_batch": 0}, {"seed": -1}, {"seed": 2**32}, {"weight_decay": -0.1}),
        *({"epochs": 0}, {"lr": -1.0}, {"dropout": 1.0}, {"schedule": "cosin"}, {"loss_on": "x"}, {"precision": "fp8"}),
        *({"lora_rank": -1}, {"lora_alpha": 0.0}, {"lora_dropout": 1.0}, {"lr_embeddings": -1}, {"lr_layer_decay": 0}),
        *({"freeze": "head"}, {"freeze": "first:"}, {"freeze": "all-but:-1"}, {"freeze": "embeddings,"}),
        *({"clip": -1.0}, {"patience": -1}, {"eval_every": -1}, {"batch_size": 0}, {"warmup": 1.0}),
        *({name: math.nan} for name in ("clip", "weight_decay", "lr_embeddings", "lr", "warmup", "dropout")),
        *({name: math.inf} for name in ("lr", "lora_alpha", "lr_layer_decay", "weight_decay", "lr_embeddings")),
    ],
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_settings_are_those_of_gpt2_and_stay_as_they_are_written_down() -> None:
    assert TrainConfig().max_length == GPTConfig().context_length
    assert [TrainConfig(seed=seed).seed for seed in (0, 2**32 - 1)] == [0, 2**32 - 1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0
