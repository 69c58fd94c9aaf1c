"""A real server on this machine that speaks OpenAI's chat protocol, well or badly as told, and counts what it is asked.

`answer` makes the reply out of a prompt; `faults` are used up first, one for each request.
"""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gpt.evaluation.metrics import rouge_l


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.models is None:
            return self.answer(404, b"no such page")
        return self.answer(200, json.dumps({"data": [{"id": name} for name in self.server.models]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.paths.append(self.path)
            self.server.headers_seen.append(dict(self.headers))
            fault = self.server.faults.pop(0) if self.server.faults else None
            self.server.n_now += 1
            self.server.n_most = max(self.server.n_most, self.server.n_now)
        text = None if fault else self.server.answer(body["messages"][0]["content"])
        with self.server.lock:
            self.server.n_now -= 1  # before the reply: who has it may ask again at once
        fault(self) if fault else self.reply(text)

    def reply(self, text: str | None) -> None:
        message = {"role": "assistant", "content": text}
        self.answer(200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode())

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *args: object) -> None:
        pass  # clients that hang up are part of the tests


@contextmanager
def serving(answer: Callable[[str], str | None], models: list[str] | None = None) -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.answer, server.models, server.lock = answer, models, threading.Lock()
    server.faults, server.asked, server.paths, server.headers_seen, server.n_now, server.n_most = [], [], [], [], 0, 0
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# ---- faults ----


def status(code: int, body: bytes = b"", **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(code, body, **headers)


def stall(handler: Handler) -> None:
    """Accept the request and say nothing."""
    time.sleep(0.6)
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    """Reset the connection before a byte was said."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def cut(handler: Handler) -> None:
    """Promise more than is sent, and hang up."""
    handler.answer(200, b'{"choices": [', length=500)
    handler.close_connection = True


HTML = status(200, b"<html><body>Welcome to nginx!</body></html>", Content_Type="text/html")
EMPTY_CHOICES = status(200, b'{"choices": []}')


# ---- judges ----


def part(prompt: str, name: str) -> str:
    """What stands between <name> and </name> in a judge's prompt; nothing where it has no such part."""
    found = re.search(f"<{name}>\n(.*?)\n</{name}>", prompt, re.DOTALL)
    return found[1] if found else ""


def oracle(prompt: str) -> str:
    """Knows the reference: scores, and compares, by ROUGE-L."""
    score = {name: rouge_l(part(prompt, name), part(prompt, "reference"))
             for name in ("response", "response A", "response B")}  # fmt: skip
    if "<response A>" not in prompt:
        return str(round(100 * score["response"]))
    a, b = score["response A"], score["response B"]
    return "tie" if a == b else "A" if a > b else "B"


def longest_wins(prompt: str) -> str:
    return str(min(100, len(part(prompt, "response"))))
