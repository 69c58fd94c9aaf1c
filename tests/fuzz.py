"""Look for bytes that break a reader, guided by what each input reaches: python -m tests.fuzz entries verdicts

Needs atheris (pip install -c constraints.txt -e '.[fuzz]'). What breaks is written to FOLDER/crash-..., what reaches
something new to FOLDER/corpus; --keep copies the smallest inputs that reach all of it to tests/fixtures/fuzz, where
`tests/test_fuzz_corpus.py` finds them. The readers and what must hold are in `tests/hostile_readers.py`.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gpt"]):
    from tests import hostile_readers  # noqa: F401 - it imports all of gpt that it needs
from tests.hostile_readers import KEPT, READERS, SECONDS, feed, little_memory

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", metavar="READER", nargs="+", choices=READERS, help=", ".join(READERS))
    parser.add_argument("--minutes", type=float, default=10, metavar="X", help="[10]")
    parser.add_argument("--to", type=Path, default=Path(tempfile.gettempdir()) / "fuzz", metavar="FOLDER")
    parser.add_argument("--keep", action="store_true", help="search no more: keep what reaches something new")
    return parser.parse_args()


def lines_reached(reader: str, data: bytes, folder: Path) -> set[tuple[str, int]]:
    """Of gpt, on the way of an input."""
    reached = set()

    def trace(frame: object, event: str, _: object) -> object:
        if not frame.f_code.co_filename.startswith(str(ROOT / "gpt")):
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        feed(reader, data, folder)
    finally:
        sys.settrace(None)
    return reached


def keep(reader: str, inputs: list[Path], folder: Path, most_bytes: int = 4000) -> None:
    known, total = set(), 0
    (KEPT / reader).mkdir(parents=True, exist_ok=True)
    for path in sorted(inputs, key=lambda path: path.stat().st_size):
        data = path.read_bytes()
        reached = lines_reached(reader, data, folder)
        if reached - known and total + len(data) <= most_bytes:
            known, total = known | reached, total + len(data)
            (KEPT / reader / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    print(f"{reader}: {len(list((KEPT / reader).iterdir()))} inputs, {total:,} bytes, {len(known)} lines of gpt")


def fuzz(reader: str, corpus: Path, seeds: Path, folder: Path, minutes: float) -> None:
    """To the end of the time or the first input that breaks it; it ends the process."""
    flags = [f"-max_total_time={60 * minutes:.0f}", f"-timeout={SECONDS}", "-max_len=20000", "-print_final_stats=1"]
    flags += [f"-artifact_prefix={corpus.parent}/", "-rss_limit_mb=4096", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *flags, str(corpus), str(seeds)], lambda data: feed(reader, data, folder))
    little_memory()
    atheris.Fuzz()


def main() -> None:
    args = parse()
    for reader in args.readers:
        corpus, seeds = args.to / reader / "corpus", args.to / reader / "seeds"
        for made in (corpus, seeds):
            made.mkdir(parents=True, exist_ok=True)
        for n, data in enumerate(READERS[reader][1]()):
            (seeds / str(n)).write_bytes(data)
        folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        if args.keep:
            keep(reader, [*seeds.iterdir(), *corpus.iterdir()], folder)
            continue
        print(f"== {reader}", file=sys.stderr, flush=True)
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            fuzz(reader, corpus, seeds, folder, args.minutes)


if __name__ == "__main__":
    main()
