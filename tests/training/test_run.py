import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.dataset import InstructionDataset
from gpt.text.tokenizer import Tokenizer
from gpt.training import run as module
from gpt.training.run import RunSettings, best_step, load_settings, save_settings, train_run, why_ended
from gpt.training.train import TrainConfig, choose_trained
from gpt.tuning.adapter import load_adapter
from gpt.tuning.lora import base_state, lora_layers, merge_lora, merged_copy, unmerge_lora
from gpt.weights.checkpoint import load_model, save_model, untie
from scripts.recipe import recipe_ways
from tests.reference import random_model

TINY = GPTConfig(context_length=64, n_embd=16, n_layer=2, n_head=2, dropout=0.2)
WORDS = "river teacher garden window market doctor bridge candle forest kitchen".split()
CONFIG = TrainConfig(epochs=3, batch_size=8, lr=1e-2, eval_every=3, dropout=0.2)


@pytest.fixture
def sides(tokenizer: Tokenizer) -> dict[str, InstructionDataset]:
    rng = random.Random(0)
    entries = [
        {"instruction": " ".join(rng.choices(WORDS, k=3)), "input": "", "output": " ".join(rng.choices(WORDS, k=k))}
        for k in [1, 2, 8] * 17
    ]
    return {
        "train": InstructionDataset(entries[:48], tokenizer, "short", 64),
        "val": InstructionDataset(entries[48:], tokenizer, "short", 64),
    }


def settings(config: TrainConfig = CONFIG, **others: object) -> RunSettings:
    return RunSettings("gpt2-tiny", "data.json", "sha", "short", "ordered", config, **others)


def fresh() -> GPT:
    return random_model(TINY, scale=1.0)


def go(folder: Path, sides: dict, run_settings: RunSettings | None = None, stop_at: int | None = None) -> list[dict]:
    """Start or go on, in a new process as it were; asked to stop, the run ends after that step."""
    steps: list[int] = []
    reports = []
    for report in train_run(
        folder, run_settings or settings(), fresh(), sides, lambda: stop_at is not None and len(steps) + 1 > stop_at,
        **recipe_ways(run_settings or settings(), sides),
    ):  # fmt: skip
        steps.append(report["step"])
        reports.append(report)
    return reports


def history_of(folder: Path) -> list[dict]:
    return json.loads((folder / "history.json").read_text())


def scripted_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let validation give these, one after the other; the first is that before training."""
    left = iter(losses)
    monkeypatch.setattr("gpt.training.train.evaluate_loss", lambda model, rows, **_: dict.fromkeys(LOSSES, next(left)))


LOSSES = ("all", "header", "response")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("transformer."): t for name, t in load_file(folder / "model.safetensors").items()}


def newest(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last" / "state.pt", weights_only=True)["model"]


def same_files(a: Path, b: Path) -> bool:
    return all(torch.equal(t, weights(b)[name]) for name, t in weights(a).items())


# ---- the best in the root, the newest in last/ ----


@pytest.mark.long
def test_the_best_lies_in_the_root_and_the_newest_in_last(
    sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9.0, 5.0, 4.0, 6.0, 7.0, 5.0, 8.0])
    saved: dict[int, torch.Tensor] = {}
    model = fresh()
    for report in train_run(tmp_path, settings(), model, sides):
        saved[report["step"]] = model.wte.weight.detach().clone()
    assert best_step(history_of(tmp_path), "response") == 6
    assert torch.equal(weights(tmp_path)["wte.weight"], saved[6])
    assert torch.equal(newest(tmp_path)["wte.weight"], saved[18])
    assert not torch.equal(saved[6], saved[18])


@pytest.mark.long
@pytest.mark.parametrize("stop_at", [2, 3, 4, 10])
def test_the_first_evaluation_stays_the_best_after_a_stop_and_a_resume(
    stop_at: int, sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever compared with the losses of this process only would call step 6 or 12 the best after the resume."""
    scripted_losses(monkeypatch, [9.0, 1.0, 4.0, 3.0, 2.0, 5.0, 8.0])
    go(tmp_path / "a", sides, stop_at=stop_at)
    go(tmp_path / "a", sides)
    scripted_losses(monkeypatch, [9.0, 1.0])
    go(tmp_path / "b", sides, stop_at=4)  # steps 0 to 3
    assert best_step(history_of(tmp_path / "a"), "response") == 3
    assert history_of(tmp_path / "a")[-1]["step"] == 18
    assert same_files(tmp_path / "a", tmp_path / "b")


def test_the_loss_before_training_is_no_candidate(sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_losses(monkeypatch, [0.1, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    go(tmp_path, sides)
    assert best_step(history_of(tmp_path), "response") == 3
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.long
def test_a_run_killed_between_the_best_and_the_newest_ends_like_one_that_was_not(sides: dict, tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    go(straight, sides)
    go(killed, sides, stop_at=9)  # steps 0 to 8
    save_model(random_model(TINY, seed=9), killed)  # the best of step 9, and then the power goes
    go(killed, sides)
    assert same_files(straight, killed)
    assert [r["loss"] for r in history_of(straight)] == [r["loss"] for r in history_of(killed)]
    assert all(torch.equal(t, newest(killed)[name]) for name, t in newest(straight).items())


# ---- going on ----


@pytest.mark.long
def test_a_resume_after_the_last_step_trains_nothing_and_mends_the_history(sides: dict, tmp_path: Path) -> None:
    go(tmp_path, sides)
    whole, model = history_of(tmp_path), weights(tmp_path)["wte.weight"]
    (tmp_path / "history.json").write_text(json.dumps(whole[:-1]))  # killed after state.pt, before history.json
    assert go(tmp_path, sides) == []
    assert history_of(tmp_path) == whole
    assert torch.equal(weights(tmp_path)["wte.weight"], model)


@pytest.mark.long
def test_a_run_stopped_before_its_first_step_has_that_report_once(sides: dict, tmp_path: Path) -> None:
    assert [r["step"] for r in go(tmp_path, sides, stop_at=0)] == [0]
    go(tmp_path, sides)
    assert [r["step"] for r in history_of(tmp_path)] == list(range(19))


@pytest.mark.parametrize("damage", ["cut off", "not torch's", "empty", "another model"])
def test_a_damaged_state_is_said_in_one_line(damage: str, sides: dict, tmp_path: Path) -> None:
    go(tmp_path, sides, stop_at=2)
    path = tmp_path / "last" / "state.pt"
    whole = path.read_bytes()
    path.write_bytes({"cut off": whole[: len(whole) // 2], "not torch's": b"hello", "empty": b""}.get(damage, whole))
    model = random_model(GPTConfig(context_length=64, n_embd=24, n_layer=2, n_head=2)) if "model" in damage else fresh()
    with pytest.raises(ValueError, match=r"state\.pt cannot be read: ") as error:
        next(train_run(tmp_path, settings(), model, sides))
    assert "\n" not in str(error.value)


def fp16_on_cpu(growth_interval: int) -> Callable[..., torch.amp.GradScaler]:
    return lambda *_: torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=growth_interval)


@pytest.mark.long
def test_the_scale_of_fp16_is_part_of_the_state(sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "make_scaler", fp16_on_cpu(growth_interval=3))
    fp16 = settings(TrainConfig(**{**vars(CONFIG), "precision": "fp16", "epochs": 2, "eval_every": 12}))
    straight, resumed, forgetful = (tmp_path / name for name in ("straight", "resumed", "forgetful"))
    go(straight, sides, fp16)
    for folder in (resumed, forgetful):
        go(folder, sides, fp16, stop_at=6)
    state = torch.load(forgetful / "last" / "state.pt", weights_only=True)
    torch.save(state | {"scaler": fp16_on_cpu(3)().state_dict()}, forgetful / "last" / "state.pt")
    for folder in (resumed, forgetful):
        go(folder, sides, fp16)
    assert any(r["skipped"] for r in history_of(straight))
    assert [r["skipped"] for r in history_of(straight)] == [r["skipped"] for r in history_of(resumed)]
    assert all(torch.equal(t, newest(resumed)[name]) for name, t in newest(straight).items())
    assert [r["skipped"] for r in history_of(straight)] != [r["skipped"] for r in history_of(forgetful)]


# ---- early stopping ----


def patient(n: int) -> RunSettings:
    return settings(TrainConfig(**{**vars(CONFIG), "patience": n}))


@pytest.mark.long
def test_patience_ends_a_run_that_no_longer_improves(
    sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9.0, 5.0, 4.0, 4.5, 4.1])
    go(tmp_path, sides, patient(2))
    history = history_of(tmp_path)
    assert history[-1]["step"] == 12
    said = why_ended(history, patient(2).config)
    assert said == "ended at step 12 of 18: 2 validations without a better loss than that of step 6"
    assert torch.load(tmp_path / "last" / "state.pt", weights_only=True)["history"] == history
    monkeypatch.undo()
    best = tmp_path / "best"
    scripted_losses(monkeypatch, [9.0, 5.0, 4.0])
    go(best, sides, stop_at=7)  # steps 0 to 6
    assert same_files(tmp_path, best)


def test_a_run_that_patience_has_ended_is_over_after_a_resume_too(
    sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, [9.0, 5.0, 4.0, 4.5, 4.1])
    go(tmp_path, sides, patient(2))
    before = history_of(tmp_path)
    assert go(tmp_path, sides, patient(2)) == []
    assert history_of(tmp_path) == before


def test_patience_counts_over_a_stop_and_a_resume(sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted_losses(monkeypatch, [9.0, 4.0, 5.0, 5.0, 5.0, 5.0])
    go(tmp_path, sides, patient(3), stop_at=8)  # one evaluation without a new best is behind it
    go(tmp_path, sides, patient(3))
    assert history_of(tmp_path)[-1]["step"] == 12


@pytest.mark.long
@pytest.mark.parametrize(
    ("losses", "patience", "last"),
    [
        ([9.0, 5.0, 6.0, 4.0, 5.0, 3.0, 4.0], 2, 18),  # a new best in between begins the count anew
        ([9.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0], 1, 18),  # as good as the best counts as a best
        ([9.0, 9.5, 9.9, 9.9, 1.0, 1.0, 1.0], 1, 6),  # better later, but nobody waited
        ([9.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.0], 0, 18),  # not asked for
        ([9.0, 5.0, 4.0, 3.0, 2.0, 1.0, 9.0], 1, 18),  # worse at the last step: that is no early end
    ],
)
def test_patience_waits_as_long_as_it_was_told(
    losses: list[float], patience: int, last: int, sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_losses(monkeypatch, losses)
    go(tmp_path, sides, patient(patience))
    history = history_of(tmp_path)
    assert history[-1]["step"] == last
    assert bool(why_ended(history, patient(patience).config)) == (last < 18)


# ---- settings ----


def test_settings_come_back_as_they_were_saved(tmp_path: Path) -> None:
    config = TrainConfig(precision="bf16", patience=3, decay_all=True, clip=0.0)
    saved = settings(config, untie=True, recipe="book")
    save_settings(tmp_path, saved, {"seconds": 1.5})
    assert load_settings(tmp_path) == (saved, {"seconds": 1.5})


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="recipe 'cook' is not known: use book"):
        recipe_ways(settings(recipe="cook"), {})


# ---- an output layer of its own ----


def test_an_untied_model_computes_the_same_until_it_is_trained_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    tied = fresh()
    untied = untie(tied)
    ids = torch.randint(0, 50257, (2, 9))
    assert torch.equal(tied(ids), untied(ids))
    assert untied.n_parameters() == tied.n_parameters() + 50257 * 16
    before = untied.wte.weight.detach().clone()
    with torch.no_grad():
        untied.lm_head.weight += 1
    assert torch.equal(untied.wte.weight, before)
    save_model(untied, tmp_path)
    loaded = load_model(tmp_path)
    assert not loaded.config.tied
    assert torch.equal(loaded(ids), untied(ids))


@pytest.mark.slow
def test_an_untied_run_goes_on_bit_for_bit(sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "fresh", lambda: untie(random_model(TINY, scale=1.0)))
    go(tmp_path / "straight", sides)
    go(tmp_path / "resumed", sides, stop_at=8)
    shutil.copytree(tmp_path / "resumed", tmp_path / "moved")
    go(tmp_path / "moved", sides)
    assert same_files(tmp_path / "straight", tmp_path / "moved")
    assert not torch.equal(newest(tmp_path / "moved")["lm_head.weight"], newest(tmp_path / "moved")["wte.weight"])


# ---- LoRA and freezing ----


def tuned(monkeypatch: pytest.MonkeyPatch, **ways: object) -> RunSettings:
    """Settings with these ways of fine-tuning; from here on `fresh` gives a model that is set up for them."""
    way = settings(TrainConfig(**{**vars(CONFIG), "epochs": 2, **ways}))

    def fresh() -> GPT:
        model = random_model(TINY, scale=1.0)
        choose_trained(model, way.config)
        return model

    monkeypatch.setitem(globals(), "fresh", fresh)
    return way


WAYS = {
    "lora": {"lora_rank": 4, "lora_dropout": 0.2},
    "freeze": {"freeze": "embeddings,first:1", "lr_layer_decay": 0.5},
}


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_fine_tuning_goes_on_bit_for_bit(
    way: str, sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_settings = tuned(monkeypatch, **WAYS[way])
    go(tmp_path / "straight", sides, run_settings)
    go(tmp_path / "resumed", sides, run_settings, stop_at=7)  # past two saves of the best
    go(tmp_path / "resumed", sides, run_settings)
    assert [r["loss"] for r in history_of(tmp_path / "straight")] == [
        r["loss"] for r in history_of(tmp_path / "resumed")
    ]
    assert same_files(tmp_path / "straight", tmp_path / "resumed")
    straight, resumed = newest(tmp_path / "straight"), newest(tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(t, resumed[name]) for name, t in straight.items())


def test_training_on_merged_and_unmerged_weights_would_not_go_on_bit_for_bit(sides: dict) -> None:
    """Why the best model is merged in a copy: a weight does not come back to the bit."""
    model = random_model(TINY, scale=1.0)
    choose_trained(model, TrainConfig(lora_rank=4))
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.adapters["default"].lora_B)
    before = model.h[0].mlp.c_fc.weight.clone()
    merge_lora(model)
    unmerge_lora(model)
    assert not torch.equal(model.h[0].mlp.c_fc.weight, before)


@pytest.mark.long
def test_the_folder_of_a_lora_run_is_a_plain_model_and_beside_it_the_adapter_alone(
    sides: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_settings = tuned(monkeypatch, **WAYS["lora"])
    history = go(tmp_path, sides, run_settings)
    best, base = load_model(tmp_path), random_model(TINY, scale=1.0)
    assert not lora_layers(best)
    assert history[-1]["val"]["response"] < history[0]["val"]["response"]
    load_adapter(base, tmp_path / "adapter")
    ids = torch.randint(0, 50257, (2, 9))
    assert torch.equal(merged_copy(base)(ids), best(ids))
    base.eval()
    assert torch.allclose(base(ids), best(ids), atol=1e-4)
    assert torch.equal(base_state(base)["wte.weight"], best.wte.weight)
    theirs = PeftModel.from_pretrained(plain_transformers(tmp_path / "base"), tmp_path / "adapter").eval()
    with torch.no_grad():
        assert (theirs(ids).logits - best(ids)).abs().max() < 1e-4


def plain_transformers(folder: Path) -> GPT2LMHeadModel:
    save_model(random_model(TINY, scale=1.0), folder)
    return GPT2LMHeadModel.from_pretrained(folder)


def test_a_run_without_adapters_has_no_folder_for_them(sides: dict, tmp_path: Path) -> None:
    go(tmp_path, sides, stop_at=4)
    assert (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "adapter").exists()


def test_settings_of_an_older_version_are_those_of_a_run_that_trains_everything(tmp_path: Path) -> None:
    save_settings(tmp_path, settings(), {})
    found = json.loads((tmp_path / "training.json").read_text())
    for name in (
        "freeze",
        "lr_embeddings",
        "lr_layer_decay",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_targets",
    ):
        del found["config"][name]
    (tmp_path / "training.json").write_text(json.dumps(found))
    assert load_settings(tmp_path)[0] == settings()


@pytest.mark.slow
def test_a_recipe_goes_on_with_the_published_order_and_its_measurements(sides: dict, tmp_path: Path) -> None:
    config = TrainConfig(**{**vars(CONFIG), "drop_last": True, "loss_on": "all"})
    for name, recipe, stops in (("straight", "book", []), ("resumed", "book", [0, 8]), ("ours", "", [])):
        for stop_at in [*stops, None]:
            go(tmp_path / name, sides, settings(config, recipe=recipe), stop_at=stop_at)
    straight, resumed, ours = (history_of(tmp_path / name) for name in ("straight", "resumed", "ours"))
    assert [r["loss"] for r in straight] == [r["loss"] for r in resumed]
    assert [r.get("published_way") for r in straight] == [r.get("published_way") for r in resumed]
    assert [r["step"] for r in straight if "published_way" in r] == [0, 1, 11]
    assert [r["loss"] for r in straight] != [r["loss"] for r in ours]  # other batches
    assert not any("published_way" in r for r in ours)


def test_histories_are_judged_without_being_changed() -> None:
    history = [{"step": s, "n_steps": 9, "val": {"response": v}} for s, v in ((0, 1.0), (3, 5.0), (6, 7.0))]
    before = copy.deepcopy(history)
    assert best_step(history, "response") == 3
    assert best_step(history[:1], "response") == 0
    assert best_step([], "response") == 0
    assert why_ended(history, TrainConfig(patience=1)).startswith("ended at step 6 of 9: 1 validation without")
    assert why_ended(history, TrainConfig(patience=2)) == ""
    assert why_ended([], TrainConfig(patience=2)) == ""
    assert history == before
