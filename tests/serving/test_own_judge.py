"""Our judge asks our own server: both ends of the protocol are ours, and neither knows the other."""

import json
from pathlib import Path

import pytest

from gpt.serving.protocol import Served
from gpt.serving.server import make_app
from gpt.studies import judge_report
from gpt.text.tokenizer import Tokenizer
from gpt.weights.checkpoint import load_model
from scripts import judge
from tests.serving.conftest import load, running

N = 6


@pytest.mark.long
def test_our_judge_asks_our_server_and_calls_a_model_that_cannot_judge_unfit(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judge_report, "judge_figures", lambda *args: {})  # drawing takes longer than judging
    rows = [
        {"instruction": f"Name animal {i}.", "input": "", "output": name, "model_response": name.upper(),
         "base_response": "", "stopped_by": "end_of_text"}
        for i, name in enumerate(["cat", "dog", "owl", "fox", "hen", "cow"])
    ]  # fmt: skip
    (tmp_path / "responses.json").write_text(json.dumps(rows), encoding="utf-8")
    with running(make_app(Served(load_model("gpt2-tiny"), tokenizer, "tiny"))) as url:
        flags = [str(tmp_path), "--base-url", url, "--model", "tiny", "--max-tokens", "4", "--workers", "3"]
        assert judge.main([*flags, "--calibration", "5"]) == 0
        assert load(url) == (0, 0)
        verdicts = (tmp_path / "verdicts.jsonl").read_bytes()
        assert judge.main([*flags, "--calibration", "5"]) == 0
    assert (tmp_path / "verdicts.jsonl").read_bytes() == verdicts  # the second time nothing is asked
    found = json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))
    assert found["n"] == N == found["scored"] + found["unreadable"]
    assert found["calibration"]["fit"] is False
    assert "unfit" in (tmp_path / "judge.md").read_text(encoding="utf-8")
