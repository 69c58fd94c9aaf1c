"""Two real processes, started by torchrun and joined by gloo, against one process with the same settings."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt.hardware import processes
from gpt.text.entries import load_entries
from scripts.finetune import ENTRIES

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start(command: list[object], **options: object) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def finish(process: subprocess.Popen, expected: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=540)
    assert process.returncode == expected, err[-3000:]
    return out, err


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What one process and what two processes came to."""
    folder, script = tmp_path_factory.mktemp("several"), ROOT / "tests" / "hardware" / "several.py"
    started = [start([sys.executable, script, folder / "1.json"]), start([*TORCHRUN, script, folder / "2.json"])]
    for process in started:
        finish(process)
    return tuple(json.loads((folder / f"{n}.json").read_text()) for n in (1, 2))


def test_a_process_alone_is_the_first_of_one() -> None:
    assert (processes.rank(), processes.n_processes(), processes.local_rank()) == (0, 1, 0)
    assert processes.everyone(2.5) == [2.5]
    assert processes.share([1, 2, 3]) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "lora", "freeze"])
def test_two_processes_have_the_losses_of_one(way: str, found: tuple[dict, dict]) -> None:
    """17 entries in batches of 8: in each epoch's short batch one of the two has nothing to do."""
    one, two = found[0][way], found[1][way]
    assert len(one["losses"]) == 6
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["val"] == pytest.approx(one["val"], rel=1e-5)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5)


@pytest.mark.slow
def test_all_processes_end_with_the_same_bits(found: tuple[dict, dict]) -> None:
    assert all(found[1][way]["same everywhere"] for way in ("plain", "lora", "freeze", "dropout"))


@pytest.mark.slow
def test_a_mean_of_the_processes_means_would_be_another_run(found: tuple[dict, dict]) -> None:
    one, wrong = found[0]["plain"]["losses"], found[1]["mean of means"]["losses"]
    assert wrong[0] == pytest.approx(one[0], rel=1e-5)  # before the first update
    assert max(abs(a - b) for a, b in zip(one, wrong, strict=True)) > 1e-3


@pytest.mark.slow
def test_the_gradients_are_those_of_distributed_data_parallel(found: tuple[dict, dict]) -> None:
    assert found[1]["to DDP"] < 1e-5
    assert found[1]["to a mean of means"] > 1e-2


@pytest.mark.slow
def test_dropout_differs_from_process_to_process(found: tuple[dict, dict]) -> None:
    one, two = (side["dropout"]["losses"] for side in found)
    assert one != pytest.approx(two, rel=1e-5)
    assert one == pytest.approx(two, rel=0.1)


@pytest.mark.slow
def test_one_process_may_run_out_of_memory_and_all_go_on_with_the_same_result(found: tuple[dict, dict]) -> None:
    for side in found:
        assert side["one is full"]["losses"] == pytest.approx(found[0]["plain"]["losses"], rel=1e-5)
        assert side["one is full"]["fits"] == 1
        assert side["plain"]["fits"] == 2


@pytest.mark.slow
def test_what_processes_tell_each_other_comes_in_their_order(found: tuple[dict, dict]) -> None:
    assert found[1]["everyone"] == [0.5, 1.5]
    assert found[1]["share"] == [[1, 3], [1]]


# ---- the whole script ----


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("data") / "some.json"
    path.write_text(json.dumps(load_entries(ENTRIES)[::100]), encoding="utf-8")
    return ["--data", str(path), "--device", "cpu", "--epochs", "2", "--batch-size", "6", "--no-self-check"]


def losses(folder: Path) -> list[float]:
    return [report["loss"] for report in json.loads((folder / "history.json").read_text())[1:]]


@pytest.mark.slow
def test_torchrun_writes_one_run_that_can_be_stopped_and_gone_on_with(flags: list[str], tmp_path: Path) -> None:
    one, two, script = tmp_path / "one", tmp_path / "two", ["-m", "scripts.finetune"]
    finish(start([sys.executable, *script, *flags, "--out", one]))
    process = start([*TORCHRUN, *script, *flags, "--out", two])
    deadline = time.monotonic() + 300
    while not (two / "history.csv").exists() or len((two / "history.csv").read_text().splitlines()) < 4:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1][-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # torchrun hands it to its processes
    out, _ = process.communicate(timeout=120)
    assert out.count("stopped and saved; go on with: torchrun --nproc-per-node 2 -m scripts.finetune --resume") == 1
    n_before = len(losses(two))
    assert 2 < n_before < len(losses(one))
    assert losses(two) == pytest.approx(losses(one)[:n_before], rel=1e-4)
    out, _ = finish(start([*TORCHRUN, *script, "--resume", two, "--device", "cpu", "--no-self-check"]))
    assert out.count("device     cpu, 1 threads (as asked), 2 processes\n") == 1
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    assert all(torch.allclose(t, weights[1][name], atol=1e-4) for name, t in weights[0].items())
    assert [line.split(",")[0] for line in (two / "history.csv").read_text().splitlines()[1:]] == [
        str(step) for step in range(len(losses(one)) + 1)
    ]
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())


@pytest.mark.slow
def test_an_error_is_said_once_by_several_processes(tmp_path: Path) -> None:
    process = start([*TORCHRUN, "-m", "scripts.finetune", "--data", "nowhere.json", "--out", tmp_path / "run"])
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("error: nowhere.json: No such file or directory") == 1
    assert not (tmp_path / "run").exists()
