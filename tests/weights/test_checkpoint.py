import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from gpt.model.gpt2 import GPT, GPTConfig
from gpt.text.entries import Entry
from gpt.text.prompts import TEMPLATES, format_prompt
from gpt.text.tokenizer import Tokenizer
from gpt.weights import checkpoint
from gpt.weights.checkpoint import TURNED, load_model, openai_name, read_json, save_model, write_atomically, write_json
from gpt.weights.tf_checkpoint import CheckpointError, read_tf_index
from tests.reference import numpy_logits, random_model

OPENAI = Path(__file__).parents[1] / "fixtures" / "openai-small"
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 198, 0]])


def huggingface_twin(tmp_path: Path) -> GPT2LMHeadModel:
    """The fixture's values, as TensorFlow read them back, in Hugging Face's model: our loader has no part in it."""
    sizes = json.loads((OPENAI / "hparams.json").read_text())
    config = GPT2Config(
        vocab_size=sizes["n_vocab"], n_positions=sizes["n_ctx"], n_embd=sizes["n_embd"],
        n_layer=sizes["n_layer"], n_head=sizes["n_head"], bos_token_id=198, eos_token_id=198,
    )  # fmt: skip
    twin = GPT2LMHeadModel(config).eval()
    theirs = dict(twin.transformer.named_parameters())
    expected = np.load(OPENAI / "expected.npz")
    with torch.no_grad():
        for name in expected.files:
            theirs[openai_name(name)].copy_(
                torch.from_numpy(expected[name]).squeeze(0).view_as(theirs[openai_name(name)])
            )
    return twin


@pytest.fixture
def huggingface(tmp_path: Path) -> Path:
    """A folder that transformers wrote itself."""
    huggingface_twin(tmp_path).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_openais_layout_gives_transformers_logits(tmp_path: Path) -> None:
    ours = load_model(OPENAI)
    with torch.no_grad():
        assert (ours(IDS) - huggingface_twin(tmp_path)(IDS).logits).abs().max() < 1e-4
    weights = {name: p.detach().numpy() for name, p in ours.named_parameters()}
    assert np.abs(ours(IDS)[0].detach().numpy() - numpy_logits(weights, IDS[0].tolist(), 3)).max() < 1e-4


def test_openais_and_hugging_faces_layouts_give_identical_logits(huggingface: Path) -> None:
    with torch.no_grad():
        assert torch.equal(load_model(OPENAI)(IDS), load_model(huggingface)(IDS))


def test_matrices_not_turned_would_give_other_logits(huggingface: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """c_proj of the attention is square: turned the wrong way it fits, and nothing but the logits tells."""
    right = load_model(huggingface)(IDS)
    wrong = load_model(huggingface)
    for block in wrong.h:
        block.attn.c_proj.weight.data = block.attn.c_proj.weight.data.t().contiguous()
    assert (wrong(IDS) - right).abs().max() > 0.01


def test_every_name_of_the_genuine_index_is_one_of_ours() -> None:
    names = read_tf_index(OPENAI.parent / "openai-124M" / "model.ckpt.index")
    with torch.device("meta"):
        ours = {name: p.shape for name, p in GPT(GPTConfig()).named_parameters()}
    assert {openai_name(name) for name in names} == set(ours)
    for theirs, found in names.items():
        shape = found.shape[1:] if len(found.shape) == 3 else found.shape
        name = openai_name(theirs)
        assert tuple(ours[name]) == (shape[::-1] if TURNED.fullmatch(name) else shape), theirs


def test_old_folders_with_mask_buffers_and_without_a_prefix_load(huggingface: Path) -> None:
    """The first files on the hub have no `transformer.` prefix and carry the causal mask as attn.bias."""
    tensors = {n.removeprefix("transformer."): t for n, t in load_file(huggingface / "model.safetensors").items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    right = load_model(huggingface)
    save_file(tensors, huggingface / "model.safetensors", metadata={"format": "pt"})
    found = load_model(huggingface)
    assert all(torch.equal(a, b) for a, b in zip(right.parameters(), found.parameters(), strict=True))
    assert found.h[0].attn.c_attn.bias.abs().sum() > 0  # c_attn.bias is no mask


def test_a_folder_in_several_files_loads(tmp_path: Path, huggingface: Path) -> None:
    huggingface_twin(tmp_path).save_pretrained(tmp_path / "parts", max_shard_size="30KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert torch.equal(load_model(tmp_path / "parts")(IDS), load_model(huggingface)(IDS))


def test_transformers_reads_a_saved_folder(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = random_model()
    save_model(model, tmp_path / "run", "alpaca")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    their_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = torch.tensor([tokenizer.encode("The quick brown fox")])
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    for text in ("Hello,  world!\n\nnaïve 天气 🙂", " leading", "trailing \n"):
        assert their_tokenizer(text)["input_ids"] == tokenizer.encode(text)
        assert their_tokenizer.decode(tokenizer.encode(text)) == text
    assert their_tokenizer.eos_token_id == theirs.config.eos_token_id == tokenizer.eot_id


def test_the_config_of_a_saved_folder_says_what_transformers_writes(tmp_path: Path) -> None:
    """Other values than GPT2Config's own, so that none is right by default."""
    config = GPTConfig(context_length=32, n_embd=48, n_layer=2, n_head=3, dropout=0.3, vocab_size=1000)
    save_model(random_model(config), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    sizes = {"n_positions": 32, "n_embd": 48, "n_layer": 2, "n_head": 3, "vocab_size": 1000}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.3)
    theirs = GPT2Config(**sizes, **dropout, bos_token_id=999, eos_token_id=999, tie_word_embeddings=True).to_dict()
    theirs |= {"n_ctx": 32, "architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
    assert written == {name: theirs[name] for name in written}


@pytest.mark.long
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_chat_template_of_a_saved_folder_writes_our_prompt(
    tmp_path: Path, tokenizer: Tokenizer, template: str
) -> None:
    save_model(random_model(), tmp_path / "run", template)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "run")
    for text in ("Name a colour.", "He said:\n\n{{ x }} 'hi' \\n"):
        entry = Entry(instruction=text, input="", output="")
        message = [{"role": "user", "content": text}]
        assert theirs.apply_chat_template(message, tokenize=False) == format_prompt(entry, template)
        ids = theirs.apply_chat_template(message, tokenize=True, return_dict=True)["input_ids"]
        assert ids == tokenizer.encode(format_prompt(entry, template))


def test_what_is_saved_comes_back_bit_for_bit_and_tied(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "run")
    found = load_model(tmp_path / "run")
    assert found.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), found.parameters(), strict=True))
    assert found.output_weight is found.wte.weight
    with safe_open(tmp_path / "run" / "model.safetensors", framework="pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - safe_open is no dict
        assert file.metadata() == {"format": "pt"}  # without it, earlier versions of transformers refuse the file
    assert found.n_parameters() == model.n_parameters()


def test_an_untied_model_keeps_its_own_output_layer(tmp_path: Path) -> None:
    model = random_model(GPTConfig(context_length=16, n_embd=16, n_layer=1, n_head=2, tied=False))
    save_model(model, tmp_path / "run")
    found = load_model(tmp_path / "run")
    assert torch.equal(found.lm_head.weight, model.lm_head.weight)
    ids = torch.tensor([[1, 2, 3]])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    with torch.no_grad():
        assert (theirs(ids).logits - model(ids)).abs().max() < 1e-4


def test_an_output_layer_that_contradicts_the_tie_is_not_dropped_silently(huggingface: Path) -> None:
    tensors = load_file(huggingface / "model.safetensors")
    copy = tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}
    save_file(copy, huggingface / "model.safetensors", metadata={"format": "pt"})
    load_model(huggingface)  # a plain second copy
    copy["lm_head.weight"] += 1
    save_file(copy, huggingface / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        load_model(huggingface)


@pytest.mark.long
def test_a_compiled_model_is_saved_under_its_own_names(tmp_path: Path) -> None:
    model = random_model()
    compiled = torch.compile(model)
    assert next(iter(compiled.state_dict())).startswith("_orig_mod.")  # what the wrong variant would write
    save_model(compiled, tmp_path / "run")
    assert torch.equal(load_model(tmp_path / "run").wte.weight, model.wte.weight)


def test_float16_halves_the_file_and_loads_as_float32(tmp_path: Path) -> None:
    model = random_model()
    save_model(model, tmp_path / "half", dtype=torch.float16)
    save_model(model, tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.51 * sizes[1]
    found = load_model(tmp_path / "half")
    assert found.wte.weight.dtype == torch.float32
    assert torch.equal(found.wte.weight, model.wte.weight.half().float())


def test_loaded_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    folder = shutil.copytree(OPENAI, tmp_path / "copy")
    model = load_model(folder)
    before = model(IDS)
    data = folder / "model.ckpt.data-00000-of-00001"
    data.write_bytes(b"")
    assert torch.equal(model(IDS), before)


BROKEN_CONFIGS = {
    "activation_function": ("gelu", "activation_function is 'gelu'"),
    "layer_norm_epsilon": (1e-6, "layer_norm_epsilon"),
    "model_type": ("llama", "model_type is 'llama'"),
    "n_embd": (25, "n_embd 25 does not divide"),
    "n_layer": ("two", "n_layer must be a positive number, found 'two'"),
    "n_head": (None, "n_head must be a positive number"),
    "vocab_size": (200, "expected"),
}


@pytest.mark.parametrize("key", BROKEN_CONFIGS)
def test_a_config_of_another_model_is_refused(huggingface: Path, key: str) -> None:
    value, message = BROKEN_CONFIGS[key]
    path = huggingface / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(CheckpointError, match=message):
        load_model(huggingface)


OWN_MEMORY = """
import sys, threading, time
import torch, safetensors.torch
from gpt.weights.checkpoint import load_model

def own():  # bytes that are not the page cache's
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) * 1024

ways = {"ours": lambda: load_model(sys.argv[1]),
        "read whole": lambda: safetensors.torch.load(open(sys.argv[1] + "/model.safetensors", "rb").read())}
def watch():
    while not done:
        peak.append(own())
        time.sleep(0.001)

done, peak, before = [], [0], own()
watcher = threading.Thread(target=watch)
watcher.start()
kept = ways[sys.argv[2]]()
done.append(1)
watcher.join()
print(max(peak) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's own memory")
def test_loading_takes_one_copy_of_the_weights_and_reading_the_file_first_would_take_two(tmp_path: Path) -> None:
    """The mapped file counts as resident, too, but the system can take those pages back."""
    model = random_model(GPTConfig(n_embd=512, n_layer=12, n_head=8))
    save_model(model, tmp_path)
    n_bytes = sum(p.numel() * 4 for p in model.parameters())
    taken = {}
    for way in ("ours", "read whole"):
        done = subprocess.run([sys.executable, "-c", OWN_MEMORY, str(tmp_path), way], capture_output=True, check=True)
        taken[way] = int(done.stdout) / n_bytes
    assert taken["ours"] < 1.15 and taken["read whole"] > 1.8


def test_missing_and_foreign_tensors_are_named(huggingface: Path) -> None:
    tensors = load_file(huggingface / "model.safetensors")
    path = huggingface / "model.safetensors"
    save_file({n: t for n, t in tensors.items() if "ln_2" not in n}, path)
    with pytest.raises(CheckpointError, match=r"4 tensors are missing, the first is h\.0\.ln_2\.bias"):
        load_model(huggingface)
    save_file(tensors | {"transformer.h.0.attn.rotary": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"'h\.0\.attn\.rotary' is none of GPT-2's"):
        load_model(huggingface)


def test_a_damaged_file_is_an_error_of_ours(huggingface: Path) -> None:
    path = huggingface / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(huggingface)
    (huggingface / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        load_model(huggingface)
    (huggingface / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a dict, found a list"):
        load_model(huggingface)


def test_parts_outside_the_folder_are_not_read(huggingface: Path) -> None:
    (huggingface / "model.safetensors").rename(huggingface.parent / "outside.safetensors")
    index = {"weight_map": {"transformer.wte.weight": "../outside.safetensors"}}
    (huggingface / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not in the folder"):
        load_model(huggingface)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"wte": 1}}])
def test_an_index_of_parts_without_a_map_is_refused(huggingface: Path, index: dict) -> None:
    (huggingface / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        load_model(huggingface)
    (huggingface / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="no weight_map that gives a file for each tensor"):
        load_model(huggingface)


def test_files_are_as_readable_as_any_other_new_file(tmp_path: Path) -> None:
    """safetensors makes its own private to their owner, whoever else should read the folder."""
    save_model(random_model(GPTConfig(context_length=16, n_embd=16, n_layer=1, n_head=2)), tmp_path / "run")
    (tmp_path / "other").touch()
    expected = (tmp_path / "other").stat().st_mode
    assert {path.name for path in (tmp_path / "run").iterdir() if path.stat().st_mode != expected} == set()


def test_names_are_looked_up_and_what_is_missing_says_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_CACHE", str(tmp_path))
    for name in ("gpt2-medium", "355M"):
        with pytest.raises(FileNotFoundError, match=r"python -m scripts\.download gpt2-medium"):
            load_model(name)
    assert load_model("gpt2-tiny").n_parameters() == 8_084_864  # bundled
    monkeypatch.setattr(checkpoint, "TINY_FOLDER", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"gpt2-tiny lies in the repository, at .*nowhere, which is not here"):
        load_model("gpt2-tiny")
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"run without a model yet: go on with scripts\.finetune --resume"):
        load_model(tmp_path)
    (tmp_path / "training.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"'gpt3' is neither a folder nor one of gpt2, gpt2-medium"):
        load_model("gpt3")
    with pytest.raises(FileNotFoundError, match=r"neither config\.json nor hparams\.json"):
        load_model(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)

    def fail_as_torch(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("No space left\nin file x.cpp")

    with pytest.raises(OSError, match=r"cannot write .*file: No space left$"):
        write_atomically(path, fail_as_torch)

    def fail_without_a_word(part: Path) -> None:
        raise PermissionError

    with pytest.raises(OSError, match=r"cannot write .*file: PermissionError\(\)$"):
        write_atomically(path, fail_without_a_word)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_half_a_character_is_written_as_json_can_hold_it(tmp_path: Path) -> None:
    value = {"cut \ud83d": "whole 🙂, half \ud83d"}
    write_json(tmp_path / "file.json", value)
    assert read_json(tmp_path / "file.json") == value
    assert "whole 🙂" in (tmp_path / "file.json").read_text("utf-8")  # to be read by people too
