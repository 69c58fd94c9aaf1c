"""Fetch weights and public data sets by name: `python -m scripts.download gpt2-medium`.

What has come stays when it is interrupted: the same command goes on from there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from gpt.weights.download import Progress, cache_folder, download
from gpt.weights.sources import HOSTS, OPENAI_NAMES, SOURCES, find_sources
from scripts.command import make_parser, one_line_errors


class Bars:
    """A bar for each file, with bytes, rate and time left; what happens besides goes on lines above it."""

    def __init__(self) -> None:
        self.file, self.bar = "", tqdm(disable=True)

    def show(self, progress: Progress) -> None:
        if progress.file != self.file:
            self.bar.close()
            options = {"initial": progress.n_bytes, "total": progress.size, "unit": "B", "unit_scale": True}
            self.file, self.bar = progress.file, tqdm(desc=progress.file, **options, disable=None)
        if progress.note:
            tqdm.write(f"{progress.file}: {progress.note}", file=sys.stderr)
        self.bar.total = progress.size
        self.bar.update(progress.n_bytes - self.bar.n)


def list_sources() -> str:
    """The table of what can be had, a line for each source."""
    rows = [("name", "size", "licence", "format", "address")]
    for source in SOURCES:
        size = tqdm.format_sizeof(source.size, "B") if source.size else "?"
        rows.append((source.name, size, source.licence, source.format, source.files()[0][1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    models = ", ".join(f"{name} ({size})" for size, name in OPENAI_NAMES.items())
    data = ", ".join(dict.fromkeys(source.name for source in SOURCES if source.name not in OPENAI_NAMES.values()))
    parser = make_parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        f"models: {models}\ndata: {data}\nenvironment: GPT_CACHE for another cache; "
        f"{', '.join(variable for variable, _ in HOSTS.values())} for mirrors of the sources"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model or data set, see below")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"save in FOLDER/NAME, not in {cache_folder()}/NAME")
    parser.add_argument("--source", choices=HOSTS, help="take this source only; otherwise one after the other is tried")
    parser.add_argument("--list", action="store_true", help="print all names with size, licence, format and address")
    args = parser.parse_args(argv, argparse.Namespace(names=[], to=None, source=None, list=False))
    if not args.names and not args.list:
        parser.error("say what to fetch, or --list to see what there is")
    return args


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    if args.list:
        print(list_sources())
        return 0
    for name in args.names:
        find_sources(name, args.source)  # a wrong name is said before anything is fetched
    bars = Bars()
    try:
        for name in args.names:
            path = download(name, args.to, host=args.source, on_progress=bars.show)
            bars.bar.close()
            print(f"{name}: {path}")
    except KeyboardInterrupt:
        bars.bar.close()
        print("stopped; what has come is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    finally:
        bars.bar.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
