"""Downloading, answering, judging, making and cleaning, killed at random moments: what is kept is kept once, nothing
half has its final name, and the end is what it is without a kill."""

import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from gpt.evaluation import judge
from gpt.model.gpt2 import GPTConfig
from gpt.text.entries import load_entries
from gpt.weights.checkpoint import save_model
from scripts.new_run import ENTRIES
from tests.judge_server import oracle, serving
from tests.killing import kill_often, run, start
from tests.reference import random_model
from tests.test_curate_make import teacher
from tests.weights.test_download import LAYOUT, Handler

pytestmark = pytest.mark.slow
N_WORKERS = 3


def lines_of(path: Path) -> list[dict]:
    """The lines of a file that are whole; those of a killed process may be half."""
    found = []
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            assert len(line) < 5000  # it is one line, and not several that ran into each other
    return found


def same_or_none(folder: Path, straight: Path, names: list[str], within: str = ".") -> None:
    """What has its final name is what it would have been without a kill, but for the folder's own name in it."""
    for name in names:
        wanted = (straight / within / name).read_bytes().replace(straight.name.encode(), folder.name.encode())
        path = folder / within / name
        assert not path.exists() or path.read_bytes() == wanted, name


def check_pictures(folder: Path) -> None:
    for path in folder.glob("*.png"):
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), path


# ---- downloading ----


class SlowHandler(Handler):
    """Sends 32 KB in a hundredth of a second."""

    def do_GET(self) -> None:
        self.server.n_now += 1
        try:
            super().do_GET()
        except OSError:
            self.close_connection = True  # the client has been killed
        finally:
            self.server.n_now -= 1

    def send_body(self, body: bytes) -> None:
        for i in range(0, len(body), 1 << 15):
            time.sleep(0.01)
            super().send_body(body[i : i + (1 << 15)])


@pytest.fixture
def files() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowHandler)
    server.files = {f"/774M/{name}": random.Random(name).randbytes(2_000_000 // 4**i) for i, name in enumerate(LAYOUT)}
    server.faults, server.asked, server.headers_seen, server.n_sent, server.n_now = [], [], [], 0, 0
    server.handle_error = lambda *args: None
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_killed_download_goes_on_where_it_was(files: ThreadingHTTPServer, tmp_path: Path) -> None:
    log, mirror = tmp_path / "log", f"http://127.0.0.1:{files.server_address[1]}"
    kept: dict[str, int] = {}

    def argv(n: int | str) -> list[object]:
        return ["gpt2-large", "--source", "openai", "--to", tmp_path / str(n)]

    def begin(n: int) -> object:
        folder = tmp_path / str(n) / "gpt2-large"
        files.asked.clear()
        kept.clear()
        for name in LAYOUT:
            part, tag = folder / f"{name}.part", folder / f"{name}.part.json"
            is_known = part.exists() and tag.exists() and tag.read_bytes().endswith(b"}")
            kept[name] = part.stat().st_size if is_known else 0
        return start("download", argv(n), log, GPT_MIRROR_OPENAI=mirror)

    def look(n: int, is_over: bool) -> None:
        folder = tmp_path / str(n) / "gpt2-large"
        time.sleep(0.05)
        while files.n_now:
            time.sleep(0.01)
        for name in LAYOUT:
            body, part = files.files[f"/774M/{name}"], folder / f"{name}.part"
            assert not (folder / name).exists() or (folder / name).read_bytes() == body
            assert not part.exists() or body.startswith(part.read_bytes())
            asked = [ranges for path, ranges, _ in files.asked if path == f"/774M/{name}"]
            assert len(asked) <= 1
            assert not asked or asked[0] == (f"bytes={kept[name]}-" if kept[name] else None)
            n_resumed.append(bool(asked and kept[name]))
        assert not is_over or {path.name for path in folder.iterdir()} == set(LAYOUT)

    n_resumed: list[bool] = []
    seconds = run("download", argv("straight"), log, GPT_MIRROR_OPENAI=mirror)
    print(kill_often(begin, look, seconds, log), f"{sum(n_resumed)} files went on in the middle", sep=", ")
    assert sum(n_resumed) > 5


# ---- judging ----


def test_a_killed_judge_loses_no_verdict_and_asks_none_twice(tmp_path: Path) -> None:
    log, entries = tmp_path / "log", load_entries(ENTRIES)[::100]
    rows = [e | {"model_response": e["output"] if i % 2 else f"No, {i}."} for i, e in enumerate(entries)]
    known: set[str] = set()
    n_asked, n_kills = [0], [0]

    def folder(n: int | str) -> Path:
        (tmp_path / str(n)).mkdir(exist_ok=True)
        (tmp_path / str(n) / "responses.json").write_text(json.dumps(rows))
        return tmp_path / str(n)

    with serving(lambda prompt: time.sleep(0.03) or oracle(prompt), ["oracle"]) as server:

        def argv(n: int | str) -> list[object]:
            cache = tmp_path / "cache" / str(time.monotonic_ns())  # another one each time: verdicts alone must know
            return [folder(n), "--base-url", server.url, "--model", "oracle", "--calibration", "5", "--workers",
                    N_WORKERS, "--cache", cache]  # fmt: skip

        def begin(n: int) -> object:
            server.asked.clear()
            known.clear()
            known.update(row["question"] for row in lines_of(folder(n) / "verdicts.jsonl"))
            return start("judge", argv(n), log)

        def look(n: int, is_over: bool) -> None:
            while server.n_now:
                time.sleep(0.01)
            kept = [row["question"] for row in lines_of(folder(n) / "verdicts.jsonl")]
            assert len(kept) == len(set(kept)), "a verdict stands there twice"
            assert known <= set(kept), "a verdict is lost"
            asked = [judge.Question(0, "", "", "", b["messages"][0]["content"]).digest for b in server.asked]
            assert not known & set(asked), "what was kept is asked again"
            same_or_none(folder(n), folder("straight"), ["judge.json", "judge.md"])
            check_pictures(folder(n))
            n_asked[0], n_kills[0] = n_asked[0] + len(asked), n_kills[0] + (not is_over)
            if is_over:
                assert len(kept) == n_questions <= n_asked[0] <= n_questions + N_WORKERS * n_kills[0]
                n_asked[0] = n_kills[0] = 0

        seconds = run("judge", argv("straight"), log)
        n_questions = len(lines_of(folder("straight") / "verdicts.jsonl"))
        print(kill_often(begin, look, seconds, log), f"{n_questions} verdicts each time", sep=", ")


# ---- making ----


def instructions_of(rows: list[dict]) -> set[str]:
    return {entry["instruction"] for row in rows for entry in row.get("entries", [])}


@pytest.mark.parametrize(("command", "ending"), [("answers", "jsonl"), ("answers", "json"), ("self-instruct", "jsonl")])
def test_a_killed_maker_loses_no_entry_and_makes_none_twice(tmp_path: Path, command: str, ending: str) -> None:
    log, source = tmp_path / "log", tmp_path / "in.json"
    source.write_text(json.dumps([f"Say something kind about neighbor number {i}." for i in range(60)]))
    what = {"answers": ["--in", source], "self-instruct": ["-n", 25, "--batch", N_WORKERS]}[command]
    known: list[dict] = []
    n_asked, n_kills = [0], [0]

    def out(n: int | str) -> Path:
        return tmp_path / str(n) / f"made.{ending}"

    with serving(lambda prompt: time.sleep(0.04) or teacher(prompt), ["cheap"]) as server:

        def argv(n: int | str) -> list[object]:
            cache = tmp_path / "cache" / str(time.monotonic_ns())  # another one each time: the journal alone must know
            return [command, *what, "--out", out(n), "--base-url", server.url, "--model", "cheap", "--workers",
                    N_WORKERS, "--cache", cache]  # fmt: skip

        def begin(n: int) -> object:
            server.asked.clear()
            known[:] = lines_of(out(n).with_suffix(".journal.jsonl"))
            return start("curate", argv(n), log)

        def look(n: int, is_over: bool) -> None:
            while server.n_now:
                time.sleep(0.01)
            kept = lines_of(out(n).with_suffix(".journal.jsonl"))
            jobs = [row["job"] for row in kept if "job" in row]
            assert len(jobs) == len(set(jobs)), "a job stands there twice"
            assert kept[: len(known)] == known, "a job is lost"
            asked = [body["messages"][0]["content"] for body in server.asked]
            if command == "answers":  # there every prompt tells its job
                assert not any(text in prompt for text in instructions_of(known) for prompt in asked)
            if ending == "json":  # of JSON Lines the rows stand there as they come
                same_or_none(tmp_path / str(n), tmp_path / "straight", [out(n).name])
            made = lines_of(out(n)) if ending == "jsonl" else []
            assert {row["instruction"] for row in made} <= instructions_of(kept)
            n_asked[0], n_kills[0] = n_asked[0] + len(asked), n_kills[0] + (not is_over)
            if is_over:
                n_needed = sum(row["requests"] for row in kept if "job" in row)
                per_job = n_needed / len(jobs) if command == "answers" else 7  # a task: three requests, or more
                assert n_needed <= n_asked[0] <= n_needed + per_job * N_WORKERS * n_kills[0]
                n_asked[0] = n_kills[0] = 0
                for name in (out(n).name, "made.dropped.jsonl"):
                    assert (tmp_path / str(n) / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()

        seconds = run("curate", argv("straight"), log)
        print(
            kill_often(begin, look, seconds, log), f"{len(load_entries(out('straight')))} entries each time", sep=", "
        )


# ---- cleaning ----


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("command", ["filter", "dedup", "pipeline"])
def test_a_killed_cleaner_leaves_a_whole_file_or_none(tmp_path: Path, command: str, ending: str) -> None:
    for module in ("ftfy", "better_profanity", "datasketch", "presidio_analyzer", "sklearn"):
        pytest.importorskip(module, reason="pip install -e '.[curate]'")
    log, source, names = tmp_path / "log", tmp_path / "in.json", [f"clean.{ending}", "clean.dropped.jsonl"]
    source.write_text(json.dumps(load_entries(ENTRIES)[::4]))

    def argv(name: str) -> list[object]:
        return [command, "--in", source, "--out", tmp_path / name / f"clean.{ending}"]

    def look(n: int, is_over: bool) -> None:
        folder, straight = tmp_path / f"{n:08}", tmp_path / "straight"  # names of one length: a card is a table
        same_or_none(folder, straight, names)
        if command == "pipeline":
            same_or_none(folder, straight, ["card.md", "card.html"], within="clean.card")
        check_pictures(folder / "clean.card")
        left = {path.name for path in folder.iterdir()} if folder.exists() else set()
        assert not is_over or left == {path.name for path in straight.iterdir()}

    seconds = run("curate", argv("straight"), log)
    print(kill_often(lambda n: start("curate", argv(f"{n:08}"), log), look, seconds, log))


# ---- answering ----


def test_a_killed_evaluation_leaves_whole_files(tmp_path: Path) -> None:
    log, base, trained, data = (tmp_path / name for name in ("log", "base", "run", "some.json"))
    save_model(random_model(GPTConfig(context_length=256, n_embd=16, n_layer=2, n_head=2)), base)
    data.write_text(json.dumps(load_entries(ENTRIES)[::60]), encoding="utf-8")
    flags = ["--epochs", 1, "--device", "cpu", "--no-self-check"]
    run("finetune", ["--model", base, "--data", data, "--out", trained, *flags], log)
    names = ["responses.json", "metrics.json", "report.md"]

    def argv(n: int | str) -> list[object]:
        return [trained, "--out", tmp_path / str(n), "--device", "cpu", "-k", 1]

    def look(n: int, is_over: bool) -> None:
        same_or_none(tmp_path / str(n), tmp_path / "straight", names)
        check_pictures(tmp_path / str(n))
        assert not is_over or all((tmp_path / str(n) / name).exists() for name in names)

    seconds = run("evaluate", argv("straight"), log)
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    print(kill_often(lambda n: start("evaluate", argv(n), log), look, seconds, log))
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
