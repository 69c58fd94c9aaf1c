"""One client for every server that speaks OpenAI's chat protocol: Ollama, llama.cpp, vLLM, OpenAI and ours.

`ChatClient(base_url, model).ask` is a `Callable[[str], str]`: who needs a judge or a teacher takes that and knows
nothing of servers. Temperature and seed stand at the top level of the request's body, where the protocol has them;
elsewhere servers ignore them without a word.

Source: OpenAI's API reference, "Create chat completion" and "List models"; RFC 9110, section 10.2.3 (Retry-After).
"""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import requests

from gpt.weights.download import BUSY, LONGEST_WAIT, PASSING, TryAgain, cause, retry_after

LOCAL = ("localhost", "127.0.0.1", "::1")
Item, Result = TypeVar("Item"), TypeVar("Result")


class ChatError(OSError):
    """A request that failed for good: the address, what was seen there, and what to do."""


@dataclass(frozen=True)
class ChatClient:
    """A model behind an address. Its `ask` may be called from several threads at once."""

    base_url: str  # such as http://localhost:11434; /v1 is added where there is no path
    model: str  # its name on the server
    key: str = field(default="", repr=False)  # sent as a bearer token; "" sends none
    temperature: float = 0.0  # 0: the likeliest reply
    seed: int = 123  # for servers that have one
    max_tokens: int | None = None  # a reply's tokens, at most; None leaves it to the server
    timeout: float = 300.0  # seconds without a byte after which a request has failed
    n_tries: int = 5  # of each request, at most
    wait: float = 1.0  # seconds before the second try, doubled before each further one
    cache: Path | None = None  # folder of the replies so far
    stop: threading.Event = field(default_factory=threading.Event, repr=False)  # once set, no request begins

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.base_url!r} is no address of a server: use one like http://localhost:11434")
        if parts.username or parts.password:
            raise ValueError(f"the address at {parts.hostname} holds a password: put the key into the environment")
        for name in ("timeout", "n_tries", "max_tokens"):
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} is {value}: use more than 0")

    @property
    def url(self) -> str:
        """The address that ends in /v1, however it was given."""
        url = self.base_url.rstrip("/").removesuffix("/chat/completions")
        return url if urlsplit(url).path else url + "/v1"

    def body(self, prompt: str) -> dict[str, object]:
        """The request. The cache is keyed on all of it, and on the address."""
        messages = [{"role": "user", "content": prompt}]
        body = {"model": self.model, "messages": messages, "temperature": self.temperature, "seed": self.seed}
        return body | ({} if self.max_tokens is None else {"max_tokens": self.max_tokens})

    def ask(self, prompt: str) -> str:
        """The reply, from the cache or from the server. Raises ChatError if it cannot be had."""
        body = self.body(prompt)
        digest = hashlib.sha256(json.dumps([self.url, body], sort_keys=True).encode()).hexdigest()
        path = None if self.cache is None else self.cache / digest[:2] / f"{digest}.json"
        if path:
            with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
                return json.loads(path.read_text(encoding="utf-8"))["reply"]
        reply = self._ask_server(body)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as part:
                json.dump({"url": self.url, "request": body, "reply": reply}, part, indent=1)
            os.replace(part.name, path)  # in one move: who is killed leaves no half reply
        return reply

    def check(self) -> None:
        """Ask the server for its models. Raises ChatError with one line that says what to do."""
        try:
            response = self._send("GET", "/models")
        except requests.RequestException as error:
            raise ChatError(
                f"no server answers at {self.url} ({cause(error)}): start one, or mend the address"
            ) from None
        status = response.status_code
        if status in (401, 403):
            found = "does not accept the key that it was sent" if self.key else "wants a key"
            raise ChatError(f"{self.url} {found} ({status}): put it into an environment variable (OPENAI_API_KEY)")
        if status in (404, 405, 501) or status in BUSY:
            return  # a server may do without a list, or be loading its model
        try:
            names = [model["id"] for model in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            raise ChatError(f"{self.url} does not speak OpenAI's protocol (status {status}, {_beginning(response)}): "
                            "the address mostly ends in /v1") from None  # fmt: skip
        if names and not {self.model, f"{self.model}:latest"} & set(names):
            shown = ", ".join(sorted(names)[:8]) + (" ..." if len(names) > 8 else "")
            raise ChatError(f"{self.url} has no model {self.model!r}: it offers {shown}")

    def _ask_server(self, body: dict[str, object]) -> str:
        """Try until there is a reply, `n_tries` times at the most."""
        for n_failures in range(self.n_tries):
            if self.stop.is_set():
                raise ChatError(f"{self.url}: stopped")
            try:
                return _read_reply(self._send("POST", "/chat/completions", json=body), self.url)
            except TryAgain as error:
                reason, pause = error.args
            except PASSING as error:
                reason, pause = cause(error), 0.0
            except requests.RequestException as error:
                raise ChatError(f"{self.url}: {error}") from None
            if n_failures + 1 < self.n_tries:
                self.stop.wait(min(LONGEST_WAIT, max(pause, self.wait * 2**n_failures)))
        raise ChatError(f"{self.url}: {reason}, {self.n_tries} times in a row: run this again when it is back")

    def _send(self, method: str, path: str, **content: object) -> requests.Response:
        """One request. A redirect is not followed: it would turn the question into another one."""
        proxies = {"http": "", "https": ""} if urlsplit(self.url).hostname in LOCAL else None
        return requests.request(
            method, self.url + path, auth=self._sign, proxies=proxies, allow_redirects=False,
            timeout=(min(10.0, self.timeout), self.timeout), **content,
        )  # fmt: skip

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the key. Without an `auth` of ours, requests would send the password that ~/.netrc has for the host."""
        if self.key:
            request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def _read_reply(response: requests.Response, url: str) -> str:
    """The text of a reply; ChatError if asking again is of no use, TryAgain if it may be."""
    status = response.status_code
    if status in BUSY or status >= 500:
        raise TryAgain(f"the server answered {status} {response.reason}", retry_after(response))
    if status != 200:
        raise ChatError(f"{url}: the server answered {status} {response.reason}: {_beginning(response)}")
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        content = response.json()["choices"][0]["message"]["content"]
        if content is None or isinstance(content, str):  # None: the model refused, or only called tools
            return (content or "").encode("utf-8", "replace").decode()  # half a character, which no file holds: "?"
    raise TryAgain(f"the answer is not OpenAI's protocol: {_beginning(response)}", 0.0)


def _beginning(response: requests.Response) -> str:
    text = " ".join(response.text.split())
    return repr(text if len(text) <= 120 else text[:120] + " ...")


def in_parallel(
    work: Callable[[Item], Result], items: Sequence[Item], n_workers: int
) -> Iterator[tuple[Item, Result | ChatError]]:
    """Each item with its result, or with its ChatError, as they come; `n_workers` are at work at a time."""
    pool = ThreadPoolExecutor(max(1, n_workers))
    futures = {pool.submit(work, item): item for item in items}
    try:
        for future in as_completed(futures):
            error = future.exception()
            if error and not isinstance(error, ChatError):
                raise error
            yield futures[future], error or future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
