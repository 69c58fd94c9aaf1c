"""Disks that fill up, and folders that cannot be written to: one line, exit code 2, what was saved is whole, and when
there is room the run goes on to the same end."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpt.model.gpt2 import GPTConfig
from gpt.text.entries import load_entries
from gpt.weights.checkpoint import save_model
from scripts import finetune
from scripts.new_run import ENTRIES
from tests.reference import random_model
from tests.test_kills import check_what_lies_there

MEGABYTE = 2**20
# What the first write needs that a run cannot do without; the others are in its way to the end, one after another.
FREE = [0.002, 1, 2.5, 4, 6, 8]  # megabytes that are left when the run begins
FLAGS = ["--epochs", "2", "--eval-every", "2", "--batch-size", "4", "--device", "cpu", "--no-self-check"]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_model(random_model(GPTConfig(context_length=256, n_embd=8, n_layer=1, n_head=1, dropout=0.1)), folder)
    (folder / "some.json").write_text(json.dumps(load_entries(ENTRIES)[::120]), encoding="utf-8")
    return folder


def new(base: Path, run: Path) -> list[str]:
    return ["--model", str(base), "--data", str(base / "some.json"), "--out", str(run), *FLAGS]


@pytest.fixture(scope="module")
def straight(base: Path) -> Path:
    assert finetune.main(new(base, base / "straight")) == 0
    return base / "straight"


def refused(argv: list[str], capsys: pytest.CaptureFixture) -> str:
    """The error of a command that fails: its last line, after the bar."""
    capsys.readouterr()
    assert finetune.main(argv) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and shown.count("\nerror: ") + shown.startswith("error: ") == 1
    return shown.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("free", FREE)
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(
    base: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture, free: float
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        run, ballast = disk / "run", disk / "ballast"
        ballast.write_bytes(bytes(int((64 - free) * MEGABYTE)))
        error = refused(new(base, run), capsys)
        assert error.startswith("error: ") and ("the disk is full" in error or "No space left" in error), error
        assert str(disk) in error, error
        check_what_lies_there(run, base)
        left = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        if (run / "training.json").exists():  # and tried again at once, it loses nothing of that
            refused(["--resume", str(run), "--no-self-check"], capsys)
            check_what_lies_there(run, base)
            assert set(left) <= set(run.rglob("*"))
        ballast.unlink()
        going_on = ["--resume", str(run), "--no-self-check"] if (run / "training.json").exists() else new(base, run)
        assert finetune.main(going_on) == 0
        for name in ("model.safetensors", "responses.json"):
            assert (run / name).read_bytes() == (straight / name).read_bytes()
        assert not list(run.rglob("*.part"))


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_to_is_said_and_left_as_it_is(
    base: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        run = disk / "run"
        assert finetune.main(new(base, run)) == 0
        (run / "model.safetensors").unlink()
        (run / "last" / "state.pt").unlink()  # as if it had been stopped before its first evaluation
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        for argv in (["--resume", str(run), "--no-self-check"], new(base, disk / "other")):
            error = refused(argv, capsys)
            assert "Read-only file system" in error and str(disk) in error, error
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        assert finetune.main(["--resume", str(run), "--no-self-check"]) == 0
        assert (run / "model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
