"""For `finetune`: a run at work, with a bar, its curves on disk, and signals that stop it after the step at hand."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from gpt.hardware.processes import everyone, rank
from gpt.model.gpt2 import GPT
from gpt.studies.dry_run import forecast
from gpt.studies.tracking import tracks
from gpt.text.dataset import InstructionDataset
from gpt.training import run
from gpt.training.train import TrainConfig
from gpt.weights.checkpoint import read_json
from scripts.recipe import recipe_ways


@contextlib.contextmanager
def first_prints() -> Iterator[None]:
    """Of several processes only the first is heard, but for errors."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere if rank() else sys.stdout):
        yield


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM write their numbers to, in place of ending the process."""
    asked: list[int] = []
    known = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in known.items():
            signal.signal(number, handler)


def drive(
    folder: Path, settings: run.RunSettings, model: GPT, sides: dict[str, InstructionDataset], track: str = ""
) -> int:
    """Train with a bar, to the end or to a signal: 0, or the exit code that tells of the signal."""
    reports, val, ways = [], "", recipe_ways(settings, sides)
    bar = tqdm(desc="validating", unit="step", dynamic_ncols=True, disable=rank() > 0)
    with stop_signals() as asked, contextlib.closing(bar), tracks(track, folder) as record:
        for report in run.train_run(folder, settings, model, sides, lambda: bool(asked), **ways):
            if rank() == 0:
                record(report)
                if halved := say_halved(reports, report):
                    bar.write(halved)
            reports.append(report)
            if len(reports) == 1:
                start_bar(bar, report)
            val = f"validation {report['val'][settings.config.loss_on]:.3f}, " if report["val"] else val
            loss = "" if report["loss"] is None else f"loss {report['loss']:.3f}, "
            bar.set_postfix_str(f"{loss}{val}{run.tokens_per_second(reports):,.0f} tokens/s", refresh=False)
            bar.update(report["step"] - bar.n)
        if rank() == 0:
            bar.set_postfix_str(how_ended(folder, settings))
        number = int(max(everyone(max(asked, default=0))))  # whichever process it reached
    return 128 + number if number else 0


def start_bar(bar: tqdm, report: dict) -> None:
    """With the first report the clock starts: the time left must not count what came before, on resume the steps of
    earlier calls, and else the validation of the model as it was."""
    bar.set_description("training", refresh=False)
    bar.total, bar.initial, bar.n, bar.last_print_n = report["n_steps"], *(report["step"],) * 3
    bar.unpause()


def where_it_stands(folder: Path, config: TrainConfig) -> str:
    """The run's folder, and how far it has come."""
    path = folder / "history.json"
    history = read_json(path, list) if path.exists() else []
    if not history:
        return f"{folder}, new"
    last = history[-1]
    if last["step"] == last["n_steps"] or run.why_ended(history, config):
        return f"{folder}, trained to its end before: only the evaluation is done again"
    return f"{folder}, goes on after step {last['step']} of {last['n_steps']}"


def show_forecast(model: GPT, sides: dict[str, InstructionDataset], config: TrainConfig) -> int:
    """What `--dry-run` prints."""
    with tqdm(desc="measuring", unit="step", leave=False) as bar:
        found = forecast(model, sides, config, bar.update)
    parts = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in found.parts().items())
    memory = f"{found.peak_bytes / 1e6:,.0f} MB at most: {parts}" if found.peak_bytes else "not known on this system"
    print(f"trained    {found.n_trained:,} of {found.n_parameters:,} parameters")
    print(f"memory     {memory}")
    steps = f"{found.n_steps} steps of {found.step_seconds:.3f} s"
    validations = f"{found.n_validations} validations of {found.validation_seconds:.1f} s"
    print(f"time       about {timedelta(seconds=round(found.seconds))}: {steps}, {validations}")
    print("nothing was written; the responses before and after, and saving, come on top")
    return 0


def say_halved(before: list[dict], report: dict) -> str:
    """A line if this step took fewer entries at a time than the one before it, else nothing."""
    known = before[-1]["micro_batch"] if before else 0
    if report["micro_batch"] >= known:
        return ""
    return (f"note       memory did not suffice at step {report['step']} for {known} entries at a time:"
            f" {report['micro_batch']} from here on, with the same result")  # fmt: skip


def how_ended(folder: Path, settings: run.RunSettings) -> str:
    """Where the best model came from, whether patience ended the run, and how many steps overflowed fp16."""
    history = read_json(folder / "history.json", list)
    best, n_skipped = run.best_step(history, settings.config.loss_on), sum(report["skipped"] for report in history)
    parts = [
        best and f"best validation at step {best}",
        n_skipped and f"{n_skipped} steps left out because gradients overflowed fp16",
        run.why_ended(history, settings.config),
    ]
    return "; ".join(filter(None, parts))
