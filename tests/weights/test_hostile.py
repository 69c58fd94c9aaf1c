"""Model and run folders from strangers: whatever stands in the files, the answer is a model or one of our errors,
soon, and without more memory than the files have."""

import json
import shutil
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.training.run import RunSettings, load_settings, load_state, save_settings, save_state
from gpt.training.train import TrainConfig, make_optimizer, make_scaler
from gpt.weights import checkpoint
from gpt.weights.checkpoint import CheckpointError, load_model, save_model

CONFIG = GPTConfig(vocab_size=90, context_length=16, n_embd=8, n_layer=2, n_head=2)
OURS = (ValueError, OSError)  # CheckpointError is a ValueError
FEW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small model, with its newest state."""
    folder, model, config = tmp_path_factory.mktemp("hostile") / "run", GPT(CONFIG), TrainConfig()
    save_model(model, folder)
    save_settings(folder, RunSettings("gpt2", "x.json", "0" * 64, "alpaca", "grouped", config), {})
    history = [{"step": 1, "val": None, "loss": 1.0}]
    save_state(folder, model, make_optimizer(model, config), make_scaler(model.device, "float32"), history)
    return folder


def read_all(folder: Path) -> None:
    """What scripts.finetune --resume and scripts.respond read, each answered by a value or one of our errors."""
    model = GPT(CONFIG)
    readers = (
        lambda: load_model(folder),
        lambda: load_settings(folder),
        lambda: load_state(folder, model, make_optimizer(model, TrainConfig()), make_scaler(model.device, "float32")),
    )
    for reader in readers:
        try:
            reader()
        except OURS as error:
            assert str(error)


@pytest.mark.long
@FEW
@given(
    name=st.sampled_from(["config.json", "model.safetensors", "training.json", "last/state.pt"]),
    place=st.floats(0, 1),
    change=st.sampled_from(["flip", "cut", "insert", "repeat", "empty"]),
    more=st.binary(min_size=1, max_size=12),
)
def test_damaged_bytes_are_a_model_or_our_error(run: Path, name: str, place: float, change: str, more: bytes) -> None:
    path = run / name
    whole = path.read_bytes()
    i = int(place * (len(whole) - 1))
    damaged = {
        "flip": whole[:i] + more + whole[i + len(more) :],
        "cut": whole[:i],
        "insert": whole[:i] + more + whole[i:],
        "repeat": whole[:i] + whole,
        "empty": b"",
    }[change]
    try:
        path.write_bytes(damaged)
        read_all(run)
    finally:
        path.write_bytes(whole)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.long
@FEW
@given(name=st.sampled_from(["config.json", "training.json"]), data=st.data(), value=JSON)
def test_any_value_in_a_field_is_a_model_or_our_error(run: Path, name: str, data: st.DataObject, value: object) -> None:
    path = run / name
    whole = path.read_text(encoding="utf-8")
    found = json.loads(whole)
    place = found["config"] if name == "training.json" and data.draw(st.booleans()) else found
    place[data.draw(st.sampled_from(sorted(place)))] = value
    try:
        path.write_text(json.dumps(found), encoding="utf-8")
        read_all(run)
    finally:
        path.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("field", ["n_layer", "vocab_size", "n_positions", "n_embd", "n_head"])
@pytest.mark.parametrize("value", [3, 10**6, 10**12, 2**63, 10**30])
def test_a_configuration_of_another_size_is_refused_before_it_is_built(
    run: Path, tmp_path: Path, field: str, value: int
) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {field: value}))
    tracemalloc.start()
    began = time.monotonic()
    with pytest.raises(CheckpointError):
        load_model(folder)
    assert time.monotonic() - began < 5
    assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    tracemalloc.stop()


def test_without_that_check_a_million_blocks_would_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(checkpoint.GPT, "without_weights", lambda config: seen.append(config.n_layer) or GPT(CONFIG))
    with pytest.raises(CheckpointError, match="0 blocks, the configuration says 1000000"):
        checkpoint._build(GPTConfig(n_layer=10**6), [], Path("x"))
    assert not seen
