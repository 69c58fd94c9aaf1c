"""Fixtures that several rooms use, and a network that is shut: only 127.0.0.1 can be reached."""

import socket

import pytest
import torch

from gpt.model.gpt2 import GPT
from gpt.text.tokenizer import Tokenizer, load_tokenizer
from tests.reference import random_model

torch.set_num_threads(1)  # the tensors of the tests are small: threads would wait for each other


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return load_tokenizer()


@pytest.fixture
def model() -> GPT:
    return random_model()
