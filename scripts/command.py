"""What the scripts share: flags made from the fields of a dataclass, and errors as one line."""

import argparse
import dataclasses
import difflib
import functools
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import torch

from gpt.training.train import TrainingError

matplotlib.use("Agg")  # pictures go to files: no window, no display needed
Config = typing.TypeVar("Config")


def one_line_errors(main: Callable[[Sequence[str] | None], int]) -> Callable[[Sequence[str] | None], int]:
    """What the user can mend is one line on stderr and exit code 2; a bug keeps its traceback."""

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        try:
            return main(argv)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: | head
            return 0
        except torch.OutOfMemoryError:
            print("error: out of memory: use a smaller --micro-batch (the step stays the same), or a smaller model or"
                  " --max-length", file=sys.stderr)  # fmt: skip
            return 2
        except (ValueError, OSError, TrainingError) as error:
            text = f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else str(error)
            if isinstance(error, FileNotFoundError) and error.filename:
                text += nearest_file(Path(error.filename))
            print(f"error: {' '.join(text.split())}", file=sys.stderr)
            return 2

    return guarded


def nearest_file(path: Path) -> str:
    """A suggestion, where the folder of a file that is not there has one with nearly its name."""
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, 1)
    return f"; did you mean {path.with_name(near[0])}?" if near else ""


class Help(argparse.HelpFormatter):
    """A switch and its opposite as one: --[no-]drop-last."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return action.option_strings[0].replace("--", "--[no-]", 1)
        return super()._format_action_invocation(action)


class Parser(argparse.ArgumentParser):
    """Errors are one line, and a flag or choice that is not known gets the nearest one suggested."""

    def error(self, message: str) -> typing.NoReturn:
        wrong, known = [], []
        if message.startswith("unrecognized arguments"):
            wrong = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
            known = list(self._option_string_actions)
        elif choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            wrong, known = [choice[1]], re.findall(r"[\w.-]+", choice[2])
        near = [difflib.get_close_matches(word, known, 1) for word in wrong]
        message += "".join(f"; did you mean {found[0]}?" for found in near if found)
        self.exit(2, f"error: {message} (--help shows what there is)\n")


def make_parser(doc: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring, without flags that nobody gave in its result."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = f"python -m {spec.name}" if spec else None
    return Parser(
        program, description=doc, argument_default=argparse.SUPPRESS, allow_abbrev=False, formatter_class=Help
    )


def add_config_flags(
    parser: argparse.ArgumentParser, config: type, names: Sequence[str], tiny: dict[str, object] | None = None
) -> None:
    """A flag for each named field of a dataclass: its default and its comment are written there and nowhere else.
    `tiny` are the defaults of gpt2-tiny where it has others."""
    comments = field_comments(config)
    for field in dataclasses.fields(config):
        if field.name in names:
            flag = "--" + field.name.replace("_", "-")
            other = f"; gpt2-tiny {tiny[field.name]}" if field.name in (tiny or {}) else ""
            shown = f"{comments[field.name]} [{field.default}{other}]"
            if isinstance(field.default, bool):
                parser.add_argument(flag, action="store_true", help=shown)
            else:
                kind = next(iter(typing.get_args(field.type)), field.type)  # int of `int | None`
                parser.add_argument(flag, type=kind, metavar="X", help=shown)


def field_comments(config: type) -> dict[str, str]:
    """The comment behind each field, read from the source."""
    source = Path(sys.modules[config.__module__].__file__).read_text(encoding="utf-8")
    body = source[source.index(f"class {config.__name__}") :]
    return {
        field.name: re.search(rf"^    {field.name}:.*?# (.*)$", body, re.MULTILINE)[1].replace("%", "%%")
        for field in dataclasses.fields(config)
    }


def config_from(args: argparse.Namespace, config: type[Config], **defaults: object) -> Config:
    """The dataclass with the flags that were given, over the defaults of this call, over its own."""
    names = {field.name for field in dataclasses.fields(config)}
    return config(**(defaults | {name: value for name, value in vars(args).items() if name in names}))
