"""Where the contestants of the benchmark work: in this process, or each in one of its own."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch

from gpt.studies.chores import CHORES
from gpt.studies.contestants import TRAINERS, Contestant, Task, read_data
from gpt.studies.decoders import DECODERS, check_lengths
from gpt.studies.speedrun import RUNNERS

WORKS: dict[str, dict[str, Contestant]] = {
    "train": TRAINERS,
    "decode": DECODERS,
    "speedrun": RUNNERS,
    **{name: {"ours": chore} for name, chore in CHORES.items()},
}


class Worker(Protocol):
    """A contestant that has its task."""

    def turn(self, n: int) -> dict: ...

    def close(self) -> None: ...


class Here:
    """A contestant in this process. Its memory can be told if it is alone there."""

    def __init__(self, task: Task, is_alone: bool = False) -> None:
        self.task, self.is_alone = task, is_alone
        self.work = WORKS[task.work][task.way](task)
        next(self.work)
        self.held_before = held_bytes(task.device)

    def turn(self, n: int) -> dict:
        """Do the next n pieces of work: seconds, losses, tokens, ids, and the most memory so far beyond what the
        libraries took, in bytes (None where that cannot be told)."""
        synchronize(self.task.device)
        start = time.perf_counter()
        done = [next(self.work) for _ in range(n)]
        synchronize(self.task.device)
        seconds = time.perf_counter() - start
        if self.task.work == "decode":
            check_lengths(done[-1].ids, read_data(self.task).limits)
        peak = peak_bytes(self.task.device) if self.is_alone else None
        return {
            "seconds": seconds,
            "losses": [None if one.loss is None else float(one.loss) for one in done],
            "amount": sum(one.amount for one in done),
            "ids": done[-1].ids,
            "peak_bytes": None if peak is None else peak - self.held_before,
            "libraries_bytes": self.held_before,
        }

    def close(self) -> None:
        self.work.close()


def synchronize(device: str) -> None:
    if device.startswith("cuda"):  # needs CUDA
        torch.cuda.synchronize()


def proc_status(name: str) -> int | None:
    """A line of Linux's /proc/self/status, in bytes. `resource` would give a child the peak of its parent."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.split()[1] for line in lines if line.startswith(name + ":")]
    return 1024 * int(found[0]) if found else None


def held_bytes(device: str) -> int:
    return torch.cuda.memory_allocated() if device.startswith("cuda") else proc_status("VmRSS") or 0


def peak_bytes(device: str) -> int | None:
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else proc_status("VmHWM")


def serve() -> None:
    """A contestant's process: the task comes as the first line of input, then a number of steps a line; each is
    answered by a line. Ends with its input. What libraries print goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers, sys.stdout = sys.stdout, sys.stderr
    contestant = None
    for line in sys.stdin:
        try:
            if contestant is None:
                contestant, answer = Here(Task(**json.loads(line)), is_alone=True), {}
            else:
                answer = contestant.turn(int(line))
        except (Exception, torch.OutOfMemoryError) as error:
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Process:
    """A contestant in a process of its own, so that its memory can be told and nothing of the other's is in its way."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpt.studies.arena"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        self.ask(json.dumps(asdict(task)) + "\n")

    def ask(self, line: str) -> dict:
        try:
            self.process.stdin.write(line)
            self.process.stdin.flush()
            answer = json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            answer = {"error": "its process ended without a word (out of memory?)"}
        if "error" in answer:
            self.close()
            raise ValueError(f"{self.task.way} ({self.task.work}, {self.task.precision}): {answer['error']}")
        return answer

    def turn(self, n: int) -> dict:
        return self.ask(f"{n}\n")

    def close(self) -> None:
        """At once: what it would say is not waited for."""
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    serve()
