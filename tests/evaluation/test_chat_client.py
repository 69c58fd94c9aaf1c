"""The client against a real server on this machine that answers, stalls, cuts, refuses and talks nonsense as told."""

import json
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import requests

from gpt.evaluation.chat_client import ChatClient, ChatError, in_parallel
from scripts.choices import key_from_environment
from tests.judge_server import EMPTY_CHOICES, HTML, Server, cut, hang_up, serving, stall, status

FAST = {"timeout": 0.3, "wait": 0.01}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(lambda prompt: f"reply to {prompt}", ["judge"]) as server:
        yield server


def client(server: Server, **settings: object) -> ChatClient:
    return ChatClient(**({"base_url": server.url, "model": "judge"} | FAST | settings))


# ---- what is sent ----


def test_the_request_is_this_one(server: Server) -> None:
    """Temperature and seed inside an "options" object, where some servers' own protocol has them, would be ignored."""
    assert client(server).ask("How good?") == "reply to How good?"
    golden = {
        "model": "judge",
        "messages": [{"role": "user", "content": "How good?"}],
        "temperature": 0.0,
        "seed": 123,
    }
    assert server.asked == [golden]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers_seen[0]["Content-Type"] == "application/json"
    client(server, max_tokens=7).ask("How good?")
    assert server.asked[1] == golden | {"max_tokens": 7}


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions"])
def test_the_address_may_end_as_people_write_it(server: Server, end: str) -> None:
    assert client(server, base_url=server.url + end).ask("a") == "reply to a"


def test_an_address_with_a_path_is_kept() -> None:
    assert ChatClient("https://host.example/api/v1", "m").url == "https://host.example/api/v1"


@pytest.mark.parametrize("name", ["n_tries", "timeout", "max_tokens"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_settings_with_which_nothing_can_be_asked_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} is {value}: use more than 0"):
        ChatClient("http://localhost:11434", "m", **{name: value})


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://host", "http://", "https://user:secret@host/v1"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(ValueError, match=r"is no address|holds a password") as caught:
        ChatClient(url, "m")
    assert "secret" not in str(caught.value)


def test_the_key_is_sent_and_nothing_else_signs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """requests alone would put the password of ~/.netrc in the key's place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine")
    monkeypatch.setenv("NETRC", str(netrc))
    client(server, key="abc").ask("a")
    client(server).ask("a")
    requests.post(f"{server.url}/v1/chat/completions", json=server.asked[0], timeout=5)
    keys = [headers.get("Authorization", "") for headers in server.headers_seen]
    assert keys[:2] == ["Bearer abc", ""]
    assert keys[2].startswith("Basic ")
    assert "abc" not in repr(client(server, key="abc"))


def test_a_proxy_is_not_asked_for_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert client(server, n_tries=1).ask("a") == "reply to a"
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(server.url, timeout=5)


def test_the_common_key_does_not_travel_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "abc\n")
    assert key_from_environment("https://host.example/v1") == "abc"
    assert key_from_environment("http://localhost:8000") == "abc"
    assert key_from_environment("http://host.example/v1") == ""
    assert key_from_environment("http://host.example/v1", "OPENAI_API_KEY") == "abc"
    with pytest.raises(ValueError, match="OTHER_KEY is not set"):
        key_from_environment("https://host.example", "OTHER_KEY")


# ---- what may pass is tried again ----


@pytest.mark.parametrize(
    "fault",
    [status(500), status(503), status(429), status(408), HTML, EMPTY_CHOICES, cut, hang_up, stall,
     status(200, b"{}"), status(200, b'"text"'), status(200, b'{"choices": [{"message": {"content": 5}}]}'),
     status(200, b'{"choices": null}'), status(200, b"[" * 100_000)],
    ids=["500", "503", "429", "408", "html", "empty", "cut", "reset", "stall", "object", "text", "number", "null",
         "deep"],
)  # fmt: skip
def test_what_may_pass_is_tried_again(server: Server, fault: object) -> None:
    server.faults = [fault]
    assert client(server).ask("a") == "reply to a"
    assert len(server.asked) == 2
    server.faults = [fault] * 2
    with pytest.raises(ChatError, match="2 times in a row"):
        client(server, n_tries=2).ask("a")
    assert len(server.asked) == 4


@pytest.mark.parametrize("code", [400, 401, 404, 422, 302])
def test_what_will_not_pass_is_said_at_once(server: Server, code: int) -> None:
    server.faults = [status(code, b'{"error": "prompt too long"}', Location="/elsewhere")]
    with pytest.raises(ChatError, match=f"answered {code} .*prompt too long"):
        client(server).ask("a")
    assert len(server.asked) == 1


def test_the_wait_doubles(server: Server) -> None:
    server.faults = [status(500)] * 3
    began = time.monotonic()
    client(server, wait=0.1).ask("a")
    assert 0.7 <= time.monotonic() - began < 1.5  # 0.1 + 0.2 + 0.4


def test_a_server_that_asks_to_be_left_alone_is(server: Server) -> None:
    server.faults = [status(429, Retry_After="1")]
    began = time.monotonic()
    client(server).ask("a")
    assert 1.0 <= time.monotonic() - began < 2.0
    server.faults = [status(429, Retry_After=formatdate(time.time() - 60, usegmt=True)), status(429, Retry_After="x")]
    client(server).ask("a")
    assert time.monotonic() - began < 2.5


def test_a_refusal_is_an_empty_reply(server: Server) -> None:
    server.answer = lambda prompt: None
    assert client(server).ask("a") == ""


def test_half_a_character_of_a_reply_becomes_a_question_mark(server: Server) -> None:
    """As a server that cut an emoji sends it: valid JSON, and no text that a file could hold."""
    server.answer = lambda prompt: "So 🙂 \ud83d"
    reply = client(server).ask("a")
    assert reply == "So 🙂 ?" and reply.encode()


def test_once_stopped_nothing_begins_and_nothing_waits(server: Server) -> None:
    asking = client(server, wait=30.0)

    def fail_and_stop(handler: object) -> None:
        asking.stop.set()
        handler.answer(500)

    server.faults = [fail_and_stop]
    began = time.monotonic()
    with pytest.raises(ChatError, match="stopped"):
        asking.ask("a")
    assert time.monotonic() - began < 5
    assert len(server.asked) == 1


# ---- the cache ----


def test_a_reply_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    assert [client(server, cache=tmp_path).ask("a") for _ in range(3)] == ["reply to a"] * 3
    assert len(server.asked) == 1
    [file] = tmp_path.rglob("*.json")
    kept = json.loads(file.read_text())
    assert kept["request"] == server.asked[0]
    assert "Bearer" not in file.read_text()


@pytest.mark.parametrize("other", [{"model": "b"}, {"seed": 5}, {"temperature": 1.0}, {"max_tokens": 3}])
def test_the_cache_is_keyed_on_the_whole_request(server: Server, tmp_path: Path, other: dict) -> None:
    client(server, cache=tmp_path).ask("a")
    client(server, cache=tmp_path).ask("b")
    client(server, cache=tmp_path, **other).ask("a")
    assert len(server.asked) == 3


def test_another_address_is_another_request(server: Server, tmp_path: Path) -> None:
    client(server, cache=tmp_path).ask("a")
    with serving(lambda prompt: "other") as other:
        assert client(other, cache=tmp_path).ask("a") == "other"


def test_a_damaged_cache_is_asked_anew_and_a_failure_is_not_kept(server: Server, tmp_path: Path) -> None:
    server.faults = [status(500)]
    with pytest.raises(ChatError):
        client(server, cache=tmp_path, n_tries=1).ask("a")
    client(server, cache=tmp_path).ask("a")
    [file] = tmp_path.rglob("*.json")
    file.write_text('{"reply"')
    assert client(server, cache=tmp_path).ask("a") == "reply to a"
    assert len(server.asked) == 3


# ---- before the work ----


def test_the_preflight_says_in_one_line_what_to_do(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client(server).check()
    cases = {
        "no server answers at .*refused.*: start one": ChatClient("http://127.0.0.1:1", "judge"),
        "has no model 'other': it offers judge": client(server, model="other"),
    }
    for message, asking in cases.items():
        with pytest.raises(ChatError, match=message) as caught:
            asking.check()
        assert "\n" not in str(caught.value)
    assert server.asked == []


@pytest.mark.parametrize(
    ("code", "body", "message"),
    [(401, b"", "wants a key .*OPENAI_API_KEY"), (403, b"", "wants a key"), (200, b"<html>", "mostly ends in /v1")],
)
def test_the_preflight_knows_a_missing_key_and_another_server(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int, body: bytes, message: str
) -> None:
    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", status(code, body))
    with pytest.raises(ChatError, match=message):
        client(server).check()


def test_the_preflight_lets_servers_pass_that_have_no_list_or_tag_their_names(server: Server) -> None:
    server.models = ["judge:latest"]
    client(server).check()
    server.models = []
    client(server).check()
    server.models = None
    client(server).check()


# ---- several at a time ----


def test_no_more_requests_run_at_a_time_than_there_are_workers(server: Server) -> None:
    def slow(prompt: str) -> str:
        time.sleep(0.03)
        return prompt

    server.answer = slow
    replies = dict(in_parallel(client(server, timeout=5.0).ask, [str(i) for i in range(12)], 3))
    assert replies == {str(i): str(i) for i in range(12)}
    assert server.n_most == 3


def test_a_request_that_failed_for_good_comes_as_its_error_and_a_bug_is_raised(server: Server) -> None:
    server.faults = [status(400)]
    found = dict(in_parallel(client(server).ask, ["a", "b", "c"], 1))
    assert isinstance(found["a"], ChatError)
    assert [found["b"], found["c"]] == ["reply to b", "reply to c"]
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda item: 1 / item, [1, 0], 2))
