"""A run on disk: what was trained on what, how, and where it stands.

RUN/                     a Hugging Face model folder (weights/checkpoint.py), the best model so far, and beside it
  training.json          every setting, the SHA-256 of the entries, versions, counts, times
  history.json           a report of each step; history.csv: the same as a table, while it grows
  rejected.jsonl         with skip_bad: the records that could not be read, where they stood, and why
  last/state.pt          newest weights, optimizer, loss scaler and step: all that going on bit for bit needs, because
                         the order of the entries and dropout follow from seed and step
  adapter/               of a run with LoRA: the best adapter alone, in PEFT's format (the model has it merged in)
  metrics.json responses.json loss.png scores.png report.md      written by `scripts.evaluate`
"""

import dataclasses
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from gpt.hardware.precision import make_scaler
from gpt.hardware.processes import everyone, rank
from gpt.model.gpt2 import GPT
from gpt.text.dataset import InstructionDataset
from gpt.text.entries import Entry, entries_sha256, read_entries, split_entries
from gpt.text.prompts import get_template
from gpt.text.tokenizer import load_tokenizer
from gpt.training.train import TrainConfig, make_optimizer, train
from gpt.tuning.adapter import save_adapter
from gpt.tuning.lora import merged_copy
from gpt.tuning.turns import ConversationDataset
from gpt.weights.checkpoint import read_json, save_model, write_atomically, write_json

SAVE_EVERY = 300  # seconds between saves of the newest state; it is saved after each evaluation too


@dataclass(frozen=True)
class RunSettings:
    """What a run is made of; with the same entries it gives the same result on the same machine."""

    model: str  # name or folder of the base model
    data: str  # path of the entries
    entries_sha256: str
    template: str
    split: str  # grouped or ordered
    config: TrainConfig
    untie: bool = False  # an output layer of its own
    recipe: str = ""  # the published run to compare with: its order of the entries, its way of measuring
    turns: bool = False  # every answer of a conversation teaches, and at use earlier turns belong to the prompt
    skip_bad: bool = False  # records of the data that cannot be read are left out; rejected.jsonl holds them

    def __post_init__(self) -> None:
        get_template(self.template)


def save_settings(folder: Path, settings: RunSettings, facts: dict[str, object]) -> None:
    """Write training.json: the settings, versions, and `facts` such as counts and times."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    write_json(folder / "training.json", dataclasses.asdict(settings) | {"versions": versions, "facts": facts})


def load_settings(folder: Path, kind: type[RunSettings] = RunSettings) -> tuple[RunSettings, dict[str, object]]:
    """The settings and facts of a run. Raises ValueError if the folder holds none."""
    if not (folder / "training.json").exists():
        raise FileNotFoundError(f"{folder} holds no run: there is no training.json in it")
    found = read_json(folder / "training.json")
    try:
        config = TrainConfig(**found["config"])
        names = {field.name for field in dataclasses.fields(kind)} - {"config"}
        return kind(**{name: found[name] for name in names & set(found)}, config=config), found["facts"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / 'training.json'} was not written by this version: {error}") from None


def load_split(settings: RunSettings) -> dict[str, list[Entry]]:
    """The run's entries as train, val and test. Raises ValueError if the file is no longer what was trained on."""
    entries, _ = read_entries(settings.data, [] if settings.skip_bad else None)
    if entries_sha256(entries) != settings.entries_sha256:
        raise ValueError(f"{settings.data} has changed since the run began: its entries have another SHA-256")
    train, val, test = split_entries(entries, how=settings.split, seed=settings.config.seed)
    for name, side in {"training": train, "validation": val, "test": test}.items():
        if not side:
            few = f"{settings.data} has {len(entries)} entries, which leaves none for {name}: use 20 or more"
            alike = (f"{settings.data}: nearly all prompts are near-duplicates of each other, which leaves none for"
                     f" {name}: use --split ordered")  # fmt: skip
            raise ValueError(alike if settings.split == "grouped" and len(entries) >= 20 else few)
    return {"train": train, "val": val, "test": test}


def make_datasets(
    split: dict[str, list[Entry]], settings: RunSettings, context_length: int
) -> dict[str, InstructionDataset]:
    """The training and validation entries, encoded for the model's context."""
    max_length = min(settings.config.max_length, context_length)
    dataset = ConversationDataset if settings.turns else InstructionDataset
    sides = {n: dataset(split[n], load_tokenizer(), settings.template, max_length) for n in ("train", "val")}
    for name, side in sides.items():
        if not len(side):
            raise ValueError(f"all {len(split[name])} {name} entries of {settings.data} have an empty output")
    return sides


# ---- the state between two steps ----


def save_state(folder: Path, model: GPT, optimizer: Optimizer, scaler: GradScaler, history: list[dict]) -> None:
    """Write last/state.pt and history.json; the step is that of the newest report."""
    (folder / "last").mkdir(parents=True, exist_ok=True)
    parts = {"model": model, "optimizer": optimizer, "scaler": scaler}
    state = {name: part.state_dict() for name, part in parts.items()} | {"history": history}
    write_atomically(folder / "last" / "state.pt", lambda part: torch.save(state, part))
    write_json(folder / "history.json", history)


def load_state(folder: Path, model: GPT, optimizer: Optimizer, scaler: GradScaler) -> list[dict]:
    """Put the newest state into model, optimizer and scaler and return the history. Raises ValueError if it is
    damaged."""
    path = folder / "last" / "state.pt"
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no last/state.pt: nothing was saved to go on from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # tensors and plain values, no code
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        return state["history"]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # what torch.load raises depends on where the damage is
        raise ValueError(f"{path} cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from None


def best_step(history: list[dict], loss_on: str) -> int:
    """The step with the lowest validation loss, the latest of equal ones; 0 if none was evaluated after training began
    (step 0, before training, is no candidate)."""
    evaluated = [report for report in history if report["val"] and report["step"] > 0]
    loss_on = "preference" if any("preference" in report["val"] for report in evaluated) else loss_on  # tuning/dpo.py
    return min(evaluated, key=lambda report: (report["val"][loss_on], -report["step"]), default={"step": 0})["step"]


def why_ended(history: list[dict], config: TrainConfig) -> str:
    """A sentence if the run is over before its last step because validation no longer improves; else nothing."""
    best = best_step(history, config.loss_on)
    n_worse = sum(1 for report in history if report["val"] and report["step"] > best > 0)
    if not config.patience or n_worse < config.patience or history[-1]["step"] == history[-1]["n_steps"]:
        return ""
    last, found = history[-1], f"{n_worse} validation{'s' * (n_worse > 1)}"
    return f"ended at step {last['step']} of {last['n_steps']}: {found} without a better loss than that of step {best}"


# ---- training, recorded ----


def save_best(folder: Path, settings: RunSettings, model: GPT) -> None:
    """The model as the run's result: always a plain one; adapters are merged in a copy and saved alone too."""
    if settings.config.lora_rank:
        save_adapter(model, folder / "adapter", settings.model)
        model = merged_copy(model)
    save_model(model, folder, settings.template)


def train_run(
    folder: Path, settings: RunSettings, model: GPT, sides: dict[str, InstructionDataset],
    is_stopped: Callable[[], bool] = lambda: False, batches_of: Callable[[int], list[list[int]]] | None = None,
    measure: Callable[[GPT, int], object] = lambda model, step: None,
) -> Iterator[dict[str, object]]:  # fmt: skip
    """Train into the run folder, from its newest state on if it has one, and yield each report as it is recorded.
    The model comes as `choose_trained` leaves it. A recipe gives the batches of each epoch, and what to measure after
    a step.

    The best model by validation loss lies in the folder itself, the newest state in last/. Asked to stop, it saves
    after the step at hand and ends; so it does when the configuration's patience is at its end.
    """
    config, train_set, val_set = settings.config, sides["train"], sides["val"]
    is_first = rank() == 0  # the others compute and write nothing
    optimizer, scaler, history = make_optimizer(model, config), make_scaler(model.device, config.precision), []
    if (folder / "last" / "state.pt").exists():
        history = load_state(folder, model, optimizer, scaler)
        config = dataclasses.replace(config, micro_batch=history[-1].get("micro_batch") or config.micro_batch)
        if is_first:
            write_json(folder / "history.json", history)  # killed between two files, a run leaves an older one
    if why_ended(history, config):
        return
    first_step, n_known = (history[-1]["step"] if history else 0), len(history)
    saved = began = time.monotonic()
    reports = train(model, optimizer, train_set, val_set, config, first_step, scaler=scaler, batches_of=batches_of)
    for step_report in reports:
        if step_report.step == 0 and n_known:  # the newest state is that before the first step: this is known already
            began = time.monotonic()
            continue
        now = time.monotonic()
        history.append(dataclasses.asdict(step_report) | {"seconds": round(now - began, 4)})
        if is_first and (found := measure(model, step_report.step)):
            history[-1]["published_way"] = found
        if is_first and step_report.val and best_step(history, config.loss_on) == step_report.step > 0:
            save_best(folder, settings, model)
        stopped = any(everyone(is_stopped())) or bool(step_report.val and why_ended(history, config))
        if is_first and (stopped or step_report.val or now - saved > SAVE_EVERY):
            save_state(folder, model, optimizer, scaler, history)
            saved = time.monotonic()
        yield history[-1]
        if stopped:
            return
        began = time.monotonic()


def tokens_per_second(history: list[dict]) -> float:
    """Real tokens read, without padding, over the time of the steps without evaluation (of all, if each has one)."""
    steps = [report for report in history if report["loss"] is not None]
    steps = [report for report in steps if not report["val"]] or steps
    return sum(report["n_tokens"] for report in steps) / max(1e-9, sum(report["seconds"] for report in steps))
