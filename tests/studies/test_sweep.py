"""A sweep of learning rates, as a user starts it."""

import json
from pathlib import Path

import pytest

from gpt.studies.sweep import finding, lowest, sweep_table
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import load_entries, split_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import TrainConfig, make_optimizer, train
from gpt.weights.checkpoint import load_model
from scripts import sweep
from scripts.new_run import ENTRIES

FLAGS = ["--model", "gpt2-tiny", "--template", "short", "--epochs", "1", "--eval-every", "2", "--device", "cpu"]


def points(**losses: float | None) -> list[dict]:
    """`a=3.0` is a run at rate 1, `b` at 2, and so on; None broke off."""
    return [
        {"lr": float(i), "epochs": [0.0, 1.0], "losses": [9.0, loss], "failed": "" if loss else "the loss is nan"}
        for i, loss in enumerate(losses.values(), start=1)
    ]


def test_a_rate_at_the_edge_is_no_answer() -> None:
    assert finding(points(a=3.0, b=2.0, c=2.5)) == "lowest at 2: 2.000 nats per token"
    assert "smallest tried: try smaller" in finding(points(a=1.0, b=2.0))
    assert "largest tried: try larger" in finding(points(a=3.0, b=2.0))
    assert "try" not in finding(points(a=3.0, b=2.0, c=None))  # larger ones break off
    assert finding(points(a=None)) == "every rate broke off: try smaller ones"
    assert "broke off" in sweep_table(points(a=3.0, b=None))


def test_what_was_before_training_is_no_result() -> None:
    point = {"lr": 1.0, "epochs": [0.0, 0.5, 1.0], "losses": [1.0, 3.0, 2.0], "failed": ""}
    assert lowest(point) == 2 > min(point["losses"])


@pytest.mark.long
def test_a_sweep_is_kept_rate_by_rate_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, out = tmp_path / "some.json", tmp_path / "out"
    entries = [entry for entry in load_entries(ENTRIES) if len(entry["instruction"] + entry["output"]) < 60][::60]
    data.write_text(json.dumps(entries), encoding="utf-8")
    command = ["--data", str(data), "--out", str(out), *FLAGS]
    assert sweep.main([*command, "--rates", "1e-4", "1e30"]) == 0
    shown = capsys.readouterr().out
    assert "broke off" in shown and "lowest at 0.0001" in shown
    first = json.loads((out / "sweep.json").read_text())["points"]
    assert [(point["lr"], bool(point["failed"])) for point in first] == [(1e-4, False), (1e30, True)]

    config = TrainConfig(epochs=1, eval_every=2, lr=1e-4, dropout=0.0)
    sides = [InstructionDataset(part, load_tokenizer(), "short") for part in split_entries(entries)[:2]]
    model = load_model("gpt2-tiny")
    expected = [r.val["response"] for r in train(model, make_optimizer(model, config), *sides, config) if r.val]
    assert first[0]["losses"] == pytest.approx(expected)  # a sweep's run is a run

    assert sweep.main([*command, "--rates", "1e-4", "3e-4"]) == 0
    again = json.loads((out / "sweep.json").read_text())["points"]
    assert again[:2] == first and again[2]["lr"] == 3e-4
    assert (out / "sweep.png").stat().st_size > 10_000
    assert sweep.main([*command, "--loss-on", "all"]) == 2
    assert "holds runs with other settings (config)" in capsys.readouterr().err
