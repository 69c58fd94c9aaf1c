"""A run on pairs: the loop of DPO (tuning/dpo.py) into a run folder, and its picture.

The folder is that of every run (training/run.py), so evaluation, chat and server take it as it is. Two things are its
own: pairs.json, the pairs as entries with the field "rejected", and in the history the scores of the preference beside
the losses: `loss` and the validation's three are nats per token of the chosen responses, which DPO may make less likely
as well, as long as the rejected ones fall faster.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

from gpt.evaluation.metrics import bootstrap_interval
from gpt.evaluation.plots import plot_lines, running_mean
from gpt.hardware.memory import halve_until_it_fits
from gpt.hardware.precision import autocast, make_scaler
from gpt.hardware.processes import seed_dropout
from gpt.model.gpt2 import GPT
from gpt.text.dataset import Kind
from gpt.training.loss import evaluate_loss
from gpt.training.run import SAVE_EVERY, RunSettings, best_step, load_state, save_best, save_state, why_ended
from gpt.training.train import TrainingError, epoch_batches, lr_at, make_optimizer, named, set_lr, update
from gpt.tuning.dpo import PreferenceDataset, dpo_loss, pair_log_probs, preference_scores, reference_log_probs
from gpt.weights.checkpoint import write_json

# A hundredth of what fine-tuning takes: the pairs are to move the model a little.
DEFAULTS = {"epochs": 1, "batch_size": 16, "micro_batch": 8, "lr": 5e-6, "warmup": 0.1, "dropout": 0.0}
SCORES = {"preference": "DPO loss, nats a pair", "margin": "reward margin", "accuracy": "reward accuracy"}


@dataclass(frozen=True)
class PreferenceSettings(RunSettings):
    """What a run on pairs is made of: `model` is what it starts from and stays near to, `data` its pairs."""

    beta: float = 0.1  # how much a reward weighs; small lets the model move far from where it began

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ValueError(f"beta is {self.beta}: it must be more than 0")


def prefer_run(
    folder: Path,
    settings: PreferenceSettings,
    model: GPT,
    sides: dict[str, PreferenceDataset],
    references: dict[str, Tensor],
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[dict]:
    """Train into the run folder, from its newest state on if it has one, and yield each report as it is recorded.

    The model comes as `choose_trained` leaves it; `references` are `reference_log_probs` of the model before that. The
    best is that with the lowest DPO loss in validation. Asked to stop, it saves after the step at hand.
    """
    config, train_set = settings.config, sides["train"]
    optimizer, scaler, history = make_optimizer(model, config), make_scaler(model.device, config.precision), []
    if (folder / "last" / "state.pt").exists():
        history = load_state(folder, model, optimizer, scaler)
        write_json(folder / "history.json", history)  # killed between two files, a run leaves an older one
    if why_ended(history, config):
        return
    per_epoch = len(epoch_batches(train_set, config, 0))
    if not per_epoch:
        raise ValueError(f"{len(train_set)} pairs do not fill one batch of {config.batch_size}: use a smaller one")
    n_steps, eval_every = config.epochs * per_epoch, config.eval_every or max(1, per_epoch // 4)
    saved = began = time.monotonic()
    for done in range(history[-1]["step"] + 1 if history else 0, n_steps + 1):  # step 0 validates only
        report = {"step": done, "n_steps": n_steps, "epoch": done / per_epoch, "loss": None, "lr": 0.0, "n_tokens": 0}
        report |= {"skipped": False}
        if done:
            epoch, position = divmod(done - 1, per_epoch)
            rows = epoch_batches(train_set, config, epoch)[position]
            lr = lr_at(done - 1, n_steps, config)
            set_lr(optimizer, lr)
            report |= {"lr": lr} | preference_step(
                model, optimizer, train_set, references["train"], rows, settings, done - 1, scaler
            )
        is_due = done % eval_every == 0 or done == n_steps
        report["val"] = validate(model, sides["val"], references["val"], settings.beta) if is_due else None
        history.append(report | {"seconds": round(time.monotonic() - began, 4)})
        if report["val"] and best_step(history, config.loss_on) == done > 0:
            save_best(folder, settings, model)
        stopped = is_stopped() or bool(report["val"] and why_ended(history, config))
        if stopped or report["val"] or time.monotonic() - saved > SAVE_EVERY:
            save_state(folder, model, optimizer, scaler, history)
            saved = time.monotonic()
        yield history[-1]
        if stopped:
            return
        began = time.monotonic()


def preference_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    dataset: PreferenceDataset,
    reference: Tensor,
    rows: list[int],
    settings: PreferenceSettings,
    step: int,
    scaler: torch.amp.GradScaler,
) -> dict[str, object]:
    """One update from the pairs at `rows`: what the history holds of it. Each pair weighs the same, however the step is
    cut into micro-batches. Raises TrainingError for what is not finite, before the weights are touched."""
    config = settings.config
    model.train()

    def accumulate(micro_batch: int) -> list[Tensor]:
        optimizer.zero_grad(set_to_none=True)
        seed_dropout(config.seed, step)
        found = []
        for start in range(0, len(rows), micro_batch):
            micro = rows[start : start + micro_batch]
            with autocast(model.device, config.precision):
                policy = pair_log_probs(model, [dataset.pairs[i] for i in micro])
            losses, _ = dpo_loss(policy, reference[micro].to(policy), settings.beta)
            if not losses.isfinite().all():
                raise FloatingPointError("DPO loss", losses.tolist())
            scaler.scale(losses.sum() / len(rows)).backward()
            found.append(policy.detach().cpu())
        return found

    try:
        found, _ = halve_until_it_fits(accumulate, config.micro_batch)
        is_updated = update(model, optimizer, config, scaler)
    except FloatingPointError as error:
        name, value = error.args
        raise TrainingError(f"the {name} is {value}, in the batch of pairs {named(dataset.entries, rows)}") from None
    finally:
        optimizer.zero_grad(set_to_none=True)
    policy, pairs = torch.cat(found), [dataset.pairs[i] for i in rows]
    n_counted = sum(kind >= Kind.RESPONSE for pair in pairs for kind in pair.chosen.kinds)
    return {
        "loss": -policy[:, 0].sum().item() / n_counted,
        "n_tokens": sum(len(row.ids) for pair in pairs for row in pair),
        "skipped": not is_updated,
        "scores": preference_scores(policy, reference[rows], settings.beta),
    }


def validate(model: GPT, dataset: PreferenceDataset, reference: Tensor, beta: float) -> dict[str, float]:
    """The scores of the preference, and the three losses over the chosen responses."""
    policy = reference_log_probs(model, dataset.pairs)
    return evaluate_loss(model, [pair.chosen for pair in dataset.pairs]) | preference_scores(policy, reference, beta)


def score_pairs(before: Tensor, after: Tensor, beta: float) -> dict:
    """Held-out pairs under the model before and after, log-probabilities (N, 2) each: what preference.json holds."""
    _, rewards = dpo_loss(after, before, beta)
    margins = rewards[:, 0] - rewards[:, 1]
    values = {
        "chosen likelier, before": before[:, 0] > before[:, 1],
        "chosen likelier, after": after[:, 0] > after[:, 1],
        "reward accuracy": margins > 0,
        "reward margin": margins,
    }
    return {"n": len(before), "beta": beta} | {
        name: bootstrap_interval(column.double().tolist()) for name, column in values.items()
    }


def plot_preference(history: list[dict]) -> Axes:
    """Loss, reward margin and accuracy by step, side by side: validation, and the running mean of the steps."""
    _, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained", facecolor="#fdfdfb")
    steps = [report for report in history if "scores" in report]
    evaluated = [report for report in history if report["val"]]
    for (name, label), ax in zip(SCORES.items(), axes, strict=True):
        smooth = running_mean([report["scores"][name] for report in steps], max(1, len(steps) // 20))
        lines = {
            "validation": ([report["step"] for report in evaluated], [report["val"][name] for report in evaluated]),
            "training, running mean": ([report["step"] for report in steps], smooth),
        }
        plot_lines(lines, label, "step", "", ax)
    return axes[0]
