"""The commands that clean entries, behind `scripts.curate`: convert, filter, dedup, balance, review, pipeline."""

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tqdm import tqdm

from gpt.curation import balance, dedup, pipeline
from gpt.curation.data_card import N_SHOWN, card_figures, data_card, draw_entries, funnel_table
from gpt.curation.filters import FILTERS, Limits, first_reason, make_filters, repair_encoding
from gpt.curation.personal_data import make_finder, make_personal_filter, make_scrubber
from gpt.curation.pipeline import Row, Selector, Stage, StageReport
from gpt.curation.toxicity import make_classifier_filter, make_toxicity_filter
from gpt.evaluation.chat_client import ChatClient
from gpt.evaluation.plots import save_figure
from gpt.studies.page import html_page
from gpt.text.entries import Entry
from gpt.weights.checkpoint import write_atomically
from scripts.choices import key_from_environment
from scripts.command import add_config_flags, config_from
from scripts.curate_review import add_review, run_review

Parser, Args = argparse.ArgumentParser, argparse.Namespace


# ---- flags ----


def add_files(parser: Parser) -> None:
    parser.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="in any common format")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".json or .jsonl; others beside it")


def add_filter_flags(parser: Parser) -> None:
    names = ", ".join(FILTERS)
    parser.add_argument("--only", metavar="NAMES", help=f"filters with commas between: {names} [all]")
    parser.add_argument("--skip", default="", metavar="NAMES", help="filters that are left out")
    add_config_flags(parser, Limits, list(Limits.__dataclass_fields__))
    parser.add_argument("--toxicity", default="words", metavar="HOW", help="words, detoxify or none [words]")
    parser.add_argument("--toxic-words", type=Path, default=None, metavar="FILE", help="more words, one a line")
    parser.add_argument("--personal", default="scrub", metavar="HOW", help="data: scrub, drop or none [scrub]")
    parser.add_argument("--names", default=None, metavar="MODEL", help="spaCy model: names are personal data, too")


def add_dedup_flags(parser: Parser) -> None:
    parser.add_argument(
        "--threshold",
        type=float,
        default=dedup.THRESHOLD,
        metavar="X",
        help=f"Jaccard similarity from which two are near-duplicates [{dedup.THRESHOLD}]",
    )
    parser.add_argument("--n-gram", type=int, default=dedup.N_GRAM, metavar="N", help=f"characters [{dedup.N_GRAM}]")
    parser.add_argument("--against", type=Path, default=None, metavar="FILE", help="test entries: their duplicates go")


def add_balance_flags(parser: Parser, by: str) -> None:
    parser.add_argument("--by", default=by, metavar="WHAT", help=f"difficulty, kind, cluster or none [{by}]")
    parser.add_argument("--mix", default="3:5:2", metavar="X:Y:Z", help="easy : medium : hard [3:5:2]")
    parser.add_argument("--size", type=int, default=None, metavar="N", help="entries to keep [as many as the mix has]")
    parser.add_argument("--clusters", type=int, default=20, metavar="N", help="of TF-IDF and k-means [20]")
    parser.add_argument("--seed", type=int, default=123, metavar="N", help="of every draw [123]")
    parser.add_argument(
        "--base-url", metavar="URL", help="a server to ask for the kind, such as http://localhost:11434"
    )
    parser.add_argument("--model", metavar="NAME", help="the model on that server")


# ---- stages out of flags ----


def filter_stages(args: Args) -> dict[str, Stage]:
    names = [name.strip() for name in getattr(args, "only", ",".join(FILTERS)).split(",") if name.strip()]
    skipped = {name.strip() for name in args.skip.split(",") if name.strip()}
    make_filters(names=sorted(skipped))  # complains of a name that is not known
    checks = make_filters(config_from(args, Limits), [name for name in names if name not in skipped])
    stages: dict[str, Stage] = {"filter": pipeline.from_filter(lambda entry: first_reason(entry, checks))}
    if choice(args.toxicity, "--toxicity", ["words", "detoxify", "none"]) == "words":
        stages["toxicity"] = pipeline.from_filter(make_toxicity_filter(args.toxic_words))
    elif args.toxicity == "detoxify":
        stages["toxicity"] = pipeline.from_filter(make_classifier_filter())
    if choice(args.personal, "--personal", ["scrub", "drop", "none"]) == "scrub":
        stages["personal data"] = pipeline.from_change(make_scrubber(make_finder(args.names)))
    elif args.personal == "drop":
        stages["personal data"] = pipeline.from_filter(make_personal_filter(make_finder(args.names)))
    return stages


def dedup_stage(args: Args) -> dict[str, Stage]:
    against = readable(args.against) if args.against else ()
    return {"dedup": pipeline.from_memory(dedup.make_dedup(args.threshold, args.n_gram, against))}


def choice(value: str, flag: str, known: list[str]) -> str:
    if value not in known:
        raise ValueError(f"{flag} {value} is not known: use {', '.join(known)}")
    return value


def readable(path: Path) -> Iterable[Entry]:
    """The entries of a file. A row that is none has to be mended first: nothing would be compared with it."""
    for row in pipeline.read_rows(path):
        if row.entry is None:
            raise ValueError(f"{row.where}: {row.reason}: mend it, or leave it out with scripts.curate convert")
        yield row.entry


def selector(args: Args) -> Selector | None:
    if choice(args.by, "--by", ["difficulty", "kind", "cluster", "none"]) == "none":
        return None

    def select(entries: Iterable[Entry]) -> list[str | None]:
        if args.by == "difficulty":
            labels = [balance.difficulty(entry) for entry in entries]
            quotas = balance.mix_quotas(Counter(labels), parse_mix(args.mix), args.size)
        else:
            labels = kind_labels(args, entries) if args.by == "kind" else cluster_labels(args, entries)
            quotas = balance.even_caps(labels, len(labels) if args.size is None else args.size)
        return balance.within_quotas(labels, quotas, args.seed)

    return select


def parse_mix(text: str) -> dict[str, float]:
    try:
        easy, medium, hard = (float(part) for part in text.split(":"))
        if min(easy, medium, hard) < 0 or easy + medium + hard <= 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"--mix {text} is no mix: give three numbers such as 3:5:2 (easy : medium : hard)") from None
    return dict(zip(balance.LEVELS, (easy, medium, hard), strict=True))


def kind_labels(args: Args, entries: Iterable[Entry]) -> list[str]:
    """By rules, or by a model; what the model does not say the rules do."""
    if "base_url" not in args:
        return [balance.kind_of(entry) for entry in entries]
    client = ChatClient(args.base_url, getattr(args, "model", ""), key=key_from_environment(args.base_url, None))
    client.check()
    return [balance.ask_kind(entry, client.ask) or balance.kind_of(entry) for entry in tqdm(entries, "kinds")]


def cluster_labels(args: Args, entries: Iterable[Entry]) -> list[str]:
    labels, names = balance.clusters(list(entries), args.clusters, args.seed)
    return [names[label] for label in labels]


# ---- commands ----


def clean(args: Args, stages: dict[str, Stage], select: Selector | None = None) -> list[StageReport]:
    """Run the stages, show the table, say where everything lies."""

    def bar(rows: Iterable[Row]) -> Iterable[Row]:
        return tqdm(rows, "entries", unit="entry", dynamic_ncols=True, mininterval=1)

    reports = pipeline.clean_file(args.source, args.out, stages, select, bar)
    n_dropped = sum(report.n_dropped for report in reports)
    print(funnel_table(reports))
    beside = pipeline.dropped_path(args.out)
    print(f"{reports[-1].n_out:,} entries in {args.out}, {n_dropped:,} dropped ones in {beside}")
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
    made = args.out.with_name(f"{args.out.stem}.documents.jsonl")
    _, add_flags, run = curate_make.COMMANDS["documents"]
    parser = Parser(argument_default=argparse.SUPPRESS)
    add_flags(parser)
    flags = ["--in", str(args.source), "--out", str(made), "--base-url", args.base_url, "--model", args.model]
    args.source = made
    return run(parser.parse_args(flags))


def write_card(out: Path, source: str, reports: list[StageReport], settings: dict[str, object]) -> Path:
    """card.md, card.html and the pictures, in a folder beside --out."""
    folder = out.with_suffix(".card")
    folder.mkdir(exist_ok=True)
    entries, _ = draw_entries((row.entry for row in pipeline.read_rows(out)), N_SHOWN)
    figures = card_figures(entries, reports) if entries else {}
    for name, ax in figures.items():
        write_atomically(folder / name, lambda part, ax=ax: save_figure(ax, part))
    page = data_card(out.name, source, reports, entries, settings, list(figures))
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
