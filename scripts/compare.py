"""For `evaluate --compare`: several models on the test entries of one run.

RUN/comparison/ has comparison.md, comparison.html, comparison.json and the pictures of the latest comparison.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from gpt.evaluation.constraints import check_constraints
from gpt.evaluation.plots import plot_scores, save_figure
from gpt.studies.comparison import compare_models, comparison_page, floor_sentence, verdict
from gpt.studies.figures import plot_paired_differences
from gpt.studies.page import html_page
from gpt.text.entries import Entry, load_entries
from gpt.training.run import load_settings, load_split
from gpt.weights.checkpoint import find_folder, load_model, write_atomically, write_json
from scripts.answers import answer, room_for
from scripts.choices import fetch_model


def compare_run(
    run: Path,
    names: Sequence[str],
    device: torch.device,
    data: Path | None = None,
    out: Path | None = None,
    max_new_tokens: int | None = None,
) -> None:
    """Compare a run with other models, given as names or folders, and write and print what was found."""
    settings, _ = load_settings(run)
    split = load_split(settings)
    test = load_entries(data) if data else split["test"]
    for position, entry in enumerate(test):
        check_constraints(entry.get("constraints", []), f"{data or settings.data}: test entry {position}")
    max_new_tokens = room_for(test) if max_new_tokens is None else max_new_tokens
    models = find_models(run, names)
    templates = dict.fromkeys(models, settings.template)  # of those that are no runs
    for label, folder in models.items():
        if folder != run and (folder / "training.json").exists():
            templates[label] = load_settings(folder)[0].template
            if not data:
                check_same_test(run, split, folder)
    answers = {}
    for label, folder in models.items():
        load = partial(load_model, folder, device)
        answers[label] = answer(folder, test, templates[label], max_new_tokens, load, keep=out or run, label=label)
    comparison = compare_models(test, answers, split["train"])
    out = out or (run / f"on-{data.stem}" if data else run) / "comparison"
    write_comparison(out, comparison, test, answers, (data or Path(settings.data)).name)
    for pair in comparison["pairs"]:
        print(verdict(pair, comparison["n"]).replace("**", ""))
    print(floor_sentence(comparison))
    print(f"all of it: {out / 'comparison.html'}")


def find_models(run: Path, names: Sequence[str]) -> dict[str, Path]:
    """label -> folder, the run first; fetched if need be. Raises ValueError for a model that is named twice.

    A folder is called by its last name alone, unless another model has that name: then all by what was given.
    """
    models, given = {}, [str(run), *names]
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in given]
    for name, label in zip(given, short, strict=True):
        fetch_model(name)
        folder = find_folder(name)
        if any(folder.samefile(other) for other in models.values()):
            raise ValueError(f"{name} is named twice: a model is compared with others")
        models[label if short.count(label) == 1 else name] = run if name == str(run) else folder
    return models


def check_same_test(run: Path, split: dict[str, list[Entry]], other: Path) -> None:
    """Raises ValueError unless another run has the run's test entries: it may have learned them."""
    theirs = load_split(load_settings(other)[0])
    prompts = {name: {(e["instruction"], e["input"]) for e in side} for name, side in theirs.items()}
    ours = {(entry["instruction"], entry["input"]) for entry in split["test"]}
    if prompts["test"] != ours:
        raise ValueError(
            f"{other} has other test entries than {run}, and was trained on {len(ours & prompts['train'])} of its "
            f"{len(ours)}: compare runs of the same --data, --split and --seed, or on a --data FILE new to both"
        )


def write_comparison(out: Path, comparison: dict, test: list[Entry], answers: dict[str, list[dict]], data: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = comparison["models"] | {name: row for name, row in comparison["floors"].items() if name != "reference"}
    pictures = {"scores.png": "ROUGE-L of each model beside the floors"}
    write_atomically(out / "scores.png", lambda part: save_figure(plot_scores(rows), part))
    for i, pair in enumerate(comparison["pairs"]):
        first, second = (comparison["row_scores"][pair[side]] for side in ("first", "second"))
        ax = plot_paired_differences([a - b for a, b in zip(first, second, strict=True)], pair["rouge_l"])
        shown = f"ROUGE-L, {pair['first']} less {pair['second']}"
        ax.set_title(f"{shown}, row by row", loc="left", fontsize=11)
        ax.set_ylabel("difference")
        write_atomically(out / f"difference-{i}.png", lambda part, ax=ax: save_figure(ax, part))
        pictures[f"difference-{i}.png"] = shown
    page = comparison_page(comparison, test, answers, data, pictures)
    write_json(out / "comparison.json", comparison)
    write_atomically(out / "comparison.md", lambda part: part.write_text(page, encoding="utf-8"))
    write_atomically(out / "comparison.html", lambda part: part.write_text(html_page(page, out), encoding="utf-8"))
