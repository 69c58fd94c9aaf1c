"""LoRA and freezing as a user starts them, and the table that compares the ways of fine-tuning."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gpt.text.entries import load_entries
from gpt.tuning.adapter import load_adapter
from gpt.tuning.lora import lora_layers
from gpt.weights.checkpoint import load_model, write_json
from scripts import finetune, new_run, variants
from scripts.new_run import ENTRIES, LORA_LR, TINY_SETTINGS

FAST = ["--epochs", "1", "--batch-size", "32", "--device", "cpu", "--no-self-check"]


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every 60th of the bundled entries: about forty."""
    path = tmp_path_factory.mktemp("data") / "some.json"
    path.write_text(json.dumps(load_entries(ENTRIES)[::60]), encoding="utf-8")
    return path


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def without_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longest: the responses and their scores."""
    monkeypatch.setattr(finetune, "evaluate_run", lambda folder, device: None)


@pytest.mark.long
@pytest.mark.usefixtures("without_answers")
def test_lora_is_said_counted_and_saved(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    flags = ["--lora-rank", "4", "--lora-alpha", "8", "--lora-dropout", "0.1", "--lora-targets", "c_attn"]
    assert finetune.main(["--data", str(data), "--out", str(folder), *FAST, *flags]) == 0
    said, facts = capsys.readouterr().out, read(folder / "training.json")["facts"]
    base = load_model("gpt2-tiny")
    n = base.config.n_layer * 4 * (base.config.n_embd + 3 * base.config.n_embd)
    assert facts["trained"] == n
    assert facts["parameters"] == base.n_parameters()
    assert f"trained    {n:,} parameters, {n / base.n_parameters():.2%} of the model's: LoRA on c_attn, rank 4" in said
    assert "alpha 8, scale 2" in said
    assert 50e6 < facts["peak_bytes"] < 64e9
    load_adapter(base, folder / "adapter")
    run, ids = load_model(folder), torch.randint(0, 50257, (2, 9))
    assert not lora_layers(run)
    with torch.no_grad():
        assert torch.allclose(run(ids), base.eval()(ids), atol=1e-3)
        assert not torch.allclose(run(ids), load_model("gpt2-tiny")(ids), atol=1e-3)


@pytest.mark.long
@pytest.mark.usefixtures("without_answers")
def test_freezing_is_said_and_counted_and_a_plain_run_says_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, flags in {"plain": [], "last": ["--freeze", "all-but:1"]}.items():
        assert finetune.main(["--data", str(data), "--out", str(tmp_path / name), *FAST, *flags]) == 0
        assert ("all-but:1 frozen" in (said := capsys.readouterr().out)) == (name == "last")
        assert ("trained  " in said) == (name == "last")
        assert not (tmp_path / name / "adapter").exists()
    base, run = load_model("gpt2-tiny"), load_model(tmp_path / "last")
    assert torch.equal(run.wte.weight, base.wte.weight)
    assert torch.equal(run.h[-2].mlp.c_fc.weight, base.h[-2].mlp.c_fc.weight)
    assert not torch.equal(run.h[-1].mlp.c_fc.weight, base.h[-1].mlp.c_fc.weight)


def test_lora_learns_at_ten_times_the_rate_unless_one_is_given(data: Path) -> None:
    def rate(*flags: str) -> float:
        args = finetune.parse(["--data", str(data), "--model", "gpt2-tiny", *flags])
        return new_run.new_run(args, torch.device("cpu"))[1].config.lr

    assert rate() == TINY_SETTINGS["lr"]
    assert rate("--lora-rank", "8") == pytest.approx(LORA_LR * TINY_SETTINGS["lr"])
    assert rate("--lora-rank", "8", "--lr", "1e-4") == 1e-4


def test_a_folder_of_the_tiny_models_shape_learns_at_its_rate_and_another_at_the_usual(tmp_path: Path) -> None:
    for name, n_layer in (("copy", 8), ("other", 6)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", {"n_layer": n_layer, "n_embd": 128})
    assert new_run.settings_of(str(tmp_path / "copy")) == new_run.settings_of("gpt2-tiny") == TINY_SETTINGS
    assert new_run.settings_of(str(tmp_path / "other")) == new_run.settings_of("gpt2") == {}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora-alpha", "8"], "lora_alpha without LoRA: say --lora-rank 8"),
        (["--lora-rank", "8", "--freeze", "embeddings"], "LoRA freezes the whole model"),
        (["--lora-rank", "8", "--lora-targets", "lm_head"], "LoRA target 'lm_head' is no layer of the blocks"),
        (["--freeze", "first:99"], "freeze is 'first:99', and the model has"),
        (["--freeze", "all"], "freeze is 'all': use embeddings, first:N, all-but:N"),
        (["--recipe", "book", "--lora-rank", "8"], "a recipe trains the whole model at one rate"),
    ],
)
def test_flags_that_mean_nothing_are_one_line_and_begin_nothing(
    flags: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert finetune.main(["--data", str(data), "--out", str(tmp_path / "run"), *FAST, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


# ---- the table ----


@pytest.mark.slow
def test_three_ways_are_run_compared_and_not_run_again(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--out", str(tmp_path), "--rank", "4", "--blocks", "1", "--data", str(data), *FAST]
    assert variants.main(flags) == 0
    found = read(tmp_path / "variants.json")
    assert [row["way"] for row in found] == ["full", "lora", "last-blocks"]
    assert found[0]["trained"] > found[2]["trained"] > found[1]["trained"] > 0
    assert [found[0]["difference"][bound] for bound in ("low", "value", "high")] == [0.0, 0.0, 0.0]
    assert found[1]["lr"] == pytest.approx(10 * found[0]["lr"])
    for row in found:
        assert row["scores"]["rouge_l"]["low"] <= row["scores"]["rouge_l"]["value"] <= row["scores"]["rouge_l"]["high"]
        assert row["seconds"] > 0
        assert row["peak_bytes"] > 50e6
    assert (tmp_path / "variants.md").read_text(encoding="utf-8") in capfd.readouterr().out
    monkeypatch.setattr(variants.subprocess, "run", None)  # a second start has nothing to run
    assert variants.main(flags) == 0
    shutil.rmtree(tmp_path / "lora")
    shutil.copytree(tmp_path / "full", tmp_path / "lora")
    training = read(tmp_path / "lora" / "training.json")
    (tmp_path / "lora" / "training.json").write_text(json.dumps(training | {"model": "gpt2"}))
    assert variants.main(flags) == 2
    assert "these runs differ in model" in capfd.readouterr().err


@pytest.mark.long
def test_a_way_that_fails_ends_the_comparison_with_one_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    assert variants.main(["--out", str(tmp_path), "--data", "nowhere.json"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert "nowhere.json" in said[-2]  # the run's own
    assert said[-1] == f"error: the run {tmp_path / 'full'} ended with exit code 2: see above"


def test_the_page_has_a_row_for_each_way_and_sets_the_others_against_the_first() -> None:
    score = {"value": 0.5, "low": 0.4, "high": 0.6}
    same = {"trained": 1000, "lr": 1e-4, "seconds": 61.4, "peak_bytes": 2_500_000_000, "model": "gpt2", "n": 7}
    same["scores"] = dict.fromkeys(variants.METRIC_NAMES, score)
    found = [
        same | {"way": way, "difference": {"value": v, "low": v - 0.1, "high": v + 0.1}}
        for way, v in (("full", 0.0), ("lora", -0.02))
    ]
    lines = variants.page(found).splitlines()
    assert lines[2].split("|")[1:3] == [" full ", "              1,000 "]
    assert "-0.020 [-0.120, 0.080]" in lines[3]
    assert "0.000 [-0.1" not in lines[2]
    assert lines[3].endswith("|      61 | 2.50 GB |")
    assert "gpt2, 7 test entries" in lines[5]
