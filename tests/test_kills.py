"""Training by real processes that are killed at random moments, and go on: nothing is lost, nothing half is taken for
whole, and the end is the same to the bit."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.entries import load_entries
from gpt.training.run import load_settings, load_state
from gpt.training.train import make_optimizer, make_scaler
from gpt.weights.checkpoint import load_model, save_model
from scripts.new_run import ENTRIES
from tests.reference import random_model

N_KILLS = 50
ROOT = Path(__file__).parents[1]
FLAGS = ["--epochs", "3", "--eval-every", "2", "--batch-size", "4", "--device", "cpu", "--no-self-check"]


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.finetune", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def goes_on(run: Path, new: list[str]) -> subprocess.Popen:
    """The command that a user would give after a kill."""
    return start("--resume", str(run), "--no-self-check") if (run / "training.json").exists() else start(*new)


def check_what_lies_there(run: Path, base: Path) -> int:
    """All that has its final name is whole. Returns the step of the newest state."""
    for path in run.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    if (run / "model.safetensors").exists():
        load_model(run)
    if not (run / "last" / "state.pt").exists():
        return 0
    config = load_settings(run)[0].config
    model = load_model(base)
    history = load_state(run, model, make_optimizer(model, config), make_scaler(model.device, config.precision))
    assert [report["step"] for report in history] == list(range(len(history)))
    return history[-1]["step"]


@pytest.mark.slow
def test_killed_fifty_times_a_run_ends_at_the_same_bits(tmp_path: Path) -> None:
    base, data, straight, run = (tmp_path / name for name in ("base", "some.json", "straight", "run"))
    model: GPT = random_model(GPTConfig(context_length=256, n_embd=16, n_layer=2, n_head=2, dropout=0.1))
    save_model(model, base, "alpaca")
    data.write_text(json.dumps(load_entries(ENTRIES)[::60]), encoding="utf-8")
    new = ["--model", str(base), "--data", str(data), *FLAGS, "--out"]
    began = time.monotonic()
    process = start(*new, str(straight))
    assert process.wait(600) == 0, process.stderr.read()
    seconds = time.monotonic() - began

    rng, steps, n_killed = random.Random(123), [0], 0
    for _ in range(N_KILLS):
        process = goes_on(run, [*new, str(run)])
        try:
            process.wait(rng.uniform(0.2, 1.1) * seconds)
            assert process.returncode == 0, process.stderr.read()  # it came to its end first
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            n_killed += 1
        process.stderr.close()
        steps.append(check_what_lies_there(run, base))
        assert steps[-1] >= steps[-2]
    assert n_killed > N_KILLS // 4
    process = goes_on(run, [*new, str(run)])
    assert process.wait(600) == 0, process.stderr.read()
    for name in ("model.safetensors", "responses.json"):
        assert (run / name).read_bytes() == (straight / name).read_bytes()
    losses = [[report["loss"] for report in json.loads((f / "history.json").read_text())] for f in (run, straight)]
    assert losses[0] == losses[1]
