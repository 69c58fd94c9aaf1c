"""One process at a time, with real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpt.hardware.locks import BusyError, alone_with

HOLD = """
import sys, time
from pathlib import Path
from gpt.hardware.locks import alone_with
with alone_with(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.long
def test_a_second_process_is_told_so_and_a_killed_one_does_not_stand_in_the_way(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match=r"another process is writing to .*run: wait for it"),
            alone_with(tmp_path / "run"),
        ):
            pass
        with alone_with(tmp_path / "other"):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / "run.lock").exists()  # "locked where there is a lock file" would be locked for ever
    with alone_with(tmp_path / "run"):
        pass
    assert not list(tmp_path.glob("*.lock"))


def test_the_folder_that_one_stands_in_is_locked_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    for here in (Path("."), Path("../run"), tmp_path / "run"):
        with alone_with(here):
            assert (tmp_path / "run.lock").exists()
            with pytest.raises(BusyError), alone_with(tmp_path / "run"):
                pass
    assert not list(tmp_path.rglob("*.lock"))


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), alone_with(tmp_path / "run"):
        raise RuntimeError
    with alone_with(tmp_path / "run"):
        pass
