import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken_ext.openai_public import ENDOFTEXT, r50k_pat_str
from transformers import GPT2Tokenizer

from gpt.text.tokenizer import MERGES_PATH, PATTERN, Tokenizer, load_tokenizer, read_merges
from gpt.weights.checkpoint import write_json


def test_pattern_and_special_token_are_tiktokens() -> None:
    assert r50k_pat_str == PATTERN
    assert load_tokenizer().bpe.special_tokens_set == {ENDOFTEXT}
    assert load_tokenizer().eot_id == load_tokenizer().bpe.eot_token == 50256
    assert load_tokenizer().vocab_size == load_tokenizer().bpe.n_vocab == 50257


def test_ranks_are_tiktokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tiktoken's own function builds its ranks from the same two files that OpenAI published."""
    import tiktoken_ext.openai_public as original

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    write_json(tmp_path / "encoder.json", load_tokenizer().vocab())
    ranks = original.data_gym_to_mergeable_bpe_ranks(str(MERGES_PATH), str(tmp_path / "encoder.json"))
    assert ranks == load_tokenizer().bpe._mergeable_ranks


def test_the_merge_table_is_openais() -> None:
    import hashlib

    digest = hashlib.sha256(MERGES_PATH.read_bytes()).hexdigest()
    assert digest == "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"  # as tiktoken expects it
    assert len(read_merges()) == 50_000


def test_ids_known_from_gpt2(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("Hello, world!") == [15496, 11, 995, 0]
    assert tokenizer.encode("\n\n### Response:\n") == [198, 198, 21017, 18261, 25, 198]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> GPT2Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_json(folder / "vocab.json", load_tokenizer().vocab())
    (folder / "merges.txt").write_bytes(MERGES_PATH.read_bytes())
    return GPT2Tokenizer.from_pretrained(folder)


@pytest.mark.long
@given(st.text())
def test_any_text_comes_back_and_equals_transformers(theirs: GPT2Tokenizer, text: str) -> None:
    ids = load_tokenizer().encode(text)
    assert load_tokenizer().decode(ids) == text
    if "<|endoftext|>" not in text:
        assert ids == theirs(text)["input_ids"]


def test_end_of_text_in_user_data_stays_text(tokenizer: Tokenizer) -> None:
    text = "before<|endoftext|>after"
    ids = tokenizer.encode(text)
    assert tokenizer.eot_id not in ids
    assert tokenizer.decode(ids) == text
    with_special = tokenizer.bpe.encode(text, allowed_special="all")  # the wrong variant injects the token
    assert tokenizer.eot_id in with_special
    with pytest.raises(ValueError, match="disallowed special token"):  # and tiktoken's default crashes
        tokenizer.bpe.encode(text)


@pytest.mark.slow
def test_a_built_wheel_holds_the_merge_table(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, root], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    code = "import gpt; print(gpt.__file__, gpt.load_tokenizer().encode('Hello, world!'))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "wheel", capture_output=True, text=True, check=True
    )
    assert str(tmp_path / "wheel") in found.stdout
    assert "[15496, 11, 995, 0]" in found.stdout
