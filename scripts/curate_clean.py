"""The commands that clean entries, behind `scripts.curate`: convert, filter, dedup, balance, review, pipeline."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from gpt.curation import dedup, pipeline
from gpt.curation.data_card import N_SHOWN, card_figures, data_card, draw_entries, funnel_table
from gpt.curation.filters import repair_encoding
from gpt.curation.pipeline import Row, Selector, Stage, StageReport
from gpt.evaluation.plots import save_figure
from gpt.studies.page import html_page
from gpt.text.entries import Entry
from gpt.weights.checkpoint import write_atomically
from scripts.curate_review import add_review, run_review
from scripts.curate_stages import (
    add_balance_flags,
    add_dedup_flags,
    add_filter_flags,
    dedup_stage,
    filter_stages,
    readable,
    selector,
)

Parser, Args = argparse.ArgumentParser, argparse.Namespace


def add_files(parser: Parser) -> None:
    parser.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="in any common format")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".json or .jsonl; others beside it")


def clean(args: Args, stages: dict[str, Stage], select: Selector | None = None) -> list[StageReport]:
    """Run the stages, show the table, say where everything lies."""

    def bar(rows: Iterable[Row]) -> Iterable[Row]:
        return tqdm(rows, "entries", unit="entry", dynamic_ncols=True, mininterval=1)

    for path in filter(None, (getattr(args, name, None) for name in ("against", "toxic_words"))):
        pipeline.check_apart(args.out, path)
        pipeline.check_apart(pipeline.dropped_path(args.out), path)
    reports = pipeline.clean_file(args.source, args.out, stages, select, bar)
    n_dropped = sum(report.n_dropped for report in reports)
    if words := pipeline.conversion_words(reports[0]):
        print(f"note       {words}")
    print(funnel_table(reports))
    dropped = pipeline.dropped_path(args.out)
    print(f"{reports[-1].n_out:,} entries in {args.out}, {n_dropped:,} dropped ones in {dropped}")
    return reports


def add_convert(parser: Parser) -> None:
    add_files(parser)


def run_convert(args: Args) -> int:
    clean(args, {})
    return 0


def add_filter(parser: Parser) -> None:
    add_files(parser)
    parser.add_argument("--repair", action="store_true", help="mend text that was read in the wrong encoding")
    add_filter_flags(parser)


def run_filter(args: Args) -> int:
    repair = {"repair": pipeline.from_change(repair_encoding)} if "repair" in args else {}
    clean(args, repair | filter_stages(args))
    return 0


def add_dedup(parser: Parser) -> None:
    add_files(parser)
    add_dedup_flags(parser)
    parser.add_argument(
        "--order",
        default="first",
        metavar="X",
        help="which of a group stays: first, longest, shortest, or a field: its highest [first]",
    )


def run_dedup(args: Args) -> int:
    if args.order == "first":
        clean(args, dedup_stage(args))
        return 0
    against = list(readable(args.against)) if args.against else ()

    def select(entries: Iterable[Entry]) -> list[str | None]:
        return dedup.deduplicate(list(entries), args.threshold, size=args.n_gram, against=against, order=args.order)

    clean(args, {}, select)
    return 0


def add_balance(parser: Parser) -> None:
    add_files(parser)
    add_balance_flags(parser, "difficulty")


def run_balance(args: Args) -> int:
    clean(args, {}, selector(args))
    return 0


def add_pipeline(parser: Parser) -> None:
    parser.add_argument(
        "--in",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE",
        help="in any common format; or a folder of text, with --base-url and --model",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".json or .jsonl; others beside it")
    parser.add_argument("--no-repair", action="store_true", help="leave text that was read in a wrong encoding")
    add_filter_flags(parser)
    add_dedup_flags(parser)
    add_balance_flags(parser, "none")
    parser.add_argument("--no-card", action="store_true", help="no data card with pictures")


def run_pipeline(args: Args) -> int:
    asked = {name: value for name, value in vars(args).items() if name != "run"}
    if args.source.is_dir() and (code := entries_of_texts(args)):
        return code
    repair = {} if "no_repair" in args else {"repair": pipeline.from_change(repair_encoding)}
    reports = clean(args, repair | filter_stages(args) | dedup_stage(args), selector(args))
    if "no_card" not in args:
        print(f"the data card: {write_card(args.out, str(asked['source']), reports, asked)}")
    return 0


def entries_of_texts(args: Args) -> int:
    """Let a teacher write entries about the folder's texts, and go on with these."""
    from scripts import curate_make

    if "base_url" not in args or "model" not in args:
        raise ValueError(f"{args.source} is a folder of text: name its teacher with --base-url and --model")
    made = pipeline.beside(args.out, ".documents.jsonl")
    _, add_flags, run = curate_make.COMMANDS["documents"]
    parser = Parser(argument_default=argparse.SUPPRESS)
    add_flags(parser)
    flags = ["--in", str(args.source), "--out", str(made), "--base-url", args.base_url, "--model", args.model]
    args.source = made
    return run(parser.parse_args(flags))


def write_card(out: Path, source: str, reports: list[StageReport], settings: dict[str, object]) -> Path:
    """card.md, card.html and the pictures, in a folder beside --out."""
    folder = pipeline.beside(out, ".card")
    folder.mkdir(exist_ok=True)
    entries, _ = draw_entries((row.entry for row in pipeline.read_rows(out)), N_SHOWN)
    figures = card_figures(entries, reports)
    for name, ax in figures.items():
        write_atomically(folder / name, lambda part, ax=ax: save_figure(ax, part))
    page = pipeline.writable(data_card(out.name, source, reports, entries, settings, list(figures)))
    html = html_page(page, folder)
    write_atomically(folder / "card.md", lambda part: part.write_text(page, encoding="utf-8"))
    write_atomically(folder / "card.html", lambda part: part.write_text(html, encoding="utf-8"))
    return folder / "card.html"


COMMANDS: dict[str, tuple[str, Callable[[Parser], None], Callable[[Args], int]]] = {
    "convert": ("any common format to entries", add_convert, run_convert),
    "filter": ("drop broken entries by rules, toxic ones, personal data", add_filter, run_filter),
    "dedup": ("drop exact and near duplicates, also of a test set", add_dedup, run_dedup),
    "balance": ("keep a mix of difficulty, kinds or subjects", add_balance, run_balance),
    "review": ("look at a sample in the terminal and keep verdicts", add_review, run_review),
    "pipeline": ("all of it in one go, with a table and a data card", add_pipeline, run_pipeline),
}
