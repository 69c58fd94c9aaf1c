"""Fetch weights and public data sets by name: `python -m scripts.download gpt2-medium`.

What has come stays when it is interrupted: the same command goes on from there.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from gpt.weights.download import DownloadError, Progress, cache_folder, download
from gpt.weights.sources import HOSTS, OPENAI_NAMES, SOURCES, find_sources


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


def make_parser() -> argparse.ArgumentParser:
    models = ", ".join(f"{name} ({size})" for size, name in OPENAI_NAMES.items())
    data = ", ".join(dict.fromkeys(source.name for source in SOURCES if source.name not in OPENAI_NAMES.values()))
    parser = argparse.ArgumentParser(
        prog="python -m scripts.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"models: {models}\ndata: {data}\nenvironment: GPT_CACHE for another cache; "
        f"{', '.join(variable for variable, _ in HOSTS.values())} for mirrors of the sources",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a model or data set, see below")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help=f"save in FOLDER/NAME, not in {cache_folder()}/NAME")
    parser.add_argument("--source", choices=HOSTS, help="take this source only; otherwise one after the other is tried")
    parser.add_argument("--list", action="store_true", help="print all names with size, licence, format and address")
    return parser


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.list:
        print(list_sources())
        return 0
    if not args.names:
        parser.error("say what to fetch, or --list to see what there is")
    bars = Bars()
    try:
        for name in args.names:
            find_sources(name, args.source)  # a wrong name is said before anything is fetched
        for name in args.names:
            path = download(name, args.to, host=args.source, on_progress=bars.show)
            bars.bar.close()
            print(f"{name}: {path}")
    except (DownloadError, ValueError) as error:
        bars.bar.close()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        bars.bar.close()
        print("stopped; what has come is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
