"""Real processes of our scripts, killed at random moments.

Each is a fork of one process that has imported everything, so that the moments fall into the work and not into the
seconds of the imports before it; SIGKILL finds it with its own memory, threads, files and sockets, like any other.
"""

import importlib
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

N_KILLS = 50
SCRIPTS = "curate curate_make curate_clean download evaluate finetune judge".split()
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, *(f"scripts.{name}" for name in SCRIPTS)])


def work(script: str, argv: list[str], log: Path, environment: dict[str, str]) -> None:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment | {"OMP_NUM_THREADS": "1"})
    importlib.import_module("torch").set_num_threads(1)
    sys.exit(importlib.import_module(f"scripts.{script}").main(argv))


def start(script: str, argv: list[object], log: Path, **environment: str) -> BaseProcess:
    process = FORKS.Process(target=work, args=(script, [str(word) for word in argv], log, environment))
    process.start()
    return process


def run(script: str, argv: list[object], log: Path, **environment: str) -> float:
    """Seconds that the script takes where nobody kills it."""
    start("download", ["--list"], log).join()  # the imports, once
    began = time.monotonic()
    process = start(script, argv, log, **environment)
    process.join(900)
    assert process.exitcode == 0, log.read_text()
    return time.monotonic() - began


def kill_often(
    begin: Callable[[int], BaseProcess], look: Callable[[int, bool], None], seconds: float, log: Path
) -> str:
    """Start, kill, look at what lies there, start again, round after round of the same work, for N_KILLS kills.

    A round is over when a process comes to its end by itself; the last one is let. The moments lie anywhere in the
    `seconds` that the work takes, three of ten near its end, where files are put in place. Returns the counts in words.
    """
    rng, n_killed, n_rounds, began = random.Random(123), 0, 0, time.monotonic()
    while n_killed < N_KILLS:
        process = begin(n_rounds)
        process.join(seconds * (rng.uniform(0, 0.6) if rng.random() < 0.7 else rng.uniform(0.7, 1.2)))
        process.kill()
        process.join()
        assert process.exitcode in (0, -9), log.read_text()
        is_over = process.exitcode == 0
        n_killed += not is_over
        look(n_rounds, is_over)
        n_rounds += is_over
    process = begin(n_rounds)
    process.join(900)
    assert process.exitcode == 0, log.read_text()
    look(n_rounds, True)
    return f"{n_killed} kills, {n_rounds + 1} times to the end, {time.monotonic() - began:.0f} s"
