"""Downloads, against a real server on this machine that cuts, stalls, refuses and changes its mind as told."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

import scripts.download as script
from gpt.hardware.locks import alone_with
from gpt.weights import download as module
from gpt.weights import sources
from gpt.weights.download import DownloadError, LocalError, Progress, download, download_file, find_model

ROOT = Path(__file__).parents[2]
BODY = bytes(range(251)) * 1300  # 326,300 bytes; no two places look alike within 251, so a wrong offset shows
SHA256 = hashlib.sha256(BODY).hexdigest()
FAST = {"timeout": 0.4, "n_tries": 3, "wait": 0.01}
LAYOUT = ("model.ckpt.data-00000-of-00001", "model.ckpt.index", "hparams.json")  # of OpenAI


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files` with ranges and ETags; `server.faults` are used up first, one for each request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        self.server.headers_seen.append(dict(self.headers))
        if self.server.faults:
            return self.server.faults.pop(0)(self)
        return self.serve()

    def body(self) -> bytes | None:
        return self.server.files.get(self.path)

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.send_body(body)

    def send_body(self, body: bytes) -> None:
        self.server.n_sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    def etag(self) -> str:
        return '"' + hashlib.md5(self.body()).hexdigest() + '"'

    def serve(self, if_range: bool = True) -> None:
        body = self.body()
        if body is None:
            return self.answer(404)
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start is None or (if_range and self.headers.get("If-Range", self.etag()) != self.etag()):
            return self.answer(200, body, ETag=self.etag())
        start = int(start[1])
        if start >= len(body):
            return self.answer(416, Content_Range=f"bytes */{len(body)}")
        content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.answer(206, body[start:], Content_Range=content_range, ETag=self.etag())

    def log_message(self, *args: object) -> None:
        pass


def status(code: int, **headers: str):
    return lambda handler: handler.answer(code, **headers)


def cut_after(n_bytes: int):
    """Promise everything, send some, hang up."""

    def fault(handler: Handler) -> None:
        body = handler.body()
        handler.answer(200, body[:n_bytes], length=len(body), ETag=handler.etag())
        handler.close_connection = True

    return fault


def stall_after(n_bytes: int, seconds: float = 30.0):
    """Promise everything, send some, say no more but hold the line."""

    def fault(handler: Handler) -> None:
        cut_after(n_bytes)(handler)
        handler.server.is_over.wait(seconds)

    return fault


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.faults = {"/file": BODY}, []
    server.asked, server.headers_seen, server.n_sent = [], [], 0
    server.is_over = threading.Event()
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    server.url = server.address + "/file"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.is_over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mirrors(server, monkeypatch, tmp_path):
    """All hosts of the table are the local server, the cache is a fresh folder."""
    for host, (variable, _) in sources.HOSTS.items():
        monkeypatch.setenv(variable, f"{server.address}/{host}/")
    monkeypatch.setenv("GPT_CACHE", str(tmp_path / "cache"))
    return server


@pytest.fixture
def sleeps(monkeypatch):
    """Seconds that the downloader wanted to wait, instead of waiting them."""
    seconds = []
    monkeypatch.setattr(module.time, "sleep", seconds.append)
    return seconds


def leave_part(server, path: Path, n_bytes: int = 200_000) -> int:
    """What a first call leaves that was cut off: the bytes on disk."""
    server.faults.append(cut_after(n_bytes))
    with pytest.raises(DownloadError, match="the connection was cut"):
        download_file(server.url, path, n_tries=1)
    server.asked.clear()
    server.n_sent = 0
    return path.with_name(path.name + ".part").stat().st_size


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# One file


def test_a_whole_file_arrives_and_nothing_else_is_left(server, tmp_path):
    seen: list[Progress] = []
    path = download_file(server.url, tmp_path / "new" / "f", size=len(BODY), sha256=SHA256, on_progress=seen.append)
    assert path.read_bytes() == BODY
    assert names(tmp_path / "new") == ["f"]
    assert [p.n_bytes for p in seen] == sorted(p.n_bytes for p in seen)
    assert (seen[-1].n_bytes, seen[-1].size) == (len(BODY), len(BODY))
    assert server.headers_seen[0]["Accept-Encoding"] == "identity"


def test_an_empty_file_arrives(server, tmp_path):
    server.files["/file"] = b""
    assert download_file(server.url, tmp_path / "f", size=0).read_bytes() == b""


def test_a_cut_connection_is_resumed_and_only_the_rest_is_sent(server, tmp_path):
    server.faults = [cut_after(200_000)]
    path = download_file(server.url, tmp_path / "f", **FAST)
    assert path.read_bytes() == BODY
    start = int(server.asked[1][1].removeprefix("bytes=").removesuffix("-"))
    assert 200_000 - module.CHUNK < start <= 200_000
    assert server.n_sent == 200_000 + len(BODY) - start
    assert server.asked[1][2] == '"' + hashlib.md5(BODY).hexdigest() + '"'


def test_a_later_call_goes_on_from_what_an_earlier_one_left(server, tmp_path):
    start = leave_part(server, tmp_path / "f")
    assert start > 0
    assert not (tmp_path / "f").exists()
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY
    assert server.n_sent == len(BODY) - start
    assert names(tmp_path) == ["f"]


def test_many_cuts_are_survived_while_each_brings_something_new(server, tmp_path):
    def serve_a_piece(handler: Handler) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        rest = BODY[start:]
        headers = {"ETag": handler.etag(), "Content_Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"}
        handler.answer(206 if start else 200, rest[:70_000], length=len(rest), **headers)
        handler.close_connection = True

    server.faults = [serve_a_piece] * 4
    assert download_file(server.url, tmp_path / "f", timeout=1, n_tries=2, wait=0.01).read_bytes() == BODY
    assert len(server.asked) == 5


def test_without_ranges_the_file_is_fetched_anew_and_not_appended(server, tmp_path, monkeypatch):
    start = leave_part(server, tmp_path / "f")
    server.faults = [lambda handler: handler.answer(200, BODY, ETag=handler.etag())]
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY

    leave_part(server, tmp_path / "wrong")  # the wrong variant takes any answer for the rest
    server.faults = [lambda handler: handler.answer(200, BODY, ETag=handler.etag())]
    monkeypatch.setattr(module._Transfer, "is_rest", lambda *args: True)
    with pytest.raises(DownloadError, match="sends more"):
        download_file(server.url, tmp_path / "wrong", n_tries=1)
    assert (BODY[:start] + BODY)[: len(BODY)] != BODY


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_has_changed_is_fetched_anew_and_not_joined(server, tmp_path, if_range):
    start = leave_part(server, tmp_path / "f")
    changed = BODY[::-1]  # of the same size, so that only its ETag tells
    server.files["/file"] = changed
    server.faults = [lambda handler: handler.serve(if_range=if_range)]
    assert download_file(server.url, tmp_path / "f", **FAST).read_bytes() == changed
    assert names(tmp_path) == ["f"]

    rest = requests.get(server.url, headers={"Range": f"bytes={start}-"})  # the wrong variant does not ask the version
    assert rest.status_code == 206
    assert BODY[:start] + rest.content not in (BODY, changed)


def test_a_part_of_another_address_is_not_built_on(server, tmp_path):
    leave_part(server, tmp_path / "f")
    server.files["/other"] = BODY[::-1]
    assert download_file(server.address + "/other", tmp_path / "f").read_bytes() == BODY[::-1]
    assert server.asked == [("/other", None, None)]


@pytest.mark.parametrize("tag", ["", "[]", "{}", '{"url": 1}', "\0", None])
def test_a_part_without_a_readable_tag_is_not_built_on(server, tmp_path, tag):
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    if tag is not None:
        (tmp_path / "f.part.json").write_text(tag)
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY


def test_a_part_without_a_version_is_built_on_only_where_a_checksum_will_tell(server, tmp_path):
    def cut_without_etag(handler: Handler) -> None:
        handler.answer(200, BODY[:200_000], length=len(BODY))
        handler.close_connection = True

    for sha256, is_resumed in ((None, False), (SHA256, True)):
        server.faults = [cut_without_etag]
        server.asked.clear()
        path = download_file(server.url, tmp_path / str(is_resumed), sha256=sha256, **FAST)
        assert path.read_bytes() == BODY
        assert (server.asked[1][1] is not None) == is_resumed


@pytest.mark.parametrize(
    "content_range", ["bytes 0-326299/326300", "bytes 196608-326299/999999", "bytes */326300", "nonsense", ""]
)
def test_a_wrong_content_range_is_refused(server, tmp_path, content_range):
    start = leave_part(server, tmp_path / "f")
    headers = {"Content_Range": content_range} if content_range else {}
    server.faults = [lambda handler: handler.answer(206, BODY[1:][: len(BODY) - start], **headers)]
    assert download_file(server.url, tmp_path / "f", **FAST).read_bytes() == BODY
    assert server.asked[1][1] is None  # asked for all of it


def test_an_answer_of_416_starts_anew(server, tmp_path):
    leave_part(server, tmp_path / "f")
    server.faults = [status(416, Content_Range="bytes */100")]
    assert download_file(server.url, tmp_path / "f", **FAST).read_bytes() == BODY


def test_a_part_that_is_already_whole_is_not_requested_again(server, tmp_path):
    leave_part(server, tmp_path / "f")
    (tmp_path / "f.part").write_bytes(BODY)  # killed between the last byte and the renaming
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY
    assert server.asked == []


def test_a_part_that_is_too_long_starts_anew(server, tmp_path):
    leave_part(server, tmp_path / "f")
    (tmp_path / "f.part").write_bytes(BODY + b"x")
    assert download_file(server.url, tmp_path / "f", **FAST).read_bytes() == BODY


def test_a_wrong_checksum_is_said_and_the_bytes_are_removed(server, tmp_path):
    with pytest.raises(DownloadError, match=rf"{server.url}: SHA-256 is {SHA256} instead of {'0' * 64}"):
        download_file(server.url, tmp_path / "f", sha256="0" * 64)
    assert names(tmp_path) == []
    assert len(server.asked) == 1


def test_a_wrong_size_is_said_before_anything_is_written(server, tmp_path):
    with pytest.raises(DownloadError, match="has 326,300 bytes instead of 5"):
        download_file(server.url, tmp_path / "f", size=5)
    assert names(tmp_path) == []


def test_a_body_of_unknown_length_is_stopped_at_the_expected_size(server, tmp_path):
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not handler.server.is_over.is_set():
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    server.faults = [endless]
    with pytest.raises(DownloadError, match=r"sends more than 100,000 bytes"):
        download_file(server.url, tmp_path / "f", size=100_000)
    assert names(tmp_path) == []


def test_a_body_of_unknown_length_that_is_too_short_is_not_taken_for_the_whole(server, tmp_path):
    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"5\r\nshort\r\n0\r\n\r\n")  # ends as it should, so that only the size tells

    server.faults = [chunked]
    assert download_file(server.url, tmp_path / "f", size=len(BODY), **FAST).read_bytes() == BODY
    server.faults = [chunked]
    assert download_file(server.url, tmp_path / "g").read_bytes() == b"short"


def test_a_missing_file_is_not_asked_for_twice(server, tmp_path):
    with pytest.raises(DownloadError, match=r"/none: the server answered 404 Not Found"):
        download_file(server.address + "/none", tmp_path / "f", **FAST)
    assert len(server.asked) == 1


def test_a_failing_server_is_asked_again_after_doubled_waits(server, tmp_path, sleeps):
    server.faults = [status(500), status(503), status(502)]
    assert download_file(server.url, tmp_path / "f", wait=0.5).read_bytes() == BODY
    assert sleeps == [0.5, 1.0, 2.0]
    server.faults = [status(500)] * 9
    with pytest.raises(DownloadError, match="the server answered 500"):
        download_file(server.url, tmp_path / "g", n_tries=4)
    assert len(server.faults) == 9 - 4


def test_retry_after_is_honoured_up_to_a_limit(server, tmp_path, sleeps):
    in_20_s = formatdate(time.time() + 20, usegmt=True)
    server.faults = [status(429, Retry_After=text) for text in ("7", "86400", in_20_s, "soon", "-3", "9" * 400)]
    assert download_file(server.url, tmp_path / "f", wait=0.001).read_bytes() == BODY
    assert sleeps[:2] == [7.0, module.LONGEST_WAIT]
    assert 18 < sleeps[2] <= 20
    assert sleeps[3:] == [0.008, 0.016, module.LONGEST_WAIT]


def test_a_connection_that_says_nothing_more_is_given_up_and_resumed(server, tmp_path):
    server.faults = [stall_after(150_000)]
    began = time.monotonic()
    assert download_file(server.url, tmp_path / "f", **FAST).read_bytes() == BODY
    assert time.monotonic() - began < 5
    assert server.asked[1][1] == f"bytes={2 * module.CHUNK}-"


def test_a_slow_server_is_not_a_dead_one(server, tmp_path):
    def trickle(handler: Handler) -> None:
        handler.answer(200, length=len(BODY))
        for i in range(0, len(BODY), 40_000):
            time.sleep(0.1)
            handler.send_body(BODY[i : i + 40_000])

    server.faults = [trickle]  # 0.9 seconds in all
    assert download_file(server.url, tmp_path / "f", timeout=0.4, n_tries=1).read_bytes() == BODY


def test_a_host_that_never_answers_is_given_up_soon(tmp_path, sleeps):
    with pytest.raises(DownloadError, match=r"http://127.0.0.1:9/f: .*Connection refused"):
        download_file("http://127.0.0.1:9/f", tmp_path / "f")
    assert len(sleeps) == 1


def test_a_connection_that_cannot_be_trusted_is_not_tried_again(server, tmp_path, sleeps):
    with pytest.raises(DownloadError, match="SSL"):
        download_file(server.url.replace("http:", "https:"), tmp_path / "f")
    assert sleeps == []


def test_a_redirect_is_followed_with_the_range(server, tmp_path):
    leave_part(server, tmp_path / "f")
    to_file = status(302, Location="/file")
    tag = json.loads((tmp_path / "f.part.json").read_text())
    (tmp_path / "f.part.json").write_text(json.dumps(tag | {"url": server.address + "/moved"}))
    server.faults = [to_file]
    assert download_file(server.address + "/moved", tmp_path / "f").read_bytes() == BODY
    assert [path for path, *_ in server.asked] == ["/moved", "/file"]
    assert server.asked[1][1] is not None


def test_hugging_faces_word_on_size_and_checksum_is_held_against_the_bytes(server, tmp_path):
    def redirect(sha256: str, size: int):
        return status(302, Location="/file", X_Linked_ETag=f'"{sha256}"', X_Linked_Size=str(size))

    server.faults = [redirect(SHA256, len(BODY))]
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY
    server.faults = [redirect("0" * 64, len(BODY))]
    with pytest.raises(DownloadError, match="SHA-256"):
        download_file(server.url, tmp_path / "g")
    server.faults = [redirect(SHA256, 7)]
    with pytest.raises(DownloadError, match="instead of 7"):
        download_file(server.url, tmp_path / "g")
    server.faults = [redirect("0" * 40, len(BODY))]  # a git hash, as small files have it
    assert download_file(server.url, tmp_path / "g").read_bytes() == BODY


def test_a_full_disk_is_said_and_the_download_goes_on_when_there_is_room(server, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        with pytest.raises(LocalError, match=r"the disk is full; [\d,]+ bytes are kept"):
            download_file(server.url, disk / "f", sha256=SHA256)
        n_kept = (disk / "f.part").stat().st_size
        assert 100_000 < n_kept < 160 * 1024
        assert (disk / "f.part").read_bytes() == BODY[:n_kept]
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert download_file(server.url, disk / "f", sha256=SHA256).read_bytes() == BODY
        assert server.asked[1][1] == f"bytes={n_kept}-"
        assert names(disk) == ["f"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_made_is_said(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match=r"cannot write .*file/f: (Not a directory|File exists)"):
        download_file(server.url, tmp_path / "file" / "f")


def test_a_second_process_on_the_same_file_is_told_so(server, tmp_path):
    with alone_with(tmp_path / "f"):
        with pytest.raises(LocalError, match="another process is fetching"):
            download_file(server.url, tmp_path / "f")
        assert download_file(server.url, tmp_path / "g").read_bytes() == BODY
    assert download_file(server.url, tmp_path / "f").read_bytes() == BODY


# By name


def put_large(server, host: str = "openai") -> None:
    """gpt2-large in OpenAI's layout: the table knows no size of it, so any bytes will do."""
    server.files |= {f"/{host}/774M/{file}": f"{file}\n".encode() for file in LAYOUT}


def test_sources_are_tried_in_turn_and_the_failure_is_said(mirrors, tmp_path):
    put_large(mirrors)
    seen: list[Progress] = []
    assert find_model("gpt2-large") is None
    folder = download("774M", on_progress=seen.append)
    assert folder == tmp_path / "cache" / "gpt2-large" == find_model("774M")
    assert names(folder) == sorted(LAYOUT)
    assert [path.split("/")[1] for path, *_ in mirrors.asked] == ["huggingface", "openai", "openai", "openai"]
    assert any("huggingface failed" in p.note and "404" in p.note for p in seen)


def test_a_complete_copy_needs_no_network(mirrors, tmp_path):
    put_large(mirrors)
    download("gpt2-large", tmp_path, host="openai")
    mirrors.asked.clear()
    assert download("gpt2-large", tmp_path) == tmp_path / "gpt2-large"
    assert mirrors.asked == []


def test_a_copy_that_is_not_complete_is_not_found(mirrors, tmp_path):
    put_large(mirrors)
    for file in LAYOUT:
        folder = download("gpt2-large", tmp_path, host="openai")
        (folder / file).unlink()
        assert find_model("gpt2-large", tmp_path) is None
    folder = tmp_path / "gpt2"
    folder.mkdir()
    for file in ("model.safetensors", "config.json"):
        (folder / file).write_bytes(b"of another size than the table says")
    assert find_model("gpt2", tmp_path) is None


def test_a_data_set_is_a_file_of_its_own_folder(mirrors, tmp_path):
    path = "/github/yizhongw/self-instruct/main/data/gpt3_generations/batch_221203/all_instances_82K.jsonl"
    mirrors.files[path] = b'{"instruction": "a", "input": "", "output": "b"}\n'
    saved = download("self-instruct")
    assert saved == tmp_path / "cache" / "self-instruct" / "all_instances_82K.jsonl"
    assert saved.read_bytes() == mirrors.files[path]


def test_a_file_that_differs_from_the_table_is_refused(mirrors):
    book = sources.find_sources("book")[0]
    mirrors.files[f"/github/{book.path}"] = b"x" * book.size
    with pytest.raises(DownloadError, match="SHA-256"):
        download("book")


def test_offline_one_message_names_files_folder_and_command(monkeypatch, tmp_path):
    for variable, _ in sources.HOSTS.values():
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("GPT_CACHE", str(tmp_path))
    with pytest.raises(DownloadError) as caught:
        download("gpt2-medium", n_tries=1)
    message = str(caught.value)
    for part in ("model.safetensors", "config.json", *LAYOUT, str(tmp_path / "gpt2-medium"), "GPT_CACHE"):
        assert part in message
    assert "python -m scripts.download gpt2-medium" in message
    assert "\n" not in message


def test_a_fault_on_this_side_is_not_blamed_on_the_source(mirrors, tmp_path):
    put_large(mirrors)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(LocalError, match="cannot write"):
        download("gpt2-large")


def test_the_table_is_well_formed():
    wanted = ["book", "alpaca", "alpaca-cleaned", "dolly", "self-instruct", "flan", "sharegpt", "wizardlm-evol"]
    assert {source.name for source in sources.SOURCES} == {*wanted, *sources.OPENAI_NAMES.values()}
    assert len({(source.name, source.host) for source in sources.SOURCES}) == len(sources.SOURCES)
    for source in sources.SOURCES:
        assert source.host in sources.HOSTS
        assert source.size is None or source.size > 100_000
        assert source.sha256 is None or re.fullmatch("[0-9a-f]{64}", source.sha256)
    for name in sources.OPENAI_NAMES.values():
        assert [source.host for source in sources.find_sources(name)] == ["huggingface", "openai"]


# The script


# The script in a process of its own. Without gpt/__init__.py, which takes seconds to import torch.
START = """
import signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
sys.modules["gpt"] = types.ModuleType("gpt")
sys.modules["gpt"].__path__ = ["gpt"]
from scripts.download import main
sys.exit(main())
"""


def run_script(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_the_script_fetches_several_names(mirrors, tmp_path, capsys):
    put_large(mirrors)
    mirrors.files |= {path.replace("774M", "1558M"): body for path, body in mirrors.files.items()}
    assert script.main(["gpt2-large", "gpt2-xl", "--to", str(tmp_path), "--source", "openai"]) == 0
    assert capsys.readouterr().out == f"gpt2-large: {tmp_path}/gpt2-large\ngpt2-xl: {tmp_path}/gpt2-xl\n"
    assert find_model("gpt2-xl", tmp_path)


def test_the_script_says_errors_in_one_line(mirrors, capsys):
    for arguments, said in (
        (["gpt2-large", "gpt2-medum"], "Did you mean 'gpt2-medium'?"),
        (["book", "--source", "openai"], "nothing is called 'book' at openai"),
    ):
        assert script.main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert mirrors.asked == []
    assert script.main(["dolly"]) == 2  # the server has no such file
    assert "404" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == 2


def test_the_script_lists_every_source(capsys):
    assert script.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(sources.SOURCES)
    assert next(line for line in lines if line.startswith("dolly")).split()[1:5] == ["13.1MB", "CC", "BY-SA", "3.0"]


def test_the_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 24


@pytest.mark.long
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_script_goes_on_from_where_it_was(mirrors, tmp_path, sent):
    put_large(mirrors)
    mirrors.files[f"/openai/774M/{LAYOUT[0]}"] = BODY
    mirrors.faults = [stall_after(200_000)]
    part = tmp_path / "gpt2-large" / f"{LAYOUT[0]}.part"
    process = run_script("gpt2-large", "--to", str(tmp_path), "--source", "openai")
    wait_for(lambda: part.exists() and part.stat().st_size)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    if sent == signal.SIGINT:
        assert process.returncode == 130
        assert "what has come is kept" in error
    assert "Traceback" not in error
    assert not part.with_suffix("").exists()

    n_kept = part.stat().st_size
    process = run_script("gpt2-large", "--to", str(tmp_path), "--source", "openai")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert part.with_suffix("").read_bytes() == BODY
    assert mirrors.asked[1][1] == f"bytes={n_kept}-"
    assert names(part.parent) == sorted(LAYOUT)
