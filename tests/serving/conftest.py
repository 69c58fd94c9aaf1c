"""A real server, uvicorn on a free port of 127.0.0.1, around a small random model."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests
from fastapi import FastAPI

from gpt.serving.batching import Batch
from gpt.serving.protocol import Served
from gpt.serving.server import listen, make_app, make_server
from gpt.text.tokenizer import Tokenizer
from tests.reference import random_model

Serve = Callable[..., contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of the application while it is served."""
    server = make_server(app)
    with listen("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"


def wait_until(is_true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def load(url: str) -> tuple[int, int]:
    """How many requests are at work and how many wait."""
    found = requests.get(f"{url}/health", timeout=20).json()
    return found["running"], found["waiting"]


class Gate:
    """Holds the model before each pass until it is opened, so that a test decides what happens meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened, self.sizes, step = threading.Event(), [], Batch.step

        def gated(batch: Batch, newcomers: list) -> list:
            assert self.opened.wait(60)
            jobs = step(batch, newcomers)
            self.sizes.append(len(jobs))
            return jobs

        monkeypatch.setattr(Batch, "step", gated)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()


@pytest.fixture
def served(tokenizer: Tokenizer) -> Served:
    return Served(random_model(), tokenizer, "small")


@pytest.fixture
def url(served: Served) -> Iterator[str]:
    with running(make_app(served)) as url:
        yield url
