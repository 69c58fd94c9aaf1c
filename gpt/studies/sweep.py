"""Which learning rate? The same run at several, each with a schedule of its own to the end: a rate that looks best
after the first tenth of a long run need not be best after it."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from gpt.evaluation.plots import plot_lines
from gpt.evaluation.report import table
from gpt.model.gpt2 import GPT
from gpt.text.dataset import InstructionDataset
from gpt.training.train import StepReport, TrainConfig, TrainingError, choose_trained, make_optimizer, train


def run_at(
    model: GPT,
    sides: dict[str, InstructionDataset],
    config: TrainConfig,
    on_step: Callable[[StepReport], None] = lambda report: None,
) -> dict:
    """Train the model in place: its rate, the validation losses by epoch, and why it broke off, if it did."""
    choose_trained(model, config)
    point = {"lr": config.lr, "epochs": [], "losses": [], "failed": ""}
    try:
        for report in train(model, make_optimizer(model, config), sides["train"], sides["val"], config):
            on_step(report)
            if report.val:
                point["epochs"].append(report.epoch)
                point["losses"].append(report.val[config.loss_on])
    except TrainingError as error:
        point["failed"] = str(error)
    return point


def lowest(point: dict) -> float | None:
    """The lowest validation loss after training began; None for a run that broke off."""
    return None if point["failed"] else min(point["losses"][1:])


def finished(points: Sequence[dict]) -> list[dict]:
    """Those that did not break off, from the smallest rate on."""
    return sorted((point for point in points if not point["failed"]), key=lambda point: point["lr"])


def finding(points: Sequence[dict]) -> str:
    """One sentence: the best rate, and whether it lies at the edge of what was tried."""
    done = finished(points)
    if not done:
        return "every rate broke off: try smaller ones"
    best = min(done, key=lowest)
    told = f"lowest at {best['lr']:g}: {lowest(best):.3f} nats per token"
    if len(points) > 1 and best["lr"] == min(point["lr"] for point in points):
        return f"{told}; that is the smallest tried: try smaller ones"
    if len(points) > 1 and best["lr"] == max(point["lr"] for point in points):
        return f"{told}; that is the largest tried: try larger ones"
    return told


def sweep_table(points: Sequence[dict]) -> str:
    def shown(point: dict) -> list[str]:
        if point["failed"]:
            return [f"{point['lr']:g}", "broke off", "", ""]
        losses = point["losses"][1:]
        best = min(range(len(losses)), key=losses.__getitem__)
        return [f"{point['lr']:g}", f"{losses[best]:.3f}", f"{point['epochs'][1 + best]:.2f}", f"{losses[-1]:.3f}"]

    header = ["learning rate", "lowest validation loss", "after epoch", "at the end"]
    return table(header, [shown(point) for point in sorted(points, key=lambda point: point["lr"])], numbers_from=0)


def plot_sweep(points: Sequence[dict]) -> Axes:
    """Lowest validation loss by learning rate, and the last where it is another; rates that broke off are missing."""
    done = finished(points)
    rates = [point["lr"] for point in done]
    series = {"lowest": (rates, [lowest(point) for point in done])}
    if any(point["losses"][-1] > lowest(point) for point in done):
        series["at the end"] = (rates, [point["losses"][-1] for point in done])
    ax = plot_lines(series, "Validation loss by learning rate", "learning rate", "nats per token")
    ax.set_xscale("log")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    return ax
