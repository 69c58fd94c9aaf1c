"""A data card: what went into a set, what came out, what each stage dropped and why, and what the set holds."""

import random
from collections import Counter
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

import gpt.evaluation.plots as plots
from gpt.curation.balance import KINDS, LEVELS, clusters, difficulty, kind_of, length_histogram, verb_noun_table
from gpt.curation.filters import shown
from gpt.curation.pipeline import StageReport, conversion_words
from gpt.evaluation.report import quoted, table
from gpt.text.entries import Entry

N_SHOWN = 20_000  # entries that the pictures are made of, at most
N_CLUSTERS = 12
LONGEST = 400  # characters of a field that a sample shows


def draw_entries(entries: Iterable[Entry], n: int = N_SHOWN, seed: int = 123) -> tuple[list[Entry], int]:
    """At most n entries, each with the same chance (reservoir sampling), and how many there were."""
    rng, drawn, total = random.Random(seed), [], 0
    for total, entry in enumerate(entries, start=1):
        if len(drawn) < n:
            drawn.append(entry)
        elif (place := rng.randrange(total)) < n:
            drawn[place] = entry
    return drawn, total


def funnel_table(reports: Sequence[StageReport]) -> str:
    """A row for each stage: in, dropped, changed, out, and the commonest reasons."""
    rows = []
    for report in reports:
        counts = (report.n_in, report.n_dropped, report.n_changed, report.n_out)
        why = ", ".join(f"{reason} {n:,}" for reason, n in report.reasons.most_common(3))
        rows.append([report.name, why or "-", *(f"{n:,}" for n in counts)])
    n_dropped, n_changed = (sum(getattr(report, name) for report in reports) for name in ("n_dropped", "n_changed"))
    rows.append(["all", "", *(f"{n:,}" for n in (reports[0].n_in, n_dropped, n_changed, reports[-1].n_out))])
    return table(["stage", "dropped most often because of", "in", "dropped", "changed", "out"], rows, numbers_from=2)


def card_figures(entries: Sequence[Entry], reports: Sequence[StageReport]) -> dict[str, Axes]:
    """The pictures of a card by file name; of a set without entries, how it came to that."""
    n_read = max(reports[0].n_in, 1)
    left = {f"after {report.name}": 100 * report.n_out / n_read for report in reports}
    figures = {"funnel.png": plots.plot_bars(left, f"Entries left of {n_read:,}", "per cent")}
    if not entries:
        return figures
    kinds = Counter(shown(kind_of(entry), 30).replace("$", r"\$") for entry in entries)  # $ begins a formula
    figures |= {
        "lengths.png": plots.plot_bars(length_histogram(entries), "Length of the outputs", "entries, by words"),
        "kinds.png": plots.plot_bars(dict(kinds.most_common(15)), "Kinds of tasks", "entries"),
    }
    verbs, nouns, counts = verb_noun_table(entries)
    if verbs:
        seen = [[count or None for count in row] for row in counts]
        figures["verbs.png"] = plots.plot_grid(seen, verbs, nouns, "Verb and noun that open an instruction")
    return figures


def cluster_table(entries: Sequence[Entry]) -> str:
    """What the prompts are about: clusters by their telling words."""
    labels, names = clusters(entries, N_CLUSTERS)
    counts = Counter(labels)
    rows = [[names[label], f"{n:,}", f"{n / len(entries):.1%}"] for label, n in counts.most_common()]
    return table(["telling words", "entries", "share"], rows)


def sample_section(report: StageReport) -> list[str]:
    """Some of what a stage dropped, each with its reason."""
    parts = [f"### Dropped by {report.name}"]
    for reason, entry in report.samples:
        fields = [(name, entry.get(name, "")) for name in ("instruction", "input", "output", "record")]
        shown = [f"{name}: {text[:LONGEST]}{'...' if len(text) > LONGEST else ''}" for name, text in fields if text]
        parts += [f"**{' '.join(reason.split())}**", quoted("\n".join(shown))]
    return parts


def data_card(
    name: str,
    source: str,
    reports: Sequence[StageReport],
    entries: Sequence[Entry],
    settings: dict[str, object],
    figures: Sequence[str],
) -> str:
    """The card as Markdown. `entries` are those that are kept, or a sample of them; `figures` the files beside it."""
    n_out, n = reports[-1].n_out, len(entries)
    of = f"all {n:,} entries" if n == n_out else f"a random sample of {n:,} of the {n_out:,} entries"
    dropped = [report for report in reports if report.samples]
    reasons = [[report.name, reason, f"{count:,}"] for report in reports
               for reason, count in report.reasons.most_common()]  # fmt: skip
    parts = [
        f"# {name}",
        f"{reports[0].n_in:,} entries were read from {source}, {n_out:,} are kept. Every one that is not stands in the "
        "dropped file with its reason.",
        *([f"{words[0].upper()}{words[1:]}."] if (words := conversion_words(reports[0])) else []),
        "## What each stage did",
        funnel_table(reports),
        "![How many entries are left after each stage](funnel.png)",
        "## Why entries were dropped",
        table(["stage", "reason", "entries"], reasons, numbers_from=2) if reasons else "None was.",
        *[part for report in dropped for part in sample_section(report)],
    ]
    if entries:
        levels = Counter(map(difficulty, entries))
        kinds = Counter(map(kind_of, entries))
        known = [*KINDS, *sorted(set(kinds) - set(KINDS))]
        parts += [
            "## What the set holds",
            f"Counted on {of}; kind and difficulty are told by rules, so they say where the weight lies and no more.",
            "### How hard they are",
            table(["difficulty", "entries", "share"], [[x, f"{levels[x]:,}", f"{levels[x] / n:.1%}"] for x in LEVELS]),
            "### What they ask for",
            table(
                ["kind", "entries", "share"], [[x, f"{kinds[x]:,}", f"{kinds[x] / n:.1%}"] for x in known if kinds[x]]
            ),
            *[f"![{file.removesuffix('.png')}]({file})" for file in figures if file != "funnel.png"],
            "### What the prompts are about",
            cluster_table(entries),
        ]
    parts += [
        "## Settings",
        table(
            ["setting", "value"],
            [[k.replace("_", " "), str(v)] for k, v in settings.items() if v not in (None, "")],
            numbers_from=2,
        ),
    ]
    return "\n\n".join(parts) + "\n"
