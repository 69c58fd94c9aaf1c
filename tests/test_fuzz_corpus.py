"""What `tests/fuzz.py` found worth keeping, and its seeds, shown to every reader again."""

import json
import tracemalloc
from pathlib import Path

import pytest

from tests import hostile_readers
from tests.hostile_readers import KEPT, READERS, Broken, feed, in_time

MOST_BYTES = 64 * 2**20  # that Python asks for at a time; an input has a few KB


def kept(reader: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((KEPT / reader).iterdir())]


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_every_kept_input_is_a_value_or_our_error(reader: str, tmp_path: Path) -> None:
    inputs = kept(reader) + READERS[reader][1]()
    assert kept(reader)
    tracemalloc.start()
    try:
        for data in inputs:
            with in_time():
                feed(reader, data, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def opens_outside(data: bytes, folder: Path) -> None:
    (folder / ".." / json.loads(data)["name"]).resolve().read_bytes()


def is_late(data: bytes, folder: Path) -> None:
    while True:
        pass


def is_no_error_of_ours(data: bytes, folder: Path) -> None:
    json.loads(data)["none"]


def says_nothing(data: bytes, folder: Path) -> None:
    raise ValueError


def unpickles(data: bytes, folder: Path) -> None:
    import pickle

    pickle.loads(pickle.dumps(Path("a")))


@pytest.mark.parametrize(
    ("read", "error", "words"),
    [
        (opens_outside, Broken, "opens /etc/hostname"),
        (is_late, Broken, "more than 1 s"),
        (is_no_error_of_ours, KeyError, "none"),
        (says_nothing, Broken, "says nothing"),
        (unpickles, Broken, "unpickles"),
    ],
)
def test_a_reader_that_does_what_it_must_not_is_found(
    read: hostile_readers.Read, error: type, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, "bad", (read, list))
    with pytest.raises(error, match=words), in_time(1):
        feed("bad", b'{"name": "/etc/hostname"}', tmp_path)
