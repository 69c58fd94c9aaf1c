"""What the benchmark found: kept in a file, as a table and as a picture.

Utilisation is needed work over what the machine was measured to do at these shapes, in a matrix product for training
and in moving memory for decoding one prompt. Needed are, after Kaplan et al. 2020 ("Scaling Laws", section 2.1) and
Chowdhery et al. 2022 ("PaLM", appendix B), 6 FLOPs for each weight and token: those of the blocks for every token read,
those of the output layer for every token that counts; and 6 L C T^2 for causal attention in a row of T tokens (half of
PaLM's 12, as no token looks ahead). Decoding one prompt has to read every weight once for each token.
"""

from pathlib import Path

from matplotlib.axes import Axes

from gpt.evaluation.plots import BLUE, GREY, INK, name_rows, new_axes, save_figure, style
from gpt.evaluation.report import table
from gpt.model.gpt2 import GPTConfig
from gpt.weights.checkpoint import read_json, write_atomically, write_json

CALIBRATED = 0.15  # the textbook's speed may differ so much from transformers' plain loop; else it is no yardstick


def begun(path: Path, settings: dict) -> dict:
    """The report in the file, to go on with. Raises ValueError if it was measured on something else."""
    if not path.exists():
        return settings | {"duels": {}}
    found = read_json(path)
    if changed := [name for name in settings if found.get(name) != settings[name]]:
        raise ValueError(f"{path} was measured with another {', '.join(changed)}: choose another --json, or delete it")
    return found


def write_report(path: Path, report: dict) -> None:
    """The file, and beside it the table (.md) and the picture (.png)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    calibrate(report["duels"])
    write_json(path, report)
    page = results_page(report)
    write_atomically(path.with_suffix(".md"), lambda part: part.write_text(page, encoding="utf-8"))
    write_atomically(path.with_suffix(".png"), lambda part: save_figure(plot_duels(report), part))


def needed_flops(config: GPTConfig, means: dict[str, float], loss_on: str) -> float:
    """Of training, for each token read: see the top of this file."""
    L, C = config.n_layer, config.n_embd
    n_counted = means["mean_tokens"] - 1 if loss_on == "all" else means["mean_response"]
    output = 6 * C * config.vocab_size * n_counted / means["mean_tokens"]
    return 6 * 12 * L * C * C + output + 6 * L * C * means["mean_squared_tokens"] / means["mean_tokens"]


def utilisation(side: dict, config: GPTConfig, means: dict[str, float], limits: dict, is_one: bool) -> float | None:
    """The share of the machine's limit that a contestant reached, or None where none is known."""
    if side["work"] == "train":
        limit = limits["products"][f"blocks {side['precision']}"]["flops_per_second"]
        return side["per_second"] * needed_flops(config, means, side["loss_on"]) / limit
    if not is_one:
        return None
    n_weights = 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd
    n_bytes = n_weights * {"float32": 4, "bf16": 2, "int8": 1}[side["precision"]]
    return side["per_second"] * n_bytes / limits["bytes_per_second"]


def calibrate(results: dict[str, dict]) -> None:
    """Write into every training duel with the textbook how fast the textbook is beside transformers' plain loop at the
    same task, and whether the ratio may be quoted; None where that is not known."""
    plain = {}
    for result in results.values():
        if result["peer"]["way"] == "transformers" and result["peer"]["work"] == "train":
            plain[key_of(result["peer"])] = result
    for result in results.values():
        if result["peer"]["way"] != "textbook" or result["peer"]["work"] != "train":
            continue
        found = plain.get(key_of(result["peer"]))
        speed = None
        if found:
            same = next((r for r in results.values() if r["peer"]["way"] == "textbook"
                         and key_of(r["peer"]) == key_of(result["peer"]) and key_of(r["ours"]) == key_of(found["ours"])
                         and r["peer"]["work"] == "train"), None)  # fmt: skip
            speed = found["ratio"] / same["ratio"] if same else None
        result["textbook_over_transformers"] = speed
        result["is_quoted"] = None if speed is None else abs(speed - 1) <= CALIBRATED


def key_of(side: dict) -> tuple[str, str]:
    return side["loss_on"], side["precision"]


def shown_ratio(result: dict) -> str:
    if result.get("is_quoted") is False:
        return f"not quoted: the textbook runs at {result['textbook_over_transformers']:.2f} of transformers' loop"
    return f"{result['ratio']:.2f} [{result['low']:.2f}, {result['high']:.2f}]"


def results_page(report: dict) -> str:
    """The duels as a Markdown table, with what the numbers mean below."""
    config, means, limits = GPTConfig(**report["config"]), report["means"], report["limits"]
    lines = []
    for name, result in report["duels"].items():
        sides = [of_side(result[side], config, means, limits, name) for side in ("ours", "peer")]
        lines.append([name, shown_ratio(result), *(f"{ours} / {peer}" for ours, peer in zip(*sides, strict=True))])
    header = ["ours vs peer", "times as fast", "tokens/s, ours / peer", "utilisation", "GB"]
    weights = "random weights" if report["is_random"] else "its weights"
    products = {name: f"{of['flops_per_second'] / 1e9:.0f}" for name, of in limits["products"].items()}
    machine = report["machine"]
    notes = [
        f"{report['model']} with {weights}; batches of {report['batch_size']}, rows of {means['mean_tokens']:.1f} "
        f"tokens on average with responses of {means['mean_response']:.1f}; {report['n_prompts']} prompts.",
        f"{machine['name']}, threads: {machine['threads']}; "
        f"{', '.join(f'{library} {version}' for library, version in machine['versions'].items())}.",
        f"Matrix products at these shapes: {', '.join(f'{name} {speed}' for name, speed in products.items())} GFLOP/s; "
        f"memory {limits['bytes_per_second'] / 1e9:.1f} GB/s.",
        "Times as fast: the median over rounds of the ratio of real tokens per second, with the lowest and the highest."
        " GB: the most memory held beyond the imported libraries.",
        *unchecked(report["duels"]),
        *unmeasured(report),
    ]
    return table(header, lines) + "\n\n" + "\n".join(f"- {note}" for note in notes) + "\n"


def of_side(side: dict, config: GPTConfig, means: dict, limits: dict, name: str) -> list[str]:
    """Speed, utilisation and memory of a contestant, as the table has them."""
    share = utilisation(side, config, means, limits, is_one=name.startswith("decode one"))
    peak = "-" if side["peak_bytes"] is None else f"{side['peak_bytes'] / 1e9:.2f}"
    return [f"{side['per_second']:.1f}", "-" if share is None else f"{share:.0%}", peak]


def unchecked(duels: dict[str, dict]) -> list[str]:
    """What a reader has to know of single duels: notes, what no authority checked, yardsticks that were not tested."""
    said = [f"{name}: {result['note']}." for name, result in duels.items() if result["note"]]
    said += [
        f"{name}: {result['same_ids']:.1%} of the new ids are the same."
        for name, result in duels.items()
        if "same_ids" in result
    ]
    if any(result["losses_checked_with"] == "textbook" for result in duels.values()):
        said.append("Losses were compared with the textbook's alone: transformers is not installed.")
    if any("is_quoted" in result and result["is_quoted"] is None for result in duels.values()):
        said.append("The textbook's training was not set beside transformers' plain loop: --peers does that.")
    return said


def unmeasured(report: dict) -> list[str]:
    """What the machine was not alone for, or has not."""
    said = [] if report["machine"]["device"].startswith("cuda") else ["On CUDA: not measured."]
    if report["n_busy"] is not None:
        said.append(f"The machine's load average at the beginning: {report['n_busy']:.1f}.")
    return said


def plot_duels(report: dict) -> Axes:
    """A bar for each duel: how many times as fast ours is, with the lowest and highest round."""
    shown = {name: r for name, r in report["duels"].items() if r.get("is_quoted") is not False}
    ax = new_axes(8.0, 0.36 * len(shown) + 1.2)
    for place, result in enumerate(shown.values()):
        colour = BLUE if result["peer"]["way"] != "textbook" else GREY
        ax.barh(place, result["ratio"], color=colour, height=0.62)
        ax.hlines(place, result["low"], result["high"], color=INK, linewidth=1.4)
        ax.text(result["high"], place, f" {result['ratio']:.2f}", va="center", fontsize=9)
    ax.axvline(1, color=INK, linewidth=0.8)
    ax.set_xscale("log")
    ax.margins(x=0.12)
    style(ax, f"Times as fast as a peer: {report['model']}, {report['machine']['name']}", "real tokens per second", "")
    ax.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    return name_rows(ax, list(shown))
