"""The chat of `python -m scripts.respond RUN --interactive`: lines in, answers out as they are made.

Answers and what a command shows go to stdout, notes to stderr, so that lines from a pipe give a file of answers.
"""

import contextlib
import dataclasses
import sys
import typing
from collections.abc import Callable, Iterator, Sequence

from gpt.model.generate import Response, Sampling
from gpt.text.entries import Entry

# What a line is, for a run that was trained on single answers and for one that was trained on conversations.
FRESH = "a line       an instruction; each is a fresh prompt: the model sees nothing of earlier lines\n"
TURNS = """\
a line       an instruction; the model sees the earlier ones too, with its answers
/new         forget them and begin anew
"""
COMMANDS = """\
/input TEXT  the input for the next instruction; without TEXT: the lines that follow, up to an empty one
/sampling    show how tokens are chosen; set with temperature=0.7 top_k=40 top_p=0.9 seed=1 max_new_tokens=100
             (temperature=0 takes the likeliest token, top_k=none all of them; the same seed gives the same answer)
/quit        leave, as Ctrl-D does; Ctrl-C stops an answer"""


@dataclasses.dataclass(frozen=True)
class ChatSampling(Sampling):
    """What /sampling shows and sets."""

    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {self.max_new_tokens} leaves nothing to generate: use 1 or more")


def changed(sampling: ChatSampling, changes: Sequence[str]) -> ChatSampling:
    """The sampling after changes such as "top_k=40". Raises ValueError if one of them is wrong."""
    fields = {field.name: field for field in dataclasses.fields(sampling)}
    values = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in fields:
            raise ValueError(f"{name} is no setting: use {', '.join(fields)}")
        kind = next(iter(typing.get_args(fields[name].type)), fields[name].type)  # int of `int | None`
        try:
            values[name] = None if text == "none" and fields[name].default is None else kind(text)
        except ValueError:
            raise ValueError(f"{change}: {name} takes a {'whole ' * (kind is int)}number") from None
    return dataclasses.replace(sampling, **values)


def note(text: str) -> None:
    print(f"({text})", file=sys.stderr, flush=True)


def note_remarks(response: Response, n_shots: int) -> None:
    """What a reader should know of a finished response beside its text; n_shots examples were wanted."""
    if response.n_shots < n_shots:
        note(f"{response.n_shots} of {n_shots} examples fit the context")
    if response.is_cut:
        note("the prompt did not fit the context: the end of its input was left out")
    if n := response.n_slides:
        note(f"the context was full {n} time{'s' * (n > 1)}: its older half was dropped, the instruction first")
    if response.stopped_by in ("max_new_tokens", "context"):
        note(f"cut: {response.stopped_by} after {response.n_tokens} tokens")


@dataclasses.dataclass
class Chat:
    """What stays from line to line."""

    stream: Callable[..., Iterator[Response]]  # `stream_response`, all given but the entry and what /sampling sets
    sampling: ChatSampling
    n_shots: int = 0  # examples before each prompt
    turns: bool = False  # the model was trained on conversations: `stream_turn`, which takes the history too
    input: str = ""  # for the next instruction
    history: list[Entry] = dataclasses.field(default_factory=list)  # earlier instructions with the answers to them

    def run(self, title: str) -> None:
        """Read lines until /quit or the end of stdin."""
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # Windows has none
                import readline  # noqa: F401  # gives input() arrow keys and a history
        rule = "Earlier lines belong to the prompt, /new forgets them" if self.turns else "Each line is a fresh prompt"
        note(f"{title} {rule}. /help shows the commands, /quit leaves")
        while True:
            try:
                line = read_line("> ").strip()
                if line == "/quit":
                    return
                if line:
                    self.take(line)
            except EOFError:
                if sys.stdin.isatty():
                    print()  # Ctrl-D leaves the cursor behind the prompt
                return
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise  # nobody sits there to type /quit
                print()
                note("/quit or Ctrl-D leaves")

    def take(self, line: str) -> None:
        """One line: a command or an instruction."""
        command, _, rest = line.partition(" ")
        if command == "/help":
            print((TURNS if self.turns else FRESH) + COMMANDS)
        elif command == "/new" and self.turns:
            self.history.clear()
            note("the model sees nothing of what was said so far")
        elif command == "/input":
            self.input = rest.strip() or read_block()
            note(f"the next instruction gets an input of {len(self.input)} characters" if self.input else "no input")
        elif command == "/sampling":
            try:
                self.sampling = changed(self.sampling, rest.split())
                shown = {name: "none" if value is None else value for name, value in vars(self.sampling).items()}
                print(*(f"{name}={value}" for name, value in shown.items()))
            except ValueError as error:
                note(f"nothing changed: {error}")
        elif command.startswith("/"):
            note(f"{command} is no command: /help shows them")
        else:
            entry = {"instruction": line, "input": self.input, "output": ""}
            self.input = ""
            self.answer(entry)

    def answer(self, entry: Entry) -> None:
        """Print the response as it grows; of one that is interrupted nothing is remembered."""
        shown, options = "", {"history": self.history} if self.turns else {}
        options |= {"sampling": self.sampling, "max_new_tokens": self.sampling.max_new_tokens}
        for response in self.stream(entry, **options):
            print(response.text[len(shown) :], end="", flush=True)
            shown = response.text
        print("\n", flush=True)
        note_remarks(response, self.n_shots)
        if self.turns:
            if response.n_earlier < len(self.history):
                note(f"the context had room for the last {response.n_earlier} of {len(self.history)} earlier answers")
            self.history.append(entry | {"output": shown})


def read_line(prompt: str) -> str:
    """A line of stdin, with a prompt if somebody sits there. Raises EOFError at the end."""
    return input(prompt if sys.stdin.isatty() else "")


def read_block() -> str:
    """Lines up to an empty one or the end of stdin."""
    lines = []
    with contextlib.suppress(EOFError):  # the lines so far count; the next read finds the end again
        while line := read_line("| ").rstrip():
            lines.append(line)
    return "\n".join(lines)
