"""What reads files and replies from strangers, each as a function from bytes: `tests/fuzz.py` looks for bytes that
break one, `tests/test_fuzz_corpus.py` shows it again those that were worth keeping.

    for every input: a value or one of our errors (ValueError, OSError) with a message; soon; with little memory; no
    file opened outside the folder; nothing unpickled
"""

import contextlib
import json
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from gpt.curation.pipeline import read_rows
from gpt.curation.replies import labelled_parts, listed_items, objects_in
from gpt.evaluation.judge import (
    parse_choice,
    parse_score,
    read_verdicts,
    run_questions,
    verdicts_by_sample,
    without_thoughts,
)
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.entries import load_entries, read_entries
from gpt.text.formats import record_to_entries
from gpt.text.tokenizer import load_tokenizer
from gpt.training.run import RunSettings, load_settings, load_state, save_settings, save_state
from gpt.training.train import TrainConfig, make_optimizer, make_scaler
from gpt.tuning.adapter import load_adapter, save_adapter
from gpt.tuning.lora import add_lora
from gpt.weights import tf_checkpoint
from gpt.weights.checkpoint import huggingface_config as config_of
from gpt.weights.checkpoint import load_model, save_weights, write_json

FIXTURES = Path(__file__).parent / "fixtures"
KEPT = FIXTURES / "fuzz"
OURS = (ValueError, OSError)  # EntryError and CheckpointError are ValueErrors
SECONDS = 5
MOST_BYTES = 400 * 2**20  # more memory than was there before the first input; the inputs are of a few KB
CONFIG = GPTConfig(vocab_size=12, context_length=4, n_embd=4, n_layer=1, n_head=2)
ROWS = [{"instruction": "Name a fruit.", "input": "", "output": o, "model_response": r}
        for o, r in (("Fig.", "A fig."), ("Plum.", "No."))]  # fmt: skip
QUESTIONS = run_questions(ROWS, {0: "A pear."}, "0-100", ["overall"], 1)

Read = Callable[[bytes, Path], object]


# ---- one function a reader ----


def tf_index(data: bytes, folder: Path) -> None:
    """Without checksums: whoever writes a hostile file gets them right."""
    (folder / "model.ckpt.index").write_bytes(data)
    shards = folder / "model.ckpt.data-00000-of-00001"
    if not shards.exists():
        shutil.copyfile(FIXTURES / "openai-small" / shards.name, shards)
    check = tf_checkpoint._check_crc
    tf_checkpoint._check_crc = lambda *args: None
    try:
        for _, array in tf_checkpoint.read_tf_tensors(folder / "model.ckpt"):
            assert isinstance(array, np.ndarray)
    finally:
        tf_checkpoint._check_crc = check


def tf_table(data: bytes, folder: Path) -> None:
    """With checksums."""
    (folder / "model.ckpt.index").write_bytes(data)
    tf_checkpoint.read_tf_index(folder / "model.ckpt")


def make_run(folder: Path) -> None:
    """A run folder of the smallest model, once."""
    if (folder / "run" / "training.json").exists():
        return
    torch.manual_seed(0)
    model, run = GPT(CONFIG), folder / "run"
    settings = RunSettings("gpt2", "x.json", "0" * 64, "alpaca", "grouped", TrainConfig())
    save_settings(run, settings, {})
    write_json(run / "config.json", config_of(CONFIG, torch.float32))
    save_weights(model, run / "model.safetensors", torch.float32)
    history = [{"step": 1, "val": None, "loss": 1.0}]
    save_state(run, model, make_optimizer(model, TrainConfig()), make_scaler(model.device, "float32"), history)
    add_lora(model, 2)
    save_adapter(model, run / "adapter")
    for file in sorted(run.rglob("*")):
        if file.is_file():
            file.with_name(file.name + ".whole").write_bytes(file.read_bytes())


def reader_of(name: str, read: Callable[[Path], object]) -> Read:
    """Replaces one file of a run folder, and puts it back."""

    def replaced(data: bytes, folder: Path) -> None:
        make_run(folder)
        path = folder / "run" / name
        path.write_bytes(data)
        try:
            read(folder / "run")
        finally:
            path.write_bytes(path.with_name(path.name + ".whole").read_bytes())

    return replaced


def read_state(run: Path) -> None:
    model = GPT(CONFIG)
    load_state(run, model, make_optimizer(model, TrainConfig()), make_scaler(model.device, "float32"))


def parts_index(data: bytes, folder: Path) -> None:
    make_run(folder)
    parts = folder / "parts"
    parts.mkdir(exist_ok=True)
    shutil.copyfile(folder / "run" / "config.json.whole", parts / "config.json")
    shutil.copyfile(folder / "run" / "model.safetensors.whole", parts / "a.safetensors")
    (parts / "model.safetensors.index.json").write_bytes(data)
    load_model(parts)


def entries(data: bytes, folder: Path) -> None:
    """All ways to read a file of entries; what they give can be written again."""
    names = ("entries.json", "entries.jsonl")
    readers = (load_entries, lambda path: read_entries(path, []), lambda path: [row.entry for row in read_rows(path)])
    for name in names:
        (folder / name).write_bytes(data)
        for read in readers:
            found = None
            with contextlib.suppress(*OURS):
                found = read(folder / name)
            try:
                json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
            except ValueError as error:
                raise Broken(f"gives what cannot be written: {error}") from error


def formats(data: bytes, folder: Path) -> None:
    """Bytes as the shape of a record: names that the formats know, values of all kinds in each other."""
    names = ("instruction input output response context messages conversations role from content value text question "
             "answer options prompt completion replies rank deleted instances system kind").split()  # fmt: skip
    stream = iter(data)

    def value(depth: int) -> object:
        kind = next(stream, 0)
        if kind < 96 and depth < 8:
            return {names[next(stream, 0) % len(names)]: value(depth + 1) for _ in range(kind % 6)}
        if kind < 160 and depth < 8:
            return [value(depth + 1) for _ in range(kind % 4)]
        if kind < 240:
            return ("user", "assistant", "gpt", "system", "", " ", "<noinput>", "Fig.", "\ud800")[kind % 9]
        return (None, True, 0, 10**30, 1e308, -1.5)[kind % 6]

    record = value(0)
    made, counts = record_to_entries(record if isinstance(record, dict) else {"prompt": record, "completion": "a"})
    assert all(isinstance(entry[name], str) for entry in made for name in ("instruction", "input", "output"))
    assert all(isinstance(n, int) for n in counts.values())


def verdicts(data: bytes, folder: Path) -> None:
    """Verdicts of a file, which a report reckons with."""
    path = folder / "verdicts.jsonl"
    path.write_bytes(data)
    known = read_verdicts(path)
    for name in sorted({name for name, _ in known}):
        for (sample, _), by_row in verdicts_by_sample(QUESTIONS, known, name).items():
            for verdict in by_row.values():
                assert all(isinstance(reply, str) for reply in verdict.replies)
                assert verdict.score in (("A", "B", "tie", None) if sample == "pair" else (None, *range(101)))
                assert not isinstance(verdict.score, float | bool)


def replies(data: bytes, folder: Path) -> None:
    """What judges and teachers say."""
    text = data.decode("utf-8", "replace")
    for scale in ("0-100", "1-5"):
        assert parse_score(text, scale) is None or 0 <= parse_score(text, scale) <= 100
    assert parse_choice(text) in (None, "A", "B", "tie")
    without_thoughts(text), objects_in(text), listed_items(text), labelled_parts(text, ("Input", "Output"))


def tokens(data: bytes, folder: Path) -> None:
    text = data.decode("utf-8", "replace")
    assert load_tokenizer().decode(load_tokenizer().encode(text)) == text


# ---- their seeds ----


def run_seed(name: str) -> Callable[[], list[bytes]]:
    def seeds() -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            make_run(Path(folder))
            return [(Path(folder) / "run" / name).read_bytes()]

    return seeds


def files(pattern: str, most: int = 20_000) -> Callable[[], list[bytes]]:
    return lambda: [path.read_bytes()[:most] for path in sorted(FIXTURES.glob(pattern))]


def lines(pattern: str) -> Callable[[], list[bytes]]:
    """The first lines of files, as inputs of their own."""
    return lambda: [line for data in files(pattern)() for line in data.split(b"\n")[:2]]


def verdict_seeds() -> list[bytes]:
    rows = [{"judge": "j", "question": q.digest, "score": "A" if q.form == "pair" else 50, "replies": ["50"]}
            for q in QUESTIONS]  # fmt: skip
    return ["".join(json.dumps(row) + "\n" for row in rows).encode(), json.dumps(rows[0]).encode()]


def texts(*some: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in some]


REPLIES = texts(
    "Score: 85", "85/100", '{"score": 4, "reason": "a"}', "<think>70</think> 3 out of 5", "Winner: [[A]]", "tie",
    '[{"question": "a", "answer": "b"}]', "1. One\n2. Two", "Input: a\nOutput: b", "```json\n{}\n```",
)  # fmt: skip
READERS: dict[str, tuple[Read, Callable[[], list[bytes]]]] = {
    "tf-index": (tf_index, files("*/model.ckpt.index")),
    "tf-table": (tf_table, files("*/model.ckpt.index")),
    "safetensors": (reader_of("model.safetensors", load_model), run_seed("model.safetensors")),
    "config": (reader_of("config.json", load_model), run_seed("config.json")),
    "parts-index": (parts_index, texts('{"weight_map": {"a": "a.safetensors"}}', '{"weight_map": {"a": "../a"}}')),
    "training": (reader_of("training.json", load_settings), run_seed("training.json")),
    "state": (reader_of("last/state.pt", read_state), run_seed("last/state.pt")),
    "adapter": (
        reader_of("adapter/adapter_config.json", lambda run: load_adapter(GPT(CONFIG), run / "adapter")),
        run_seed("adapter/adapter_config.json"),
    ),
    "entries": (entries, lines("formats/*.jsonl")),
    "formats": (formats, texts("abc", "\x05\x00\xf0\x02\xa1", "\x46\x01\x05\x62\x07\xa2\x09\xa3")),
    "verdicts": (verdicts, verdict_seeds),
    "replies": (replies, REPLIES),
    "tokens": (tokens, texts("Name a fruit.", "今天 it's\u0301 12,000 <|endoftext|>  \n\n", " " * 40)),
}


# ---- what must hold ----


class Broken(BaseException):
    """No error of the reader's: something that must hold does not."""


def watch(event: str, arguments: tuple) -> None:
    """Python's own word on every file that is opened and everything that is unpickled."""
    if watched and event == "pickle.find_class":
        raise Broken(f"unpickles {arguments}")
    if watched and event == "open" and isinstance(arguments[0], str | bytes):
        path = Path(arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]).absolute()
        if not any(path.is_relative_to(folder) for folder in (watched[-1], *ITS_OWN)):
            raise Broken(f"opens {path}")


watched: list[Path] = []
ITS_OWN = [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1], Path("/dev"), Path("/proc")]
sys.addaudithook(watch)


@contextlib.contextmanager
def in_time(seconds: int = SECONDS) -> Iterator[None]:
    def late(*args: object) -> None:
        raise Broken(f"takes more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def little_memory() -> None:
    """From here on: what asks for much more gets a MemoryError, which is none of ours."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def feed(name: str, data: bytes, folder: Path) -> None:
    """Give a reader its input; whatever is not allowed is raised."""
    watched.append(folder)
    try:
        READERS[name][0](data, folder)
    except OURS as error:
        if not str(error):
            raise Broken(f"{error!r} says nothing") from error
    finally:
        watched.pop()
