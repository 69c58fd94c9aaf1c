import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import pytest
import requests
import torch

from gpt.model.generate import generate
from gpt.model.gpt2 import GPT, GPTConfig
from gpt.serving.gguf import MODELFILE_TITLE, TYPES, gguf_name, modelfile, save_gguf
from gpt.text.dataset import collate, encode_entry
from gpt.text.entries import Entry, load_entries
from gpt.text.prompts import TEMPLATES, encode_prompt, format_prompt
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import supervised_loss
from gpt.weights.checkpoint import load_model, untie
from scripts.new_run import ENTRIES
from tests.reference import random_model

SMALL = GPTConfig(context_length=256, n_embd=64, n_layer=3, n_head=4)
HARD = [
    " a space before", "two  spaces,\n\n\nlines \n", "\ttabs\t\t", "naïve café, 東京 is 一座城市 🦊", "### Response:\n",
    "don't I'LL 1234567 ٣٤", "literal <|endoftext|> in text", "\u00a0\u3000odd spaces\r\n", "x" * 300, "e\u0301 \u200d",
]  # fmt: skip


def read(path: Path) -> tuple[dict[str, object], dict[str, gguf.ReaderTensor]]:
    """Header and tensors, read by the library."""
    reader = gguf.GGUFReader(path)
    return {name: f.contents() for name, f in reader.fields.items()}, {t.name: t for t in reader.tensors}


@pytest.fixture
def small() -> GPT:
    return random_model(SMALL)


@pytest.fixture
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out where the tensors are looked at: the library takes seconds to read 100,000 strings."""
    monkeypatch.setattr("gpt.serving.gguf.add_tokenizer", lambda writer, template: None)


# ---- the file, read back ----


def test_the_names_are_those_of_the_library(small: GPT) -> None:
    theirs = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, SMALL.n_layer)
    for ours in untie(small).state_dict():
        layer, _, kind = ours.rpartition(".")
        known = "lm_head" if layer == "lm_head" else f"transformer.{layer}"
        assert gguf_name(ours) == f"{theirs.get_name(known)}.{kind}", ours


@pytest.mark.long
@pytest.mark.usefixtures("no_tokenizer")
@pytest.mark.parametrize("dtype", TYPES)
def test_the_values_are_those_of_the_model(small: GPT, tmp_path: Path, dtype: str) -> None:
    save_gguf(small, tmp_path / "m.gguf", name="m", dtype=dtype)
    found = read(tmp_path / "m.gguf")[1]
    assert set(found) == {gguf_name(name) for name in small.state_dict()}  # tied: no output.weight
    for name, parameter in small.state_dict().items():
        tensor, ours = found[gguf_name(name)], parameter.numpy()
        theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert theirs.shape == ours.shape
        is_exact = parameter.dim() == 1 or "wpe" in name or dtype == "f32"
        assert tensor.tensor_type.name == ("F32" if is_exact else dtype.upper()), name
        if is_exact:
            assert np.array_equal(theirs, ours)
        elif dtype == "f16":
            assert np.array_equal(theirs, ours.astype(np.float16))
        else:  # half a step of the block's scale, which is itself rounded to float16
            blocks = np.abs(ours.reshape(-1, 32))
            steps = blocks.max(1) / 127
            error = np.abs(theirs - ours).reshape(-1, 32).max(1)
            assert (error <= 0.5 * steps + 2**-11 * blocks.max(1) + 1e-8).all()


@pytest.mark.usefixtures("no_tokenizer")
def test_an_output_layer_of_its_own_is_written(small: GPT, tmp_path: Path) -> None:
    untied = untie(small)
    untied.lm_head.weight.data *= 2
    save_gguf(untied, tmp_path / "m.gguf", name="m", dtype="f32")
    assert np.array_equal(read(tmp_path / "m.gguf")[1]["output.weight"].data, untied.lm_head.weight.detach().numpy())


@pytest.mark.usefixtures("no_tokenizer")
def test_rows_that_do_not_divide_into_blocks_of_32_are_float16(tmp_path: Path) -> None:
    save_gguf(random_model(), tmp_path / "m.gguf", name="m", dtype="q8_0")  # 48 wide
    kinds = {name: tensor.tensor_type.name for name, tensor in read(tmp_path / "m.gguf")[1].items()}
    assert kinds["token_embd.weight"] == kinds["blk.0.attn_output.weight"] == "F16"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"  # 192 wide


@pytest.mark.long
def test_the_header_holds_sizes_tokenizer_and_chat_template(small: GPT, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_gguf(small, tmp_path / "m.gguf", name="a run", template="zh", dtype="q8_0")
    header = read(tmp_path / "m.gguf")[0]
    wanted = {
        "general.architecture": "gpt2", "general.name": "a run", "general.file_type": 7, "gpt2.context_length": 256,
        "gpt2.embedding_length": 64, "gpt2.feed_forward_length": 256, "gpt2.block_count": 3,
        "gpt2.attention.head_count": 4, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.bos_token_id": 50256, "tokenizer.ggml.eos_token_id": 50256,
        "tokenizer.ggml.padding_token_id": 50256, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATES["zh"].chat_template,
    }  # fmt: skip
    assert {name: header[name] for name in wanted} == wanted
    assert header["gpt2.attention.layer_norm_epsilon"] == pytest.approx(1e-5)
    assert {text: i for i, text in enumerate(header["tokenizer.ggml.tokens"])} == tokenizer.vocab()
    assert header["tokenizer.ggml.token_type"] == [1] * 50256 + [3]
    assert len(header["tokenizer.ggml.merges"]) == 50000


@pytest.mark.long
def test_the_same_model_gives_the_same_bytes(small: GPT, tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        save_gguf(small, tmp_path / name, name="m", dtype="q8_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_what_cannot_be_written_is_refused(small: GPT, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="type 'q4_0' is not known: use f32, f16, q8_0"):
        save_gguf(small, tmp_path / "m.gguf", name="m", dtype="q4_0")
    with pytest.raises(ValueError, match=r"does not end in \.gguf"):
        save_gguf(small, tmp_path / "model.safetensors", name="m")
    with pytest.raises(ValueError, match="the model has 50304 tokens"):
        save_gguf(GPT(GPTConfig(vocab_size=50304, n_embd=32, n_layer=1, n_head=1)), tmp_path / "m.gguf", name="m")
    assert not list(tmp_path.iterdir())


# ---- the Modelfile ----


def commands(text: str) -> list[tuple[str, str]]:
    """(command, argument) as Ollama's parser reads them: three quotes hold anything."""
    found = []
    while text := text.lstrip("\n"):
        line, _, rest = text.partition("\n")
        if line.startswith("#"):
            text = rest
            continue
        words = line.split(" ")
        head = " ".join(words[: 2 if words[0] == "PARAMETER" else 1])
        argument = text[len(head) + 1 :]
        if argument.startswith('"""'):
            value, _, text = argument[3:].partition('"""')
        else:
            value, _, text = argument.partition("\n")
        found.append((head, value))
    return found


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_modelfile_asks_in_the_words_of_training(template: str, tmp_path: Path) -> None:
    text = modelfile(tmp_path / "m.gguf", 512, template)
    found = commands(text)
    assert text.startswith(MODELFILE_TITLE)
    user, assistant = dict(found)["TEMPLATE"].split("{{ else if ")
    asked = user.removeprefix('{{ range .Messages }}{{ if eq .Role "user" }}').replace("{{ .Content }}", 'Say a, "b".')
    assert asked == format_prompt({"instruction": 'Say a, "b".', "input": "", "output": ""}, template)
    assert assistant == 'eq .Role "assistant" }}{{ .Content }}<|endoftext|>{{ end }}{{ end }}'
    assert "{{-" not in text  # Go would take the line break of the response header away
    assert tuple(value for name, value in found if name == "PARAMETER stop") == TEMPLATES[template].stop_strings
    assert dict(found)["FROM"] == "./m.gguf"
    assert dict(found)["PARAMETER num_ctx"] == "512"  # Ollama's own default is longer than the positions there are
    assert dict(found)["PARAMETER temperature"] == "0"


# ---- llama.cpp reads it ----


@contextmanager
def llama_cpp(path: Path, exact: bool = False) -> Iterator[str]:
    """The address of llama.cpp's server with this file; `exact` keeps keys and values in float32, not float16."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_parallel = str(path), 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    if exact:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server  # stops its thread


def post(url: str, **body: object) -> dict:
    reply = requests.post(url, json=body, timeout=60)
    reply.raise_for_status()
    return reply.json()


def their_ids(url: str, prompt: list[int], max_new_tokens: int) -> list[int]:
    """Greedy ids, with the end of text."""
    asked = {"prompt": prompt, "temperature": 0, "n_predict": max_new_tokens, "return_tokens": True}
    reply = post(f"{url}/completion", **asked)
    return [i for i in reply["tokens"] if i != 50256] + [50256] * (reply["stop_type"] == "eos")


@torch.inference_mode()
def our_ids(model: GPT, prompt: list[int], max_new_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy ids, with the end of text, and the margin of each: the difference of the two best logits."""
    [found] = generate(model, [prompt], max_new_tokens=max_new_tokens)
    ids = found.ids + [50256] * (found.stopped_by == "end_of_text")
    best = model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1].topk(2).values  # (T, 2)
    return ids, (best[:, 0] - best[:, 1]).tolist()


def n_sure(margins: list[float], least: float) -> int:
    """The ids before the first whose margin is less."""
    return next((i for i, margin in enumerate(margins) if margin < least), len(margins))


def agreement(model: GPT, url: str, prompts: list[list[int]], least: float, max_new_tokens: int) -> tuple[int, int]:
    """(rows that agree up to the first unsure id, ids compared)."""
    n_rows = n_ids = 0
    for prompt in prompts:
        ours, margins = our_ids(model, prompt, max_new_tokens)
        theirs, n = their_ids(url, prompt, max_new_tokens), n_sure(margins, least)
        n_rows += ours[:n] == theirs[:n]
        n_ids += n
    return n_rows, n_ids


@pytest.mark.long
def test_llama_cpp_gives_our_prompt_ids(small: GPT, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_gguf(small, tmp_path / "m.gguf", name="m")
    entries = load_entries(ENTRIES)[::40]
    with llama_cpp(tmp_path / "m.gguf") as url:
        for text in HARD + [format_prompt(entry) for entry in entries]:
            found = post(f"{url}/tokenize", content=text, add_special=True, parse_special=False)["tokens"]
            assert found == tokenizer.encode(text), text
        for entry in [entry for entry in entries if not entry["input"]]:
            messages = [{"role": "user", "content": entry["instruction"]}]
            prompt = post(f"{url}/apply-template", messages=messages)["prompt"]
            found = post(f"{url}/tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
            assert found == encode_prompt(entry, tokenizer)
        literal = post(f"{url}/tokenize", content="literal <|endoftext|>", parse_special=True)["tokens"]
        assert 50256 in literal  # what a chat does with such text: only ids are safe from it


@pytest.mark.long
def test_greedy_ids_of_llama_cpp_are_ours_and_not_with_a_matrix_turned(small: GPT, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 50256, rng.integers(5, 60)).tolist() for _ in range(20)]
    turned = copy.deepcopy(small)
    turned.h[1].attn.c_proj.weight.data = small.h[1].attn.c_proj.weight.data.t().contiguous()  # square: it fits
    rows = []
    for model in (small, turned):
        save_gguf(model, tmp_path / "m.gguf", name="m", dtype="f32")
        with llama_cpp(tmp_path / "m.gguf", exact=True) as url:
            rows.append(agreement(small, url, prompts, least=0.0, max_new_tokens=12)[0])
    assert rows[0] == 20
    assert rows[1] < 10


@pytest.mark.long
def test_llama_cpp_stops_at_the_end_of_the_context(small: GPT, tmp_path: Path) -> None:
    save_gguf(small, tmp_path / "m.gguf", name="m", dtype="f32")
    with llama_cpp(tmp_path / "m.gguf", exact=True) as url:
        reply = post(f"{url}/completion", prompt=[5] * 250, temperature=0, n_predict=50, return_tokens=True)
        ours, _ = our_ids(small, [5] * 250, 50)
        assert reply["tokens"] == ours  # ends where the positions end
        refused = requests.post(f"{url}/completion", json={"prompt": [5] * 257}, timeout=60)
        assert refused.status_code == 400


@pytest.fixture(scope="module")
def learned(tokenizer: Tokenizer) -> tuple[GPT, list[Entry]]:
    """The bundled model with twenty entries learned by heart, and these: it is sure of every token."""
    entries = [e for e in load_entries(ENTRIES) if 6 <= len(tokenizer.encode(e["output"])) <= 20 and not e["input"]]
    entries = entries[:: len(entries) // 20][:20]
    inputs, targets = collate([encode_entry(entry, tokenizer, "short") for entry in entries])
    model = load_model("gpt2-tiny").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(40):
        loss, n = supervised_loss(model.hidden(inputs), targets, model.output_weight)
        (loss / n).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), entries


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
def test_a_sure_model_answers_the_same_in_every_type(
    learned: tuple[GPT, list[Entry]], tokenizer: Tokenizer, tmp_path: Path, dtype: str
) -> None:
    model, entries = learned
    save_gguf(model, tmp_path / "m.gguf", name="m", template="short", dtype=dtype)
    prompts = [encode_prompt(entry, tokenizer, "short") for entry in entries]
    with llama_cpp(tmp_path / "m.gguf", exact=dtype == "f32") as url:
        n_rows, n_ids = agreement(model, url, prompts, least=0.0 if dtype == "f32" else 0.02, max_new_tokens=40)
        assert n_rows == 20
        assert n_ids > 150  # nothing was left uncompared
        message = [{"role": "user", "content": entries[0]["instruction"]}]
        reply = post(f"{url}/v1/chat/completions", messages=message, temperature=0, max_tokens=40)
        assert reply["choices"][0]["message"]["content"].strip() == entries[0]["output"].strip()
        assert reply["choices"][0]["finish_reason"] == "stop"  # by the end of text, which is not shown


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_the_bundled_model_answers_the_same(tokenizer: Tokenizer, tmp_path: Path, dtype: str) -> None:
    """It is seldom sure. q8_0 is left out: llama.cpp rounds what it multiplies with to 8 bits too, which moves this
    model's logits by up to about 0.2."""
    model = load_model("gpt2-tiny")
    save_gguf(model, tmp_path / "m.gguf", name="m", dtype=dtype)
    prompts = [encode_prompt(entry, tokenizer) for entry in load_entries(ENTRIES)[::100][:20]]
    with llama_cpp(tmp_path / "m.gguf", exact=dtype == "f32") as url:
        least = 1e-3 if dtype == "f32" else 0.02
        n_rows, n_ids = agreement(model, url, prompts, least, max_new_tokens=40)
    assert n_rows == len(prompts) == 20
    assert n_ids > 300


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_chat_template_gives_our_prompt_in_llama_cpp(
    small: GPT, tokenizer: Tokenizer, tmp_path: Path, template: str
) -> None:
    save_gguf(small, tmp_path / "m.gguf", name="m", template=template)
    turns = [("user", "Say a."), ("assistant", "a"), ("user", "  Say 乙.\n")]
    with llama_cpp(tmp_path / "m.gguf") as url:
        messages = [{"role": role, "content": text} for role, text in turns]
        found = post(f"{url}/apply-template", messages=messages)["prompt"]
    first, last = [format_prompt({"instruction": turns[i][1], "input": "", "output": ""}, template) for i in (0, 2)]
    assert found == f"{first}a<|endoftext|>{last}"
