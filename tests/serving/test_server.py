"""The server over real sockets: OpenAI's protocol, company, limits, and clients that go away."""

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
import requests
from transformers import AutoTokenizer

from gpt.model.generate import Sampling, generate, prompt_room, respond
from gpt.serving.batching import Batch
from gpt.serving.protocol import Served
from gpt.serving.scheduler import Limits
from gpt.serving.server import make_app
from gpt.weights.checkpoint import save_model
from scripts import serve
from tests.serving.conftest import Gate, load, running, wait_until

ENTRY = {"instruction": "Name it.", "input": "a lamp", "output": ""}
USER = [{"role": "user", "content": "Name it."}]


def ask(url: str, path: str = "chat/completions", **body: object) -> requests.Response:
    if path == "chat/completions":
        body = {"messages": USER} | body
    return requests.post(f"{url}/v1/{path}", json=body, timeout=60)


def content(response: requests.Response) -> str:
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def chunks(response: requests.Response) -> list[dict]:
    """The JSON of all events; the last must be [DONE]."""
    *events, done, rest = response.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


# ---- answers ----


def test_an_answer_is_what_respond_gives(url: str, served: Served) -> None:
    [expected] = respond(served.model, served.tokenizer, [ENTRY], max_new_tokens=20)
    reply = ask(url, input=ENTRY["input"], max_tokens=20).json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": expected.text}
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == expected.n_tokens == 20
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + 20
    assert (reply["object"], reply["model"]) == ("chat.completion", "small")
    without = ask(url, max_tokens=20).json()
    assert without["usage"]["prompt_tokens"] < reply["usage"]["prompt_tokens"]  # the input was in the prompt


def test_sampling_is_honoured_and_a_drawn_seed_gives_the_answer_again(url: str, served: Served) -> None:
    sampling = Sampling(1.3, top_k=50, top_p=0.9, seed=77)
    [expected] = respond(served.model, served.tokenizer, [ENTRY], max_new_tokens=20, sampling=sampling)
    settings = {"temperature": 1.3, "top_k": 50, "top_p": 0.9, "input": ENTRY["input"], "max_tokens": 20}
    assert content(ask(url, **settings, seed=77)) == expected.text
    first, second = ask(url, **settings), ask(url, **settings)
    assert content(first) != content(second)
    assert content(ask(url, **settings, seed=first.json()["seed"])) == content(first)


def test_a_stream_is_the_same_answer_in_pieces(url: str) -> None:
    settings = {"temperature": 1.5, "seed": 3, "max_tokens": 25}
    whole = ask(url, **settings).json()
    response = ask(url, **settings, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    first, *middle, usage = chunks(response)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in middle]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len(pieces) > 5
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in middle]
    assert reasons == [None] * (len(reasons) - 1) + ["length"]
    assert (usage["choices"], usage["usage"]) == ([], whole["usage"])
    assert len({chunk["id"] for chunk in (first, *middle, usage)}) == 1
    assert all("usage" not in chunk for chunk in chunks(ask(url, **settings, stream=True)))


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(url: str) -> None:
    whole = content(ask(url, temperature=1.5, seed=3, max_tokens=25))
    stop = whole[len(whole) // 2 :][:4]
    reply = ask(url, temperature=1.5, seed=3, max_tokens=25, stop=stop)
    assert content(reply) == whole[: whole.index(stop)].rstrip()
    assert reply.json()["choices"][0]["finish_reason"] == "stop"
    assert reply.json()["usage"]["completion_tokens"] < 25


def test_completions_go_on_with_a_plain_text(url: str, served: Served) -> None:
    for prompt, ids in [("The lamp", served.tokenizer.encode("The lamp")), ("", [served.tokenizer.eot_id])]:
        [expected] = generate(served.model, [ids], max_new_tokens=9)
        reply = ask(url, "completions", prompt=prompt, max_tokens=9).json()
        assert reply["choices"][0]["text"] == served.tokenizer.decode(expected.ids)
        assert reply["object"] == "text_completion"
        assert reply["usage"] == {"prompt_tokens": len(ids), "completion_tokens": 9, "total_tokens": len(ids) + 9}
        streamed = chunks(ask(url, "completions", prompt=[prompt], max_tokens=9, stream=True))
        assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == reply["choices"][0]["text"]


@pytest.mark.long
@pytest.mark.parametrize("temperature", [0, 1.5])
def test_answers_in_company_equal_those_asked_alone(url: str, gate: Gate, temperature: float) -> None:
    bodies = [
        {"input": "a lamp " * (i % 4), "max_tokens": 5 + i, "temperature": temperature, "seed": i % 3, "stream": i % 2}
        for i in range(16)
    ]
    bodies = [body | {"stream": bool(body["stream"])} for body in bodies]
    with ThreadPoolExecutor(16) as threads:
        replies = [threads.submit(ask, url, **body) for body in bodies]
        wait_until(lambda: sum(load(url)) == 16)  # all are there; the first pass may have begun with fewer
        gate.opened.set()
        together = [reply.result() for reply in replies]
    assert max(gate.sizes) == 8
    alone = [content(ask(url, **body | {"stream": False})) for body in bodies]
    for reply, body, expected in zip(together, bodies, alone, strict=True):
        if body["stream"]:
            pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(reply)]
            assert "".join(pieces) == expected
        else:
            assert content(reply) == expected


# ---- turns ----

TALK = [*USER, {"role": "assistant", "content": "A lamp."}, {"role": "user", "content": "And that?"}]


def test_earlier_turns_do_not_count_for_a_run_without_turns(url: str) -> None:
    alone, talk = ask(url, messages=TALK[-1:], max_tokens=9), ask(url, messages=TALK, max_tokens=9)
    assert content(talk) == content(alone)
    assert talk.json()["usage"] == alone.json()["usage"]
    assert (talk.json()["ignored_messages"], alone.json()["ignored_messages"]) == (2, 0)  # and it says so


def test_a_run_that_was_trained_on_turns_sees_them_as_its_chat_template_writes_them(
    served: Served, tmp_path: Path
) -> None:
    served = dataclasses.replace(served, turns=True)
    save_model(served.model, tmp_path)
    template = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template
    theirs = template(TALK, return_dict=True)["input_ids"]
    [expected] = generate(served.model, [theirs], max_new_tokens=9)
    long = [*TALK[:2] * 4, *TALK]
    with running(make_app(served)) as url:
        reply = ask(url, messages=TALK, max_tokens=9).json()
        assert reply["usage"]["prompt_tokens"] == len(theirs)
        assert reply["choices"][0]["message"]["content"] == served.tokenizer.decode(expected.ids).strip()
        assert reply["ignored_messages"] == 0
        cut = ask(url, messages=long, max_tokens=9).json()
    n, room = cut["ignored_messages"], prompt_room(served.model, 9)
    assert long[n]["role"] == "user"  # the oldest turns go, whole exchanges, and no more than must
    assert cut["usage"]["prompt_tokens"] == len(template(long[n:], return_dict=True)["input_ids"]) <= room
    assert len(template(long[n - 2 :], return_dict=True)["input_ids"]) > room


# ---- what is refused ----

WRONG = {
    "messages is missing": (400, "messages", {"messages": None}),
    "no message": (400, "messages", {"messages": []}),
    "an unknown role": (400, "messages.0.role", {"messages": [{"role": "system", "content": "x"}, *USER]}),
    "no content": (400, "messages.0.content", {"messages": [{"role": "user"}]}),
    "an empty instruction": (400, "messages", {"messages": [{"role": "user", "content": " "}]}),
    "an answer last": (400, "messages", {"messages": TALK[:2]}),
    "a picture": (400, "messages.0.content", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    "temperature below 0": (400, "temperature", {"temperature": -1}),
    "temperature as text": (400, "temperature", {"temperature": "hot"}),
    "top_p above 1": (400, "top_p", {"top_p": 1.5}),
    "top_k 0": (400, "top_k", {"top_k": 0}),
    "a seed too large": (400, "seed", {"seed": 2**70}),
    "no tokens": (400, "max_tokens", {"max_tokens": 0}),
    "more tokens than the context": (400, "max_tokens", {"max_tokens": 129}),
    "five stop strings": (400, "stop", {"stop": list("abcde")}),
    "an empty stop string": (400, "stop", {"stop": ""}),
    "two answers": (400, "n", {"n": 2}),
    "tools": (400, "tools", {"tools": [{"type": "function"}]}),
    "log probabilities": (400, "logprobs", {"logprobs": True}),
    "a prompt too long": (400, "messages", {"input": "lamp " * 200}),
    "a prompt far too long": (400, "messages", {"input": "x" * 500_000}),
    "another model": (404, "model", {"model": "gpt-4o"}),
}


@pytest.fixture(scope="module")
def shared_url(tokenizer: object) -> object:
    from tests.reference import random_model

    with running(make_app(Served(random_model(), tokenizer, "small"), limits=Limits(max_body=2**19))) as url:
        yield url


def check_error(response: requests.Response, status: int) -> dict:
    """OpenAI's shape, with words in it."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    return error


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_honoured_is_refused_by_name(shared_url: str, wrong: str) -> None:
    status, param, body = WRONG[wrong]
    assert check_error(ask(shared_url, **body), status)["param"] == param


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1]", b"\xff\xfe", b'{"messages": ' + b"[" * 100_000, b'{"messages": [{"content": "\\ud800"}]}'],
    ids=["nothing", "half", "a list", "not UTF-8", "deep", "half a character"],
)
def test_a_body_that_is_no_json_object_is_refused(shared_url: str, data: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    check_error(requests.post(f"{shared_url}/v1/chat/completions", data=data, headers=headers, timeout=20), 400)


def test_fields_that_ask_for_nothing_or_are_not_known_are_no_error(shared_url: str) -> None:
    harmless = {"n": 1, "presence_penalty": 0.0, "tools": [], "logprobs": None, "user": "me", "metadata": {"a": "b"}}
    parts = [{"role": "user", "content": [{"type": "text", "text": "Name "}, {"type": "text", "text": "it."}]}]
    assert content(ask(shared_url, max_tokens=5, messages=parts, **harmless)) == content(ask(shared_url, max_tokens=5))


def test_a_body_over_the_limit_is_refused_however_it_is_sent(shared_url: str) -> None:
    address, headers = f"{shared_url}/v1/chat/completions", {"Content-Type": "application/json"}
    sent_whole = requests.post(address, data=b" " * 2**20, headers=headers, timeout=20)
    in_pieces = requests.post(address, data=(b" " * 2**14 for _ in range(40)), headers=headers, timeout=20)
    for response in (sent_whole, in_pieces):
        check_error(response, 413)


def test_other_places_and_methods_are_errors_of_the_same_shape(shared_url: str) -> None:
    check_error(requests.get(f"{shared_url}/v1/embeddings", timeout=20), 404)
    check_error(requests.get(f"{shared_url}/v1/chat/completions", timeout=20), 405)
    check_error(requests.get(f"{shared_url}/v1/models/other", timeout=20), 404)
    check_error(requests.get(f"{shared_url}/rate", timeout=20), 404)  # nothing to rate was given


def test_pages_of_other_origins_do_not_get_in(shared_url: str) -> None:
    body, address = json.dumps({"messages": USER, "max_tokens": 1}), f"{shared_url}/v1/chat/completions"
    check_error(requests.post(address, data=body, headers={"Content-Type": "text/plain"}, timeout=20), 415)
    headers = {"Content-Type": "application/json"}
    assert requests.post(address, data=body, headers=headers | {"Host": "evil.example"}, timeout=20).status_code == 400
    assert requests.post(address, data=body, headers=headers | {"Host": "localhost"}, timeout=20).status_code == 200
    assert "access-control-allow-origin" not in requests.options(address, headers={"Origin": "http://evil.example"},
                                                                 timeout=20).headers  # fmt: skip


def test_with_a_key_only_who_knows_it_is_answered(served: Served) -> None:
    with running(make_app(served, key="s3cret ü")) as url:
        address, body = f"{url}/v1/chat/completions", {"messages": USER, "max_tokens": 2}
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret ü".encode()}):
            refused = requests.post(address, json=body, headers=headers, timeout=20)
            check_error(refused, 401)
            assert "Bearer KEY" in refused.json()["error"]["message"]
        known = {"Authorization": "Bearer s3cret ü".encode()}
        assert requests.post(address, json=body, headers=known, timeout=20).status_code == 200
        check_error(requests.get(f"{url}/v1/models", timeout=20), 401)
        for path in ("/", "/health"):
            assert requests.get(url + path, timeout=20).status_code == 200


# ---- slow clients, and very many ----


def test_a_body_that_does_not_come_is_given_up(served: Served) -> None:
    with running(make_app(served, limits=Limits(body_seconds=0.3))) as url:
        host, port = url.removeprefix("http://").split(":")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), timeout=20) as slow:
            slow.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert content(ask(url, max_tokens=2)) is not None  # others are served meanwhile
            assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]


PATHS = ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/v1/models/../../../etc/passwd", "/v1/models/%00", "//etc",
         "/rate/pairs/../../x", "/v1/models/" + "a" * 5000]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_tricks_with_paths_lead_nowhere(shared_url: str, path: str) -> None:
    host, port = shared_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: raw.recv(10_000), b""))
    assert reply.split(b" ")[1] == b"404" and b"root:" not in reply


def test_noise_in_place_of_http_hurts_nobody(shared_url: str) -> None:
    host, port = shared_url.removeprefix("http://").split(":")
    for noise in (b"\x16\x03\x01\x02\x00\x01" * 50, b"GET\r\n\r\n", bytes(5000), b"POST / HTTP/9.9\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(1000)
    assert content(ask(shared_url, max_tokens=2)) is not None


@pytest.mark.slow
def test_a_thousand_requests_at_once_are_served_or_told_to_come_again(served: Served) -> None:
    import resource

    with running(make_app(served)) as url:
        assert ask(url, max_tokens=4).status_code == 200
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with ThreadPoolExecutor(1000) as pool:
            codes = list(pool.map(lambda _: ask(url, max_tokens=4).status_code, range(1000)))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert set(codes) <= {200, 503} and codes.count(200) > 64
        assert grown < 400, f"{grown:.0f} MB more, of which a thousand clients of ours take their part"
        wait_until(lambda: load(url) == (0, 0))
        assert ask(url, max_tokens=4).status_code == 200


# ---- the queue, and clients that go away ----


def test_who_finds_the_queue_full_is_told_so_and_the_others_are_served(served: Served, gate: Gate) -> None:
    app = make_app(served, limits=Limits(max_batch=1, max_waiting=2))
    with running(app) as url, ThreadPoolExecutor(3) as threads:
        replies = []
        for n, expected in enumerate([(1, 0), (1, 1), (1, 2)]):
            replies.append(threads.submit(ask, url, max_tokens=3 + n))
            wait_until(lambda expected=expected: load(url) == expected)
        refused = ask(url, max_tokens=3)
        assert check_error(refused, 503)["code"] == "overloaded"
        assert refused.headers["retry-after"] == "1"
        gate.opened.set()
        assert [reply.result().json()["usage"]["completion_tokens"] for reply in replies] == [3, 4, 5]
        assert ask(url, max_tokens=3).status_code == 200


def open_request(url: str, **body: object) -> socket.socket:
    """A request by hand, so that its connection can be closed at any time."""
    host, port = re.fullmatch(r"http://(.+):(\d+)", url).groups()
    sock = socket.create_connection((host, int(port)), timeout=20)
    data = json.dumps({"messages": USER} | body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    sock.sendall(head.encode() + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return sock


def test_who_hangs_up_in_the_middle_of_a_stream_frees_the_place(served: Served, monkeypatch: object) -> None:
    n_passes, step = [], Batch.step

    def slow(batch: Batch, newcomers: list) -> list:
        n_passes.append(1)
        wait_until(lambda: len(n_passes) < 4 or may_go_on)
        return step(batch, newcomers)

    may_go_on = False
    monkeypatch.setattr(Batch, "step", slow)
    with running(make_app(served, limits=Limits(max_batch=1))) as url:
        sock = open_request(url, stream=True, max_tokens=90)
        seen = b""
        while seen.count(b"data: ") < 3:
            seen += sock.recv(4096)
        assert load(url) == (1, 0)
        sock.close()
        wait_until(lambda: load(url) == (0, 0))
        may_go_on = True
        reply = ask(url, max_tokens=5)
        assert reply.json()["usage"]["completion_tokens"] == 5
        assert len(n_passes) < 15  # not the 90 that nobody waits for


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_while_waiting_leaves_the_queue(served: Served, gate: Gate, stream: bool) -> None:
    with running(make_app(served, limits=Limits(max_batch=1))) as url:
        at_work, waiting = open_request(url, stream=False, max_tokens=90), None
        wait_until(lambda: load(url) == (1, 0))
        waiting = open_request(url, stream=stream, max_tokens=90)
        wait_until(lambda: load(url) == (1, 1))
        waiting.close()
        wait_until(lambda: load(url) == (1, 0))
        at_work.close()
        wait_until(lambda: load(url) == (0, 0))
        gate.opened.set()
        assert ask(url, max_tokens=5).json()["usage"]["completion_tokens"] == 5
        assert sum(gate.sizes) <= 7


def test_a_pass_that_fails_is_told_and_the_next_request_is_served(
    served: Served, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = type(served.model).hidden

    def fails_once(model: object, inputs: object, cache: object = None) -> object:
        if cache is not None and cache.longest > 0 and not failed:
            failed.append(True)
            raise RuntimeError("CUDA out of memory")
        return hidden(model, inputs, cache)

    failed = []
    monkeypatch.setattr(type(served.model), "hidden", fails_once)
    assert "out of memory" in check_error(ask(url, max_tokens=5), 500)["message"]
    assert ask(url, max_tokens=5).status_code == 200
    failed.clear()
    events = ask(url, max_tokens=5, stream=True).text.strip().split("\n\n")
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error"  # and no [DONE]
    assert load(url) == (0, 0)


def test_no_setting_of_one_client_ends_the_answers_of_the_others(url: str, gate: Gate) -> None:
    extreme = [{"temperature": 1, "top_p": 1e-50}, {"temperature": 1e300}, {"temperature": 1e-4, "top_k": 10**30}]
    with ThreadPoolExecutor(4) as pool:
        neighbour = pool.submit(ask, url, max_tokens=20)
        others = [pool.submit(ask, url, max_tokens=5, seed=1, **settings) for settings in extreme]
        wait_until(lambda: sum(load(url)) == 4)
        gate.opened.set()
        assert [other.result().status_code for other in others] == [200] * 3
    assert max(gate.sizes) >= 3  # they did share passes
    assert content(neighbour.result()) == content(ask(url, max_tokens=20))
    assert content(others[0].result()) == content(ask(url, max_tokens=5))  # the likeliest token alone is left


# ---- other people's client ----


def test_the_openai_client_works(url: str, served: Served) -> None:
    [expected] = respond(served.model, served.tokenizer, [ENTRY], max_new_tokens=12)
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["small"]
        assert client.models.retrieve("small").id == "small"
        settings = {"model": "small", "messages": USER, "max_tokens": 12, "extra_body": {"input": ENTRY["input"]}}
        reply = client.chat.completions.create(**settings)
        assert reply.choices[0].message.content == expected.text
        assert reply.usage.completion_tokens == 12
        with client.chat.completions.create(**settings, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(pieces) == expected.text
        newer = client.chat.completions.create(model="small", messages=USER, max_completion_tokens=3)
        assert newer.choices[0].finish_reason == "length"
        assert client.completions.create(model="small", prompt="The", max_tokens=3).choices[0].text
        with pytest.raises(openai.NotFoundError, match="gpt-4o"):
            client.chat.completions.create(model="gpt-4o", messages=USER)
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="small", messages=USER, temperature=-1)


# ---- the script ----


def test_what_cannot_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = {
            "choose another --port": ["gpt2-tiny", "--port", str(taken.getsockname()[1])],
            "choose another --port ": ["gpt2-tiny", "--host", "256.0.0.1"],
            "neither a folder nor one of": ["gpt2-nothing"],
            "scripts.evaluate": ["gpt2-tiny", "--rate", str(tmp_path)],
            "use 1 or more": ["gpt2-tiny", "--max-batch", "0"],
            "template": ["gpt2-tiny", "--template", "none", "--port", "0"],
            "the environment variable NO_KEY is not set": ["gpt2-tiny", "--key-env", "NO_KEY", "--port", "0"],
        }
        for words, argv in flags.items():
            assert serve.main([*argv, "--device", "cpu"]) == 2
            error = capsys.readouterr().err
            assert words.strip() in error
            assert error.count("\n") == 1


@pytest.mark.slow  # a signal amid a stream: on a busy machine it may come late
def test_ctrl_c_ends_the_answers_at_work_and_the_server() -> None:
    command = [sys.executable, "-m", "scripts.serve", "gpt2-tiny", "--port", "0", "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], env=environment, **pipes) as server:
        try:
            url = re.search(r"http://127\.0\.0\.1:\d+", server.stdout.readline())[0]
            body = {"messages": USER, "stream": True, "max_tokens": 384, "temperature": 1.5, "seed": 1}
            with requests.post(f"{url}/v1/chat/completions", json=body, stream=True, timeout=60) as response:
                lines = response.iter_lines()
                assert next(lines)  # the answer has begun
                server.send_signal(signal.SIGINT)
                *_, last = [line for line in lines if line]
            assert json.loads(last.removeprefix(b"data: "))["error"]["message"] == "the server is stopping"
            assert server.wait(30) == 130
            assert server.stderr.read() == "stopped\n"  # no traceback
        finally:
            server.kill()
