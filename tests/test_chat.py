"""The terminal chat: in-process with lines that a list holds, and once through a real pseudo-terminal."""

import contextlib
import io
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpt.model.generate import GREEDY, Response, respond
from gpt.text.tokenizer import load_tokenizer
from gpt.weights.checkpoint import load_model
from scripts import respond as respond_script
from scripts.chat import Chat, ChatSampling, changed

CTRL_C = object()


class Keyboard(io.StringIO):
    """A stdin with these lines; CTRL_C among them is Ctrl-C pressed at the prompt."""

    def __init__(self, *lines: object, is_terminal: bool = True) -> None:
        super().__init__()
        self.lines, self.is_terminal = iter(lines), is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def readline(self, *_: object) -> str:
        line = next(self.lines, None)
        if line is CTRL_C:
            raise KeyboardInterrupt
        return "" if line is None else f"{line}\n"  # "" is the end of the file


class Echo:
    """Stands for the model: answers with the instruction in capitals, character by character, and keeps what it got."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict, dict]] = []

    def __call__(self, entry: dict, **options: object) -> Iterator[Response]:
        self.asked.append((entry, options))
        text = entry["instruction"].upper()
        for n in range(1, len(text) + 1):
            if text[:n] == "INTERRUPT":
                raise KeyboardInterrupt
            yield Response(text[:n], None, n, 0, 0)
        yield Response(text, "end_of_text", len(text), 0, 0)


def chat(monkeypatch: pytest.MonkeyPatch, *lines: object, is_terminal: bool = True) -> Echo:
    monkeypatch.setattr(sys, "stdin", Keyboard(*lines, is_terminal=is_terminal))
    echo = Echo()
    Chat(echo, ChatSampling()).run("A model.")
    return echo


def test_every_line_is_a_fresh_prompt_and_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    echo = chat(monkeypatch, "Say one.", "", "  Say two. ", "/quit", "Never asked.")
    assert [entry["instruction"] for entry, _ in echo.asked] == ["Say one.", "Say two."]
    assert all(entry["input"] == "" for entry, _ in echo.asked)
    out, err = capsys.readouterr()
    assert out == "> SAY ONE.\n\n> > SAY TWO.\n\n> "
    assert err == "(A model. Each line is a fresh prompt. /help shows the commands, /quit leaves)\n"


def test_a_model_of_conversations_gets_the_history_until_it_is_to_forget_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked = []

    def echo(entry: dict, history: list, **options: object) -> Iterator[Response]:
        asked.append([(said["instruction"], said["input"], said["output"]) for said in history])
        if entry["instruction"] == "Interrupt.":
            raise KeyboardInterrupt
        yield Response(entry["instruction"].upper(), "end_of_text", 1, 0, 0, n_earlier=min(1, len(history)))

    lines = ["One.", "/input a lamp", "Two.", "Interrupt.", "Three.", "/new", "Four.", "/help"]
    monkeypatch.setattr(sys, "stdin", Keyboard(*lines))
    Chat(echo, ChatSampling(), turns=True).run("A model.")
    one, two = ("One.", "", "ONE."), ("Two.", "a lamp", "TWO.")
    assert asked == [[], [one], [one, two], [one, two], []]  # an answer that was interrupted is not remembered
    out, err = capsys.readouterr()
    assert err.count("(the context had room for the last 1 of 2 earlier answers)") == 1
    assert "the model sees the earlier ones too" in out
    assert "/new" in out
    chat(monkeypatch, "/new", "/help")  # nothing to forget where nothing is remembered
    out, err = capsys.readouterr()
    assert "/new is no command" in err
    assert "/new" not in out


def test_input_goes_to_the_next_instruction_and_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["/input a lamp", "Describe it.", "/input", "first line", "  second", "", "Repeat it.", "Anything else?"]
    asked = chat(monkeypatch, *lines).asked
    assert [entry["input"] for entry, _ in asked] == ["a lamp", "first line\n  second", ""]


def test_an_empty_input_takes_the_last_one_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked = chat(monkeypatch, "/input a lamp", "/input", "", "Go.").asked
    assert asked[0][0]["input"] == ""
    assert "(no input)" in capsys.readouterr().err


def test_sampling_is_set_and_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    asked = chat(
        monkeypatch, "/sampling", "/sampling temperature=0.7 top_k=40 top_p=0.9 seed=1 max_new_tokens=100", "Go.",
        "/sampling top_k=none", "Go.",
    ).asked  # fmt: skip
    out = capsys.readouterr().out
    assert "temperature=0.0 top_k=none top_p=none seed=123 max_new_tokens=256\n" in out
    assert "temperature=0.7 top_k=40 top_p=0.9 seed=1 max_new_tokens=100\n" in out
    first, second = (options for _, options in asked)
    assert first == {"sampling": ChatSampling(0.7, 40, 0.9, 1, 100), "max_new_tokens": 100}
    assert second == {"sampling": ChatSampling(0.7, None, 0.9, 1, 100), "max_new_tokens": 100}


WRONG = {
    "top_k=x": "top_k=x: top_k takes a whole number",
    "top_k=2.5": "top_k=2.5: top_k takes a whole number",
    "temperature=hot": "temperature=hot: temperature takes a number",
    "temperature=none": "temperature takes a number",
    "temperature=nan": "temperature nan",
    "temperature=-1": "temperature -1.0",
    "top_p=2": "top_p 2.0 is no probability",
    "seed=": "seed takes a whole number",
    "seed=-1": "seed -1 is out of range",
    "max_new_tokens=0": "max_new_tokens 0 leaves nothing",
    "length=5": "length is no setting: use temperature, top_k, top_p, seed, max_new_tokens",
    "top_k": "top_k takes a whole number",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_value_gives_one_line_and_changes_nothing(
    wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    [(_, options)] = chat(monkeypatch, f"/sampling seed=5 {wrong} top_k=7", "Go.").asked
    assert options["sampling"] == ChatSampling()
    notes = capsys.readouterr().err.splitlines()[1:]
    assert len(notes) == 1
    assert notes[0].startswith("(nothing changed: ")
    assert WRONG[wrong] in notes[0]
    with pytest.raises(ValueError):
        changed(ChatSampling(), [wrong])


def test_help_names_every_command_and_an_unknown_one_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert not chat(monkeypatch, "/help", "/halp me").asked
    out, err = capsys.readouterr()
    for command in ("/input", "/sampling", "/quit", "Ctrl-D", "Ctrl-C"):
        assert command in out
    assert "(/halp is no command: /help shows them)" in err


def test_ctrl_c_stops_the_answer_and_at_the_prompt_says_how_to_leave(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    echo = chat(monkeypatch, "Interrupt me.", CTRL_C, "/input", "half an", CTRL_C, "Go on.")
    assert [(e["instruction"], e["input"]) for e, _ in echo.asked] == [("Interrupt me.", ""), ("Go on.", "")]
    out, err = capsys.readouterr()
    assert "INTERRUP\n" in out  # all that was there until then
    assert "GO ON.\n" in out
    assert err.count("(/quit or Ctrl-D leaves)") == 3


def test_ctrl_c_ends_a_chat_that_reads_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        chat(monkeypatch, "Interrupt me.", "Never asked.", is_terminal=False)


def test_an_input_that_ends_with_the_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat(monkeypatch, "Go.", "/input", "a", is_terminal=False).asked


def test_an_input_that_the_context_cuts_is_said(capsys: pytest.CaptureFixture) -> None:
    for n_words, is_said in ((9, False), (2000, True)):
        argv = ["gpt2-tiny", "Copy the input.", "--input", "word " * n_words, "--max-new-tokens", "2"]
        assert respond_script.main([*argv, "--device", "cpu"]) == 0
        assert ("the end of its input was left out" in capsys.readouterr().err) is is_said


def test_lines_from_a_pipe_give_the_answers_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines = ["Name three colors.", "/input lamp", "Write the word in capital letters."]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert respond_script.main(["gpt2-tiny", "--interactive", "--max-new-tokens", "9", "--device", "cpu"]) == 0
    entries = [
        {"instruction": lines[0], "input": "", "output": ""},
        {"instruction": lines[2], "input": "lamp", "output": ""},
    ]
    answers = respond(load_model("gpt2-tiny"), load_tokenizer(), entries, max_new_tokens=9, sampling=GREEDY)
    out, err = capsys.readouterr()
    assert out == "".join(f"{answer.text}\n\n" for answer in answers)
    assert "gpt2-tiny, template alpaca. Each line is a fresh prompt." in err


# A child that takes the pseudo-terminal for its own, so that Ctrl-C in it is a signal, and runs the script.
IN_TERMINAL = """
import fcntl, runpy, signal, sys, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it, or block it
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("scripts.respond", run_name="__main__")
"""


class NotSeen(AssertionError):
    pass


class Terminal:
    """The other end of a pseudo-terminal: types, and waits for what should be seen."""

    def __init__(self, fd: int) -> None:
        self.fd, self.seen = fd, ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, pattern: str, seconds: float = 90) -> None:
        """Read until the pattern is seen; what stands up to its end counts as read."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            if time.monotonic() > end:
                raise NotSeen(f"{pattern!r} was not seen, but {self.seen!r}")
            if select.select([self.fd], [], [], 0.5)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = self.seen[found.end() :]

    def press_ctrl_c(self) -> None:
        """As a person does: once more where nothing happens. Python's input() overlooks the one that comes between its
        prompt and its waiting, until the next key."""
        for _ in range(12):
            self.type("\x03")
            with contextlib.suppress(NotSeen):
                return self.wait_for(r"/quit or Ctrl-D leaves\)\s+> ", 10)
        raise NotSeen("Ctrl-C does nothing")


@pytest.mark.long
def test_a_chat_in_a_terminal() -> None:
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    ours, theirs = pty.openpty()
    flags = ["gpt2-tiny", "--interactive", "--device", "cpu", "--past-context", "slide", "--temperature", "1.5"]
    child = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *flags, "--max-new-tokens", "100000"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=Path(__file__).parents[1],
        env=os.environ | {"TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    terminal = Terminal(ours)
    try:
        terminal.wait_for(r"Each line is a fresh prompt.*\n> ")
        terminal.press_ctrl_c()
        terminal.type("Write a long story.\n")
        terminal.wait_for(r"Write a long story\.\r\n[^>]{20}")  # an answer that would go on for minutes
        terminal.press_ctrl_c()
        terminal.type("/sampling max_new_tokens=3 temperature=0\n")
        terminal.wait_for(r"temperature=0\.0 .* max_new_tokens=3\r\n> ")
        terminal.type("/input\n")
        terminal.wait_for(r"\| ")
        terminal.type("a lamp\n\n")
        terminal.wait_for(r"an input of 6 characters\)\s+> ")
        terminal.type("Name it.\n")
        terminal.wait_for(r"Name it\.\r\n[^>]*> ")
        terminal.type("\x04")  # Ctrl-D
        assert child.wait(60) == 0
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        os.close(ours)
