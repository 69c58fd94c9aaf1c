"""Flags that say how entries are cleaned, and the stages that come out of them, for `scripts.curate`."""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from gpt.curation import balance, dedup, pipeline
from gpt.curation.filters import FILTERS, Limits, first_reason, make_filters
from gpt.curation.personal_data import make_finder, make_personal_filter, make_scrubber
from gpt.curation.pipeline import Selector, Stage
from gpt.curation.toxicity import make_classifier_filter, make_toxicity_filter
from gpt.evaluation.chat_client import ChatClient, ChatError, in_parallel
from gpt.text.entries import Entry
from gpt.weights.download import cache_folder
from scripts.choices import key_from_environment
from scripts.command import add_config_flags, config_from

Parser, Args = argparse.ArgumentParser, argparse.Namespace
ENOUGH_FAILURES = 10  # requests one after the other: the server is gone

# ---- flags ----


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
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="requests at a time [4]")
    parser.add_argument("--cache", type=Path, default=cache_folder() / "replies", metavar="DIR", help="replies so far")


# ---- stages ----


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


def at_least_one(args: Args, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} {value} is no number of anything: give 1 or more")


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
    at_least_one(args, "size", "clusters", "workers")

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
    """By rules, or by a model; what the model does not say the rules do, and it is printed how often."""
    entries = list(entries)
    if "base_url" not in args:
        return [balance.kind_of(entry) for entry in entries]
    asked = ask_kinds(args, entries)
    if n := len(entries) - len(asked):
        print(
            f"note       {n:,} of {len(entries):,} kinds are told by rules: the model named none, or several, or failed"
        )
    return [asked.get(i) or balance.kind_of(entry) for i, entry in enumerate(entries)]


def ask_kinds(args: Args, entries: list[Entry]) -> dict[int, str]:
    """The kinds that a model names, by the positions of the entries. Stopped, the same command goes on from the cache.

    Raises ChatError where request after request fails: then it is the server, and not the entry.
    """
    key = key_from_environment(args.base_url, None)
    client = ChatClient(args.base_url, getattr(args, "model", ""), key=key, cache=args.cache)
    client.check()
    found, n_failures = {}, 0
    results = in_parallel(lambda i: balance.ask_kind(entries[i], client.ask), range(len(entries)), args.workers)
    try:
        for i, kind in tqdm(results, "kinds", len(entries), unit="entry", dynamic_ncols=True):
            n_failures = n_failures + 1 if isinstance(kind, ChatError) else 0
            if n_failures == ENOUGH_FAILURES:
                raise kind
            if isinstance(kind, str):
                found[i] = kind
    finally:
        client.stop.set()  # what is under way tries no further
    return found


def cluster_labels(args: Args, entries: Iterable[Entry]) -> list[str]:
    labels, names = balance.clusters(list(entries), args.clusters, args.seed)
    return [names[label] for label in labels]
