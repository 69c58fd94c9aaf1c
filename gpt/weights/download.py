"""Weights and public data sets, from the network into a cache folder.

`download("gpt2-medium")` asks the sources of that name in turn. Bytes go to `<file>.part` and stay there when the
connection, the disk or the process ends; the next call asks for the rest. Whole and verified, the file is renamed
into place, so a file under its own name is complete.

The trap is to join the halves of two versions. What the server calls a version (its ETag, else its date) is therefore
kept in `<file>.part.json` and sent along: if the file has changed meanwhile, all of it comes instead of the rest.

Source: RFC 9110, sections 8.8 (ETag), 10.2.3 (Retry-After), 13.1.5 (If-Range) and 14 (ranges).
"""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from gpt.hardware.locks import BusyError, alone_with
from gpt.weights.sources import BESIDE, OPENAI_NAMES, Source, find_sources

BUSY = {408, 425, 429, 500, 502, 503, 504}  # HTTP status codes that may pass
PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)  # so may these
LONGEST_WAIT = 60.0  # seconds between two tries, even where the server asks for more
CHUNK = 1 << 16  # bytes; no more is lost when a connection breaks


class DownloadError(OSError):
    """Names the address, what was seen there and what to do. Another source may still have the file."""


class LocalError(DownloadError):
    """The fault lies on this side (disk, folder, another process): no other source would help."""


class TryAgain(Exception):
    """What may pass: (reason, seconds that the server wants to be left alone)."""


@dataclass(frozen=True)
class Progress:
    file: str  # its name
    n_bytes: int  # on disk so far; it falls when a file has to be started anew
    size: int | None  # bytes of the whole file, where known
    note: str = ""  # what happened besides: a break, another source


OnProgress = Callable[[Progress], None]


def cache_folder() -> Path:
    return Path(os.environ.get("GPT_CACHE") or "~/.cache/gpt").expanduser()


def find_model(name: str, folder: Path | None = None) -> Path | None:
    """The folder with a complete copy of a model, in either layout; None if there is none. Uses no network."""
    home = _home(name, folder)
    return home if any(_is_complete(source, home) for source in find_sources(name)) else None


def missing_message(name: str, folder: Path | None = None) -> str:
    """One line for who is offline: the files, where they are looked for, how to get them."""
    layouts = dict.fromkeys(" + ".join(file for file, *_ in source.files()) for source in find_sources(name))
    where = f"{_home(name, folder)}{'' if folder else ' (the environment variable GPT_CACHE moves it)'}"
    command = f"python -m scripts.download {name}{f' --to {folder}' if folder else ''}"
    return f"{', or '.join(layouts)}, not found in {where}: copy it there, or go online and run {command}"


def download(
    name: str, folder: Path | None = None, *, host: str | None = None,
    on_progress: OnProgress = lambda progress: None, **patience: float,
) -> Path:  # fmt: skip
    """The folder of a model or the file of a data set, fetched into `folder / name` unless it is there already.

    `folder` is the cache if not given, `host` allows one source only, `patience` goes to `download_file`.
    Raises ValueError for an unknown name, LocalError, and DownloadError when all sources have failed.
    """
    home, failures = _home(name, folder), []
    sources = sorted(find_sources(name, host), key=lambda source: not _is_complete(source, home))
    for source in sources:  # a complete copy first: it needs no network
        try:
            for file, url, size, sha256 in source.files():
                if not _is_whole(home / file, size):
                    download_file(url, home / file, size=size, sha256=sha256, on_progress=on_progress, **patience)
            return home if source.format in BESIDE else home / file
        except LocalError:
            raise
        except DownloadError as error:
            failures.append(f"{source.host}: {str(error).removeprefix(f'{url}: ')}")
            on_progress(Progress(file, 0, size, f"{source.host} failed: {error}"))
    raise DownloadError(f"{missing_message(name, folder)} (tried {'; '.join(failures)})")


def download_file(
    url: str, path: Path, *, size: int | None = None, sha256: str | None = None,
    on_progress: OnProgress = lambda progress: None, timeout: float = 30.0, n_tries: int = 8, wait: float = 1.0,
) -> Path:  # fmt: skip
    """Fetch one file of `size` bytes, going on from what an earlier call has left. Raises DownloadError.

    A connection counts as dead after `timeout` seconds without a byte. `n_tries` in a row may bring nothing new, two
    if the host never answers; between them lie `wait` seconds, doubled each time.
    """
    transfer = _Transfer(url, path, size, sha256, on_progress, timeout)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone_with(path, "fetching"):
            transfer.run(n_tries, wait)
    except DownloadError:
        raise
    except BusyError as error:
        raise LocalError(str(error)) from None
    except OSError as error:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        kept = f"{transfer.n_bytes():,} bytes are kept, so run this again once that is mended"
        raise LocalError(f"cannot write {path}: {what}; {kept}") from error
    return path


def _home(name: str, folder: Path | None) -> Path:
    return Path(folder or cache_folder()) / OPENAI_NAMES.get(name, name)


def _is_whole(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _is_complete(source: Source, home: Path) -> bool:
    return all(_is_whole(home / file, size) for file, _, size, _ in source.files())


class _Transfer:
    """One file on its way: its bytes in `<file>.part`, what they are the beginning of in `<file>.part.json`."""

    def __init__(
        self, url: str, path: Path, size: int | None, sha256: str | None, on_progress: OnProgress, timeout: float
    ) -> None:
        self.url, self.path, self.size, self.sha256 = url, path, size, sha256
        self.on_progress, self.timeout = on_progress, timeout
        self.part = path.with_name(path.name + ".part")
        self.tag_path = path.with_name(path.name + ".part.json")

    def report(self, n_bytes: int, size: int | None, note: str = "") -> None:
        self.on_progress(Progress(self.path.name, n_bytes, size, note))

    def n_bytes(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def remove(self) -> None:
        self.tag_path.unlink(missing_ok=True)  # first, for bytes without a tag are never built on
        self.part.unlink(missing_ok=True)

    def run(self, n_tries: int, wait: float) -> None:
        """Request until the file is whole and verified, or several tries in a row have brought nothing new."""
        begun = furthest = self.n_bytes()
        n_failures, limit = 0, min(2, n_tries)  # offline is said soon; a host that has answered is waited for
        while True:
            try:
                self.request()
                os.replace(self.part, self.path)
                return self.tag_path.unlink(missing_ok=True)
            except TryAgain as error:
                (reason, pause), limit = error.args, n_tries
            except requests.RequestException as error:
                reason, pause = _reason(self.url, error), 0.0
            n_failures = 1 if self.n_bytes() > furthest else n_failures + 1
            furthest = max(furthest, self.n_bytes())
            if n_failures >= (n_tries if furthest > begun else limit):
                kept = f" ({self.n_bytes():,} bytes are kept: run this again later)" if self.n_bytes() else ""
                raise DownloadError(f"{self.url}: {reason}{kept}")
            pause = min(max(pause, wait * 2 ** (n_failures - 1)), LONGEST_WAIT)
            self.report(self.n_bytes(), self.size, f"{reason}, next try in {pause:.0f} s")
            time.sleep(pause)

    def request(self) -> None:
        """Ask once for what the part lacks, then check the whole."""
        tag = self.read_tag()
        start = self.n_bytes() if tag else 0
        if not tag or start != tag["size"]:
            headers = {"Accept-Encoding": "identity"}  # else sizes and positions are those of compressed bytes
            if start:
                headers |= {"Range": f"bytes={start}-"} | ({"If-Range": tag["version"]} if tag["version"] else {})
            timeout = (min(10.0, self.timeout), self.timeout)  # until connected, between two bytes
            with requests.get(self.url, headers=headers, stream=True, timeout=timeout) as response:
                if self.is_rest(response, start, tag):
                    self.report(start, tag["size"], f"going on from {start:,} bytes")
                else:
                    tag = self.begin(response)
                    self.report(0, tag["size"], "the server does not send the rest alone: anew" if start else "")
                self.append(response, tag["size"])
        with open(self.part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if tag["sha256"] not in (None, found):
            self.remove()
            raise DownloadError(f"{self.url}: SHA-256 is {found} instead of {tag['sha256']}; removed it, run again")

    def read_tag(self) -> dict:
        """What the part is the beginning of: url, version, size, sha256. Empty if the part is of no use."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            tag = json.loads(self.tag_path.read_text(encoding="utf-8"))
            is_ours = tag["url"] == self.url and self.size in (None, tag["size"])
            if is_ours and self.sha256 in (None, tag["sha256"]) and (tag["version"] or tag["sha256"]):
                return tag
        return {}

    def is_rest(self, response: requests.Response, start: int, tag: dict) -> bool:
        """Whether an answer goes on from byte `start`; if not, it is the whole file. Raises for anything else."""
        status = response.status_code
        if status in BUSY:
            raise TryAgain(f"the server answered {status} {response.reason}", retry_after(response))
        if start and status in (206, 416):
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            fits = status == 206 and found and int(found[1]) == start and found[2] in ("*", str(tag["size"]))
            if fits and _version(response) in (None, tag["version"]):  # some servers do not know If-Range
                return True
            self.remove()
            raise TryAgain(f"what the server has from byte {start:,} on does not fit, starting anew", 0.0)
        if status != 200:
            raise DownloadError(f"{self.url}: the server answered {status} {response.reason}, try another source")
        return False

    def begin(self, response: requests.Response) -> dict:
        """The whole file comes: forget what there was and note what this is."""
        size, sha256 = _linked(response)
        size, sha256, announced = self.size or size, self.sha256 or sha256, _number(response, "Content-Length")
        if None not in (size, announced) and size != announced:
            raise DownloadError(f"{self.url}: has {announced:,} bytes instead of {size:,}, try another source")
        tag = {"url": self.url, "version": _version(response), "size": size or announced, "sha256": sha256}
        self.remove()
        self.part.touch()
        self.tag_path.write_text(json.dumps(tag), encoding="utf-8")
        return tag

    def append(self, response: requests.Response, size: int | None) -> None:
        n_bytes = self.n_bytes()
        with open(self.part, "ab") as file:
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                n_bytes += len(chunk)
                if size is not None and n_bytes > size:
                    self.remove()
                    raise DownloadError(f"{self.url}: sends more than {size:,} bytes, try another source")
                self.report(n_bytes, size)
            file.flush()
            os.fsync(file.fileno())
        if size is not None and n_bytes < size:
            raise TryAgain("the connection was cut", 0.0)


def _reason(url: str, error: requests.RequestException) -> str:
    """What broke a connection. DownloadError if trying again would not help."""
    if isinstance(error, requests.exceptions.SSLError) or not isinstance(error, PASSING):
        raise DownloadError(f"{url}: {error}") from error
    return cause(error)


def cause(error: requests.RequestException) -> str:
    """What broke a connection, in a few words."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "no answer in time"
    cut = ("Remote end closed", "Connection aborted", "IncompleteRead", "Connection broken")
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or any(text in str(error) for text in cut):
        return "the connection was cut"
    return str(error).rpartition(": ")[2].partition('"')[0]  # the cause stands last


def retry_after(response: requests.Response) -> float:
    """Seconds that the server asks to wait, given as a number or as a date; 0 if it does not ask."""
    with suppress(InvalidHeader):
        return Retry().get_retry_after(response.raw) or 0.0
    return 0.0


def _version(response: requests.Response) -> str | None:
    etag = response.headers.get("ETag", "W/")  # W/ marks one that is not exact to the byte
    return response.headers.get("Last-Modified") if etag.startswith("W/") else etag


def _number(response: requests.Response, header: str) -> int | None:
    text = response.headers.get(header, "")
    return int(text) if text.isdecimal() else None


def _linked(response: requests.Response) -> tuple[int | None, str | None]:
    """Size and SHA-256 as Hugging Face states them where it redirects to the bytes (of small files no SHA-256)."""
    size, sha256 = None, None
    for answer in (*response.history, response):
        size = _number(answer, "X-Linked-Size") or size
        etag = answer.headers.get("X-Linked-ETag", "").strip('"')
        sha256 = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else sha256
    return size, sha256
