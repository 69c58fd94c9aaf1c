import jinja2
import pytest

from gpt.text.dataset import encode_entry
from gpt.text.prompts import (
    TEMPLATES,
    decode_response,
    encode_few_shot_prompt,
    encode_prompt,
    format_few_shot_prompt,
    format_prompt,
    get_template,
    has_stop_string,
    n_template_tokens,
)
from gpt.text.tokenizer import Tokenizer

WITH = {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue."}
WITHOUT = {"instruction": "Name a colour.", "input": "", "output": "Blue."}

GOLDEN_WITH = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Name the colour.

### Input:
The sky is blue.

### Response:
"""
GOLDEN_WITHOUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Name a colour.

### Response:
"""


def test_alpaca_has_two_preambles() -> None:
    assert format_prompt(WITH) == GOLDEN_WITH
    assert format_prompt(WITHOUT) == GOLDEN_WITHOUT


def test_book_has_one_preamble_for_both_cases() -> None:
    one_preamble = GOLDEN_WITHOUT.split("### ")[0] + "### " + GOLDEN_WITH.split("### ", 1)[1]
    assert format_prompt(WITH, "book") == one_preamble != GOLDEN_WITH
    assert format_prompt(WITHOUT, "book") == GOLDEN_WITHOUT


def test_short_is_headers_only_and_zh_has_chinese_headers() -> None:
    assert format_prompt(WITHOUT, "short") == "### Instruction:\nName a colour.\n\n### Response:\n"
    assert format_prompt(WITH, "zh") == "### 指令：\nName the colour.\n\n### 输入：\nThe sky is blue.\n\n### 输出：\n"


def test_an_input_of_white_space_is_no_input() -> None:
    assert format_prompt(WITHOUT | {"input": " \n"}) == GOLDEN_WITHOUT


@pytest.mark.parametrize("template", TEMPLATES)
def test_prompts_end_with_the_header_ids_whatever_the_text(tokenizer: Tokenizer, template: str) -> None:
    header = tokenizer.encode(get_template(template).header)
    for text in ["x", "x ", "x\n", "x\n\n", "###", "天", " ", "x\t"]:
        for entry in (WITHOUT | {"instruction": text}, WITH | {"input": text + "x"}):
            assert tokenizer.encode(format_prompt(entry, template))[-len(header) :] == header


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_chat_template_writes_the_same_bytes(template: str) -> None:
    chat = jinja2.Environment().from_string(get_template(template).chat_template)
    for text in ["Name it.", 'He said "hi"\n{{ no }} {% x %}', "名字", "back\\slash\\n"]:
        message = {"role": "user", "content": text}
        assert chat.render(messages=[message]) == format_prompt(WITHOUT | {"instruction": text}, template)
        entry = WITH | {"instruction": text, "input": text}
        assert chat.render(messages=[message | {"input": text}]) == format_prompt(entry, template)


def test_the_chat_template_closes_answers_with_the_end_of_text() -> None:
    chat = jinja2.Environment().from_string(get_template("short").chat_template)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    block = "### Instruction:\n{}\n\n### Response:\n"
    assert chat.render(messages=turns, eos_token="<|endoftext|>") == (
        block.format("a") + "b<|endoftext|>" + block.format("c")
    )


def test_a_role_that_is_not_known_is_refused() -> None:
    def refuse(message: str) -> None:
        raise ValueError(message)

    chat = jinja2.Environment().from_string(get_template("short").chat_template)
    with pytest.raises(ValueError, match="roles user and assistant, not system"):
        chat.render(messages=[{"role": "system", "content": "x"}], raise_exception=refuse)


def test_a_long_prompt_loses_the_end_of_its_input_and_keeps_its_headers(tokenizer: Tokenizer) -> None:
    entry = WITH | {"input": " ".join(f"word{i}" for i in range(300))}
    ids = encode_prompt(entry, tokenizer, max_length=120)
    text = tokenizer.decode(ids)
    assert 100 < len(ids) <= 120
    assert len(encode_prompt(WITH | {"input": "word " * 2000}, tokenizer)) == 1024  # GPT-2's context, if not told
    assert "Name the colour." in text
    assert "word0 word1" in text
    assert text.endswith("\n\n### Response:\n")
    plain = tokenizer.encode(format_prompt(entry))[:120]  # the wrong variant: cut at the end
    assert not tokenizer.decode(plain).endswith("### Response:\n")


def test_then_it_loses_the_end_of_its_instruction(tokenizer: Tokenizer) -> None:
    entry = WITH | {"instruction": "Please 天气 " * 200, "input": "天气 " * 200}
    text = tokenizer.decode(encode_prompt(entry, tokenizer, max_length=80))
    assert text.startswith("Below is an instruction")
    assert "### Instruction:\nPlease 天气" in text
    assert text.endswith("\n\n### Response:\n")
    assert "\ufffd" not in text


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("text", ["嗯，" * 200, "🙂" * 200, "\n\n\n" + "word " * 200])
def test_an_input_of_which_no_character_fits_keeps_its_header(tokenizer: Tokenizer, template: str, text: str) -> None:
    entry = WITH | {"input": text}
    room = n_template_tokens(entry, tokenizer, template) + len(tokenizer.encode(WITH["instruction"])) - 1
    shown = tokenizer.decode(encode_prompt(entry, tokenizer, template, room))
    assert shown == format_prompt(entry | {"input": "…"}, template)
    first = tokenizer.decode(tokenizer.encode(text)[:1]).rstrip("\ufffd")
    wrong = format_prompt(entry | {"input": first or " "}, template)  # as if there had never been an input
    assert get_template(template).input_header not in wrong


def test_a_context_too_short_for_the_headers_is_refused(tokenizer: Tokenizer) -> None:
    least = n_template_tokens(WITH, tokenizer)
    assert len(encode_prompt(WITH, tokenizer, max_length=least)) <= least
    with pytest.raises(ValueError, match="the template 'alpaca' needs"):
        encode_prompt(WITH, tokenizer, max_length=least - 1)


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'alpace' is not known: use one of alpaca, book, short, zh"):
        format_prompt(WITH, "alpace")


# ---- few-shot ----

SHOTS = [WITH, WITHOUT | {"output": "Red.\n"}]
GOLDEN_FEW_SHOT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Name the colour.

### Input:
The sky is blue.

### Response:
Blue.

### Instruction:
Name a colour.

### Response:
Red.

### Instruction:
Name a fruit.

### Response:
"""
FRUIT = {"instruction": "Name a fruit.", "input": "", "output": "An apple."}


def test_shots_stand_between_the_preamble_and_the_entry() -> None:
    assert format_few_shot_prompt(FRUIT, SHOTS) == GOLDEN_FEW_SHOT
    with_input = format_few_shot_prompt(WITH, SHOTS)  # the preamble is the entry's own
    assert with_input.startswith(GOLDEN_WITH.split("### ")[0])
    assert with_input.endswith(GOLDEN_WITH.split("\n\n", 1)[1])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("entry", [WITH, WITHOUT])
def test_no_shots_give_the_prompt_itself(tokenizer: Tokenizer, template: str, entry: dict) -> None:
    assert format_few_shot_prompt(entry, [], template) == format_prompt(entry, template)
    assert encode_few_shot_prompt(entry, [], tokenizer, template) == (encode_prompt(entry, tokenizer, template), 0)


@pytest.mark.parametrize("template", TEMPLATES)
def test_after_each_example_stands_a_stop_string(template: str) -> None:
    """So a model that goes on as the prompt does ends after its answer."""
    [stop] = get_template(template).stop_strings
    text = format_few_shot_prompt(FRUIT, SHOTS, template)
    assert text.split("Blue.")[-1].startswith("\n" + stop)
    assert text.split("Red.")[-1].startswith("\n" + stop)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_ids_of_an_example_are_those_of_training(tokenizer: Tokenizer, template: str) -> None:
    """Prompt and response are encoded apart in training; here one string has the same ids, because no response begins
    or ends with white space."""
    ids, n_shots = encode_few_shot_prompt(FRUIT, [WITHOUT], tokenizer, template)
    assert n_shots == 1
    example = encode_entry(WITHOUT, tokenizer, template).ids[:-1]
    assert ids[: len(example)] == example
    alone = tokenizer.encode("\n\n")  # the wrong variant: a blank line encoded by itself is another id
    assert ids[len(example) : len(example) + 2] == [198, 198] != alone


def test_shots_never_cost_the_entry_a_token(tokenizer: Tokenizer) -> None:
    long = WITHOUT | {"output": "word " * 200}
    alone = encode_prompt(FRUIT, tokenizer)
    for max_length in range(len(alone), len(alone) + 80):
        ids, n_shots = encode_few_shot_prompt(FRUIT, [long, *SHOTS], tokenizer, max_length=max_length)
        assert len(ids) <= max_length
        assert tokenizer.decode(ids) in [
            format_few_shot_prompt(FRUIT, shots) for shots in ([], SHOTS[:1], SHOTS[1:], SHOTS)
        ]
        assert n_shots == tokenizer.decode(ids).count("### Response:") - 1
    assert n_shots == 2  # the long one was left out, those after it were not
    wrong = tokenizer.encode(format_few_shot_prompt(FRUIT, [long]))[: len(alone)]  # the wrong variant: cut the end
    assert "Name a fruit." not in tokenizer.decode(wrong)


def test_an_entry_too_long_by_itself_has_no_shots(tokenizer: Tokenizer) -> None:
    entry = WITH | {"input": "天气 " * 300}
    cut = encode_prompt(entry, tokenizer, max_length=120)
    assert encode_few_shot_prompt(entry, SHOTS, tokenizer, max_length=120) == (cut, 0)


# ---- where a response ends ----


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_stop_string_is_found_at_the_id_that_completes_it(tokenizer: Tokenizer, template: str) -> None:
    header = get_template(template).instruction_header
    for answer in ("", "Blue.\n\n", "The sky is blue and the sea is green and the sun is yellow and so on.\n"):
        ids = tokenizer.encode(answer + header + "Name another.")
        first = next(n for n in range(1, len(ids)) if has_stop_string(ids[:n], tokenizer, template))
        assert header.strip() in tokenizer.decode(ids[:first])
        assert header.strip() not in tokenizer.decode(ids[: first - 1])
        assert decode_response(ids[:first], tokenizer, template) == answer.strip()


def test_what_may_become_a_stop_string_is_held_back_until_that_is_known(tokenizer: Tokenizer) -> None:
    for text, last in (("Blue.\n## b\n### c", "Blue.\n## b\n### c"), ("Blue.\n\n### Instruction:\nName", "Blue.")):
        ids = tokenizer.encode(text)
        shown = [decode_response(ids[:n], tokenizer, is_whole=False) for n in range(1, len(ids) + 1)]
        assert all(later.startswith(earlier) for earlier, later in zip(shown, shown[1:], strict=False))
        assert shown[-1] == last
    half = tokenizer.encode("Blue.\n##")
    assert decode_response(half, tokenizer, is_whole=False) == "Blue."
    assert decode_response(half, tokenizer) == "Blue.\n##"  # no more comes: all of it is the response


def test_a_header_within_a_line_is_no_stop_string(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Such a block begins with ### Instruction: and then goes on for a while, " * 3)
    assert not any(has_stop_string(ids[:n], tokenizer) for n in range(1, len(ids) + 1))
    assert decode_response(ids, tokenizer).count("### Instruction:") == 3
