"""What the benchmark found: kept in a file, as a table and as a picture.

Utilisation is needed work over what the machine was measured to do at these shapes, in a matrix product for training
and in moving memory for decoding one prompt. Needed are, after Kaplan et al. 2020 ("Scaling Laws", section 2.1) and
Chowdhery et al. 2022 ("PaLM", appendix B), 6 FLOPs for each weight and token: those of the blocks for every token read,
those of the output layer for every token that counts; and 6 L C T^2 for causal attention in a row of T tokens (half of
PaLM's 12, as no token looks ahead). Decoding one prompt has to read every weight once for each token.
"""

import statistics
from pathlib import Path

from matplotlib.axes import Axes

from gpt.evaluation.plots import BLUE, COLOURS, GREY, INK, name_rows, new_axes, save_figure, style
from gpt.evaluation.report import table
from gpt.model.gpt2 import GPTConfig
from gpt.weights.checkpoint import SIZES, read_json, write_atomically, write_json

SECTIONS = ("duels", "growth", "speedrun")  # of a report: what was measured, by name
CALIBRATED = 0.15  # the textbook's speed may differ so much from transformers' plain loop; else it is no yardstick


def begun(path: Path, settings: dict) -> dict:
    """The report in the file, to go on with. Raises ValueError if it was measured on something else."""
    if not path.exists():
        return settings | {section: {} for section in SECTIONS}
    found = read_json(path)
    if changed := [name for name in settings if name in found and found[name] != settings[name]]:
        raise ValueError(f"{path} was measured with another {', '.join(changed)}: choose another --json, or delete it")
    return found | settings


def write_report(path: Path, report: dict) -> None:
    """The file, and beside it the tables (.md) and the pictures (.png)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    calibrate(report["duels"])
    write_json(path, report)
    page = results_page(report)
    write_atomically(path.with_suffix(".md"), lambda part: part.write_text(page, encoding="utf-8"))
    for section, suffix, plot in (("duels", ".png", plot_duels), ("growth", ".growth.png", plot_growth)):
        if report[section]:
            write_atomically(path.with_suffix(suffix), lambda part, plot=plot: save_figure(plot(report), part))


def needed_flops(config: GPTConfig, means: dict[str, float], loss_on: str) -> float:
    """Of training, for each token read: see the top of this file."""
    L, C = config.n_layer, config.n_embd
    n_counted = means["mean_tokens"] - 1 if loss_on == "all" else means["mean_response"]
    output = 6 * C * config.vocab_size * n_counted / means["mean_tokens"]
    return 6 * 12 * L * C * C + output + 6 * L * C * means["mean_squared_tokens"] / means["mean_tokens"]


def n_weights(config: GPTConfig) -> int:
    """Of the matrices, beside which all others are few."""
    return 12 * config.n_layer * config.n_embd**2 + config.vocab_size * config.n_embd


def utilisation(side: dict, config: GPTConfig, means: dict[str, float], limits: dict, is_one: bool) -> float | None:
    """The share of the machine's limit that a contestant reached, or None where none is known."""
    if side["work"] == "train":
        limit = limits["products"][f"blocks {side['precision']}"]["flops_per_second"]
        return side["per_second"] * needed_flops(config, means, side["loss_on"]) / limit
    if not is_one:
        return None
    n_bytes = n_weights(config) * {"float32": 4, "bf16": 2, "float16": 2, "int8": 1}[side["precision"]]
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
    """What was measured as Markdown tables, with what the numbers mean below."""
    tables = [duels_table(report)] if report["duels"] else []
    tables += [growth_table(name, results) for name, results in growths(report["growth"]).items()]
    tables += [speedrun_table(report["speedrun"])] if report["speedrun"] else []
    return "\n\n".join(tables) + "\n\n" + "\n".join(f"- {note}" for note in notes(report)) + "\n"


def duels_table(report: dict) -> str:
    config, means, limits = GPTConfig(**report["config"]), report["means"], report["limits"]
    lines = []
    for name, result in report["duels"].items():
        sides = [of_side(result[side], config, means, limits, name) for side in ("ours", "peer")]
        lines.append([name, shown_ratio(result), *(f"{ours} / {peer}" for ours, peer in zip(*sides, strict=True))])
    return table(["ours vs peer", "times as fast", "tokens/s, ours / peer", "utilisation", "GB"], lines)


def growths(results: dict[str, dict]) -> dict[str, list[dict]]:
    """The results of each growth, in the order of its sizes, in whatever order they were measured."""
    found: dict[str, list[dict]] = {}
    for result in sorted(results.values(), key=lambda result: size_of(result["size"])):
        found.setdefault(result["growth"], []).append(result)
    return found


def growth_table(name: str, results: list[dict]) -> str:
    """A line for each size. The first one's cost is 1, as it was measured beside each of the others."""
    first = results[0]
    lines = [[first["first"], seconds_of(first["peer"]), "1", "1", gigabytes(first["peer"])]]
    for result in results:
        cost = f"{1 / result['ratio']:.2f} [{1 / result['high']:.2f}, {1 / result['low']:.2f}]"
        lines.append([result["size"], seconds_of(result["ours"]), cost, f"{result['expected']:.2f}",
                      gigabytes(result["ours"])])  # fmt: skip
    return table([name, "seconds", f"cost of one {first['unit']}, times the first's", "needed work", "GB"], lines)


def speedrun_table(results: dict[str, dict]) -> str:
    header = ["speedrun", "seconds, ours / peer", "times as fast"]
    return table(header, [[name, f"{seconds_of(result['ours'])} / {seconds_of(result['peer'])}", shown_ratio(result)]
                          for name, result in results.items()])  # fmt: skip


def seconds_of(side: dict) -> str:
    """The median turn."""
    return f"{statistics.median(side['seconds']):.3g}"


def gigabytes(side: dict) -> str:
    return "-" if side["peak_bytes"] is None else f"{side['peak_bytes'] / 1e9:.2f}"


def notes(report: dict) -> list[str]:
    """What was measured, on what, and what a reader has to know."""
    means, machine, limits = report["means"], report["machine"], report.get("limits")
    said = [
        f"{report['model']} with {'random' if report['is_random'] else 'its'} weights; batches of "
        f"{report['batch_size']}, rows of {means['mean_tokens']:.1f} tokens on average with responses of "
        f"{means['mean_response']:.1f}; {report['n_prompts']} prompts.",
        f"{machine['name']}, threads: {machine['threads']}; "
        f"{', '.join(f'{library} {version}' for library, version in machine['versions'].items())}.",
    ]
    if limits:
        products = [f"{name} {of['flops_per_second'] / 1e9:.0f}" for name, of in limits["products"].items()]
        said.append(f"Matrix products at these shapes: {', '.join(products)} GFLOP/s; memory "
                    f"{limits['bytes_per_second'] / 1e9:.1f} GB/s.")  # fmt: skip
    said.append("Times as fast: the median over rounds of the ratio of speeds, in real tokens per second, with the "
                "lowest and the highest. Utilisation: the work of all real tokens over what the machine does in a "
                "matrix product, so more than 100% where work is saved: beginnings that rows share are computed once. "
                "GB: the most memory held beyond the imported libraries.")  # fmt: skip
    said += [f"Weights in {form}: the likeliest token of the bundled model is that in float32 at {share['all']:.2%} of"
             f" the tokens of test entries, {share['response']:.2%} of those of their responses."
             for form, share in report.get("agreement", {}).items()]  # fmt: skip
    return [*said, *unchecked(report["duels"]), *unmeasured(report)]


def of_side(side: dict, config: GPTConfig, means: dict, limits: dict, name: str) -> list[str]:
    """Speed, utilisation and memory of a contestant, as the table has them."""
    share = utilisation(side, config, means, limits, is_one=name.startswith("decode one"))
    return [f"{side['per_second']:.1f}", "-" if share is None else f"{share:.0%}", gigabytes(side)]


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
    """What this machine has not, and whether it was busy."""
    said = [] if report["machine"]["device"].startswith("cuda") else ["On CUDA: not measured."]
    if report["growth"]:
        said.append(
            "Cost: measured in turns with the first size, 1 where it is linear; beside it, what the needed work of a"
            " token grows by."
        )
        said += [f"Growth to {name}: not measured, as this machine has no room for it." for name in report["no_room"]]
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
    title = f"Times as fast as a peer: {report['model']}, {report['machine']['name']}"
    style(ax, title, "times as fast, by real tokens per second", "")
    ticks = [n for n in (1, 2, 5, 10, 20, 50) if n <= 2 * max(result["high"] for result in shown.values())]
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.minorticks_off()
    return name_rows(ax, list(shown))


def plot_growth(report: dict) -> Axes:
    """The cost of a unit by size, both as multiples of the smallest's: a flat line is a linear cost."""
    ax = new_axes(9.0, 5.0)
    for place, (name, results) in enumerate(growths(report["growth"]).items()):
        sizes = [1.0, *(size_of(result["size"]) / size_of(result["first"]) for result in results)]
        costs = [1.0, *(1 / result["ratio"] for result in results)]
        style_of_line = "-" if place < len(COLOURS) else "--"
        ax.plot(sizes, costs, style_of_line, marker="o", color=COLOURS[place % len(COLOURS)], markersize=3.5,
                label=f"{name}: {results[0]['first']} to {results[-1]['size']}")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return style(ax, f"Cost of a token, entry or weight: {report['machine']['name']}", "size, times the smallest",
                 "cost, times the smallest size's")  # fmt: skip


def size_of(name: str) -> float:
    """A number, or the parameters of a model that goes by a name."""
    return n_weights(SIZES[name]) if name in SIZES else float(name)
