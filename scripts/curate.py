"""Make and clean instruction data: python -m scripts.curate COMMAND --in FILE --out FILE.

Files are JSON or JSON Lines by their ending. What was dropped goes beside --out (.dropped.jsonl), each with its reason.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

from scripts import curate_clean
from scripts.command import make_parser, one_line_errors

Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


def commands(argv: Sequence[str]) -> dict[str, Command]:
    """All of them, or only those that clean where one of these is asked for: making needs more modules."""
    if argv and argv[0] in curate_clean.COMMANDS:
        return curate_clean.COMMANDS
    from scripts import curate_make

    return curate_make.COMMANDS | curate_clean.COMMANDS


@one_line_errors
def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    parser = make_parser(__doc__)
    choices = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (line, add_flags, run) in commands(argv).items():
        command = choices.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".",
                                     argument_default=argparse.SUPPRESS, allow_abbrev=False)  # fmt: skip
        add_flags(command)
        command.set_defaults(run=run)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
