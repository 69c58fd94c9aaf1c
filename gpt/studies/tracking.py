"""A run's curves while it goes on: `history.csv` always, TensorBoard's events on request.

A run that was killed has steps in its curves that its state does not know and that come again. So the table is written
anew from the history before it grows, and TensorBoard is told from which step on the old events do not count.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

from gpt.text.dataset import FIRST_KIND
from gpt.weights.checkpoint import read_json, write_atomically

Record = Callable[[dict], None]  # takes one report of `train_run`
COLUMNS = ("step", "epoch", "loss", "lr", "n_tokens", "seconds", "skipped", "micro_batch")


def numbers(report: dict) -> dict[str, float]:
    """A report as one row: its numbers, and those of the validation as `val_all`, `val_header`, `val_response`."""
    row = {name: report.get(name) for name in COLUMNS} | report.get("scores", {})
    row |= {f"val_{name}": value for name, value in (report["val"] or {}).items()}
    return {name: value for name, value in row.items() if value is not None}


@contextmanager
def track_csv(folder: Path, history: Sequence[dict], scores: Sequence[str] = ()) -> Iterator[Record]:
    """RUN/history.csv, a line a step, there for `tail -f` as soon as the step is done."""
    columns = [*COLUMNS, *scores, *(f"val_{name}" for name in (*FIRST_KIND, *scores))]

    def lines(reports: Sequence[dict], header: bool) -> str:
        text = io.StringIO()
        table = csv.DictWriter(text, columns, lineterminator="\n")
        if header:
            table.writeheader()
        table.writerows(map(numbers, reports))
        return text.getvalue()

    path = folder / "history.csv"
    write_atomically(path, lambda part: part.write_text(lines(history, header=True), encoding="utf-8"))
    with path.open("a", encoding="utf-8", buffering=1) as file:
        yield lambda report: file.write(lines([report], header=False))


@contextmanager
def track_tensorboard(folder: Path, history: Sequence[dict]) -> Iterator[Record]:
    """RUN/tensorboard/, for `tensorboard --logdir runs`."""
    from torch.utils.tensorboard import SummaryWriter  # here: the package is an extra

    known = history[-1]["step"] if history else -1
    with SummaryWriter(str(folder / "tensorboard"), purge_step=known + 1, flush_secs=10) as writer:

        def record(report: dict) -> None:
            for name, value in numbers(report).items():
                if name != "step":
                    writer.add_scalar(name.replace("val_", "validation/"), value, report["step"])

        yield record


TRACKS = {"tensorboard": track_tensorboard}


def check_track(name: str) -> None:
    """Raises ValueError for a name that is not known, or whose package is missing."""
    if name not in TRACKS:
        raise ValueError(f"track is {name!r}: use {', '.join(TRACKS)}")
    if find_spec(name) is None:
        raise ValueError(f"--track {name} needs a package: pip install -c constraints.txt {name}")


@contextmanager
def tracks(name: str, folder: Path, scores: Sequence[str] = ()) -> Iterator[Record]:
    """Whatever records this run: the table, and the named one, "" for none. They begin with the first report, for
    only then `train_run` has put history.json right. `scores` are what a run has beside losses, such as DPO's."""
    with ExitStack() as stack:
        records: list[Record] = []

        def record(report: dict) -> None:
            if not records:
                path = folder / "history.json"
                known = [row for row in read_json(path, list) if row["step"] < report["step"]] if path.exists() else []
                records.append(stack.enter_context(track_csv(folder, known, scores)))
                records.extend([stack.enter_context(TRACKS[name](folder, known))] if name else [])
            for write in records:
                write(report)

        yield record
