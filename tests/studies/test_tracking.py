"""Curves of a run: the table, and TensorBoard's events as TensorBoard reads them."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt.studies.tracking import check_track, tracks


def report(step: int, loss: float | None = None) -> dict:
    val = {"all": 3.0 + step, "header": 2.0 + step, "response": 1.0 + step} if step % 2 == 0 else None
    return {
        "step": step, "n_steps": 6, "epoch": step / 3, "loss": loss, "lr": 1e-3, "n_tokens": 10 * step, "val": val,
        "skipped": False, "micro_batch": 8, "seconds": 0.5,
    }  # fmt: skip


REPORTS = [report(0), *(report(step, loss=5.0 - step) for step in range(1, 7))]


def record(folder: Path, first: int, last: int, name: str) -> None:
    """A process that knows the steps before `first` from its state, and is killed after `last`."""
    (folder / "history.json").write_text(json.dumps(REPORTS[:first]))
    with tracks(name, folder) as write:
        for one in REPORTS[first : last + 1]:
            write(one)


def rows(folder: Path) -> list[dict]:
    with (folder / "history.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_each_step_once_after_a_kill(tmp_path: Path) -> None:
    record(tmp_path, 0, 5, "")
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3", "4", "5"]
    record(tmp_path, 4, 6, "")  # its newest state was that of step 3: 4 and 5 come again
    found = rows(tmp_path)
    assert [row["step"] for row in found] == ["0", "1", "2", "3", "4", "5", "6"]
    assert found[0]["loss"] == "" and found[3]["loss"] == "2.0"
    assert found[2]["val_response"] == "3.0" and found[3]["val_response"] == ""


def test_a_line_is_there_as_soon_as_the_step_is_done(tmp_path: Path) -> None:
    with tracks("", tmp_path) as write:
        for n, one in enumerate(REPORTS, start=1):
            write(one)
            assert len(rows(tmp_path)) == n


def test_tensorboard_reads_the_curves_and_not_the_steps_that_came_again(tmp_path: Path) -> None:
    record(tmp_path, 0, 5, "tensorboard")
    record(tmp_path, 4, 6, "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(n, 5.0 - n) for n in range(1, 7)]
    assert [(e.step, e.value) for e in events.Scalars("validation/response")] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    kept = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=False)
    kept.Reload()
    assert len(kept.Scalars("loss")) == 8  # without purge_step the curve would run twice through 4 and 5


@pytest.mark.parametrize(("name", "message"), [("tensorbord", "use tensorboard"), ("", "use tensorboard")])
def test_an_unknown_tracker_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_track(name)
