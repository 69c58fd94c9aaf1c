"""What a run will take, against the run itself."""

import json
from pathlib import Path

import numpy as np
import pytest

from gpt.model.gpt2 import GPT
from gpt.studies.dry_run import N_STEPS, forecast, line_through
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import load_entries
from gpt.text.tokenizer import Tokenizer
from gpt.training.train import TrainConfig, choose_trained, make_optimizer, train
from scripts import finetune
from scripts.new_run import ENTRIES

WAYS = [{}, {"eval_every": 4}, {"drop_last": True}, {"lora_rank": 2}, {"freeze": "all-but:1"}]


@pytest.fixture
def sides(tokenizer: Tokenizer) -> dict[str, InstructionDataset]:
    entries = [
        {"instruction": f"Say word {i}.", "input": "", "output": " ".join(["word"] * (1 + i % 7))} for i in range(34)
    ]
    return {"train": InstructionDataset(entries, tokenizer, "short", 64),
            "val": InstructionDataset(entries[:5], tokenizer, "short", 64)}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("changes", WAYS)
def test_steps_validations_and_trained_weights_are_those_of_the_run(
    model: GPT, sides: dict[str, InstructionDataset], changes: dict
) -> None:
    config = TrainConfig(epochs=2, batch_size=8, **changes)
    choose_trained(model, config)
    measured = []
    found = forecast(model, sides, config, lambda: measured.append(1))
    assert len(measured) == 1 + min(N_STEPS, found.n_steps // config.epochs)  # the largest once more
    optimizer = make_optimizer(model, config)
    reports = list(train(model, optimizer, sides["train"], sides["val"], config))
    assert found.n_steps == reports[-1].n_steps
    assert found.n_validations == sum(report.val is not None for report in reports)
    assert found.n_trained == sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    states = [x for state in optimizer.state.values() for x in state.values() if x.dim()]
    assert found.parts()["AdamW"] == sum(x.numel() * x.element_size() for x in states)
    assert sum(found.parts().values()) == found.peak_bytes > 4 * found.n_parameters


def test_the_time_is_added_up_over_short_and_long_batches_alike() -> None:
    line = line_through([100, 200, 400], [1.1, 1.2, 1.4])  # 1 second a step, 1 a thousand tokens
    tokens = np.array([100, 1000])
    assert line(tokens).mean() == pytest.approx(1.55)
    assert (np.mean([1.1, 1.2, 1.4]) / np.mean([100, 200, 400]) * tokens).mean() > 2.5  # by tokens alone
    assert line_through([5, 5, 5], [1.0, 2.0, 3.0])(np.array([50])) == pytest.approx(2)
    assert line_through([1, 2, 3], [3.0, 2.0, 1.0])(np.array([50])) == pytest.approx(2)  # not below nothing


@pytest.mark.long
def test_a_dry_run_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "few.json").write_text(json.dumps(load_entries(ENTRIES)[:60]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    flags = ["--model", "gpt2-tiny", "--data", "few.json", "--epochs", "1", "--device", "cpu"]
    assert finetune.main([*flags, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for beginning in ("trained    8,084,864 of 8,084,864", "memory     ", "time       about 0:", "nothing was written"):
        assert f"\n{beginning}" in shown
    assert not list((tmp_path / "runs").iterdir())
