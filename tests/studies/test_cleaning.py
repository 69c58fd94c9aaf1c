"""The question whether cleaning matters: what the three ways train on, and what judges them."""

import json
import random
from pathlib import Path

import pytest

from gpt.curation.dedup import make_dedup
from gpt.curation.filters import first_reason, make_filters
from gpt.studies.cleaning import JUNK, cleaned, cleaning, with_junk
from gpt.text.entries import load_entries, near_duplicates, split_entries
from gpt.training.train import TrainConfig
from scripts import experiment as script

pytest.importorskip("datasketch", reason="pip install -e '.[curate]'")
ENTRIES = load_entries(Path(__file__).parents[2] / "data" / "instructions.json")[:600:2]
SIDES = split_entries(ENTRIES)


def arms_of(junk: float) -> dict[str, list[dict]]:
    return {arm.name.split(" ")[0]: arm.train for arm in cleaning(SIDES, TrainConfig(), junk).arms}


def test_junk_is_the_share_that_was_asked_for_and_no_entry_is_lost() -> None:
    raw = with_junk(ENTRIES, 0.4, seed=1)
    assert len(raw) == 500 and [e for e in ENTRIES if e not in raw] == []
    assert with_junk(ENTRIES, 0.4, seed=1) == raw != with_junk(ENTRIES, 0.4, seed=2)
    with pytest.raises(ValueError, match="below 1: found 1"):
        with_junk(ENTRIES, 1.0, seed=1)


@pytest.mark.parametrize("kind", JUNK)
def test_cleaning_finds_nearly_all_junk_of(kind: str) -> None:
    checks, duplicate, rng = make_filters(), make_dedup(), random.Random(0)
    sound = [e for e in ENTRIES if not e["input"] and len(e["instruction"]) > 60 and e["output"].strip()][:40]
    for number, e in enumerate(sound):
        duplicate(number, e)
    junk = [JUNK[kind](e, rng) for e in sound]
    n_found = sum(first_reason(e, checks) is not None or duplicate(99, e) is not None for e in junk)
    assert len(sound) > 20 and n_found >= 0.85 * len(junk)


@pytest.mark.long
def test_the_three_ways_are_the_raw_set_what_cleaning_leaves_and_as_many_at_random() -> None:
    arms = arms_of(0.5)
    assert arms["before"] == [] and len(arms["raw"]) == 2 * len(SIDES[0])
    assert arms["cleaned"] == cleaned(arms["raw"]) and len(arms["random"]) == len(arms["cleaned"]) < len(arms["raw"])
    assert all(e in arms["raw"] for e in arms["random"]) and arms["random"] != arms["cleaned"]
    assert arms_of(0.0)["raw"] != SIDES[0] and sorted(map(json.dumps, arms_of(0.0)["raw"])) == sorted(
        map(json.dumps, SIDES[0])
    )


@pytest.mark.long
def test_the_rows_that_judge_are_sound_and_near_to_none_that_is_trained_on() -> None:
    experiment = cleaning(SIDES, TrainConfig(), 0.5)
    raw, test = experiment.arms[1].train, experiment.test
    assert len(test) >= 20 and cleaned(test) == test
    assert not [1 for i, j in near_duplicates(raw + test) if i < len(raw) <= j]
    assert all(len(texts) == len(test) for texts in experiment.floors.values())
    assert all(arm.val == experiment.arms[1].val for arm in experiment.arms[1:])
    with pytest.raises(ValueError, match="no sound test entry is left"):
        cleaning((SIDES[0], SIDES[1], SIDES[0][:5]), TrainConfig())


@pytest.mark.long
def test_the_script_draws_rows_adds_junk_and_names_it_among_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "set.json").write_text(json.dumps(ENTRIES))
    monkeypatch.setattr(script, "run_arm", lambda experiment, arm, seed, *rest: ["yes"] * len(experiment.test))
    flags = ["--out", str(tmp_path), "--data", str(tmp_path / "set.json"), "--rows", "200", "--seeds", "1"]
    assert script.main(["cleaning", "--junk", "0.5", *flags]) == 0
    shown = capsys.readouterr().out
    assert "| sound rows | raw (340 rows)" in shown and "| cleaned (1" in shown
    assert json.loads((tmp_path / "cleaning.json").read_text())["settings"]["junk"] == 0.5
    assert script.main(["cleaning", *flags]) == 2
    assert "other settings (junk)" in capsys.readouterr().err
    assert script.main(["loss-on", "--junk", "0.5", *flags]) == 2
    assert "--junk is for the question cleaning" in capsys.readouterr().err
