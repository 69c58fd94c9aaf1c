import random
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

from gpt.text.dataset import (
    IGNORE_INDEX,
    Example,
    InstructionDataset,
    Kind,
    batches_by_length,
    collate,
    encode_entry,
    show_mask,
)
from gpt.text.prompts import encode_prompt, format_prompt, n_least_prompt_tokens, n_template_tokens
from gpt.text.tokenizer import Tokenizer

EOT = 50256
P, H, R, E = Kind.PROMPT, Kind.HEADER, Kind.RESPONSE, Kind.END
# Two rows worked out by hand: a prompt of 3 with a header of 2, a response of 2; and a shorter one.
LONG = Example([1, 2, 3, 4, 5, 6, 7, EOT], [P, P, P, H, H, R, R, E])
SHORT = Example([1, 4, 5, 8, EOT], [P, H, H, R, E])
IGN = IGNORE_INDEX


def entry(instruction: str = "Name the colour.", input: str = "The sky is blue.", output: str = "Blue.") -> dict:
    return {"instruction": instruction, "input": input, "output": output}


def test_kinds_stand_in_the_order_of_a_row_and_number_columns_from_0() -> None:
    assert list(range(len(Kind))) == [P, H, R, E]


def test_collate_shifts_masks_and_pads_as_worked_out_by_hand() -> None:
    inputs, targets = collate([LONG, SHORT])
    assert inputs.tolist() == [[1, 2, 3, 4, 5, 6, 7], [1, 4, 5, 8, EOT, EOT, EOT]]
    assert targets.tolist() == [[IGN, IGN, IGN, IGN, 6, 7, EOT], [IGN, IGN, 8, EOT, IGN, IGN, IGN]]
    assert collate([LONG, SHORT], "header")[1].tolist()[0] == [IGN, IGN, 4, 5, 6, 7, EOT]
    assert collate([LONG, SHORT], "all")[1].tolist()[1] == [4, 5, 8, EOT, IGN, IGN, IGN]


def test_a_mask_off_by_one_would_train_on_the_header_or_lose_the_first_answer_token() -> None:
    _, targets = collate([LONG])
    unshifted = [i if kind >= R else IGN for i, kind in zip(LONG.ids, LONG.kinds, strict=True)]
    assert unshifted[:-1] != targets[0].tolist()
    assert [i for i in targets[0].tolist() if i != IGN] == [6, 7, EOT]
    assert [i for i in unshifted[:-1] if i != IGN] == [6, 7]  # the end of text is lost


def test_end_of_text_is_found_by_position(tokenizer: Tokenizer) -> None:
    inner = Example([1, EOT, 3, 4, 5, EOT, 7, EOT], LONG.kinds)  # the id inside prompt and response
    inputs, targets = collate([inner, SHORT])
    assert targets[0].tolist() == [IGN, IGN, IGN, IGN, EOT, 7, EOT]
    for row, example in enumerate([inner, SHORT]):
        assert targets[row, len(example.ids) - 2] == EOT  # the last target counts
    by_id = torch.where(inputs == EOT, IGN, targets)  # the wrong variants: mask the id wherever it stands,
    assert (by_id != targets).any()
    first = targets[0].tolist().index(EOT)  # or all after the first one
    assert (targets[0, first + 1 :] != IGN).any()


def test_the_first_target_that_counts_is_the_first_token_of_the_response(tokenizer: Tokenizer) -> None:
    example = encode_entry(entry(), tokenizer)
    for loss_on, text in {"response": "Blue.<|endoftext|>", "header": "### Response:\nBlue.<|endoftext|>"}.items():
        counted = [i for i in collate([example], loss_on)[1][0].tolist() if i != IGN]
        assert tokenizer.decode(counted) == text
    n = len(example.ids) - 1
    assert (collate([example], "all")[1] != IGN).sum() == n  # every token but the first is predicted


@pytest.mark.parametrize("template", ["alpaca", "book", "short", "zh"])
def test_the_prompt_of_generation_is_a_prefix_of_the_training_row(tokenizer: Tokenizer, template: str) -> None:
    for output in ["Blue.", " blue", "\nblue", "###", "天", "\n\nThe sky"]:
        row = encode_entry(entry(output=output), tokenizer, template).ids
        prompt = encode_prompt(entry(), tokenizer, template)
        assert row[: len(prompt)] == prompt
        assert tokenizer.decode(row[len(prompt) : -1]) == output


def test_encoding_prompt_and_response_as_one_string_would_merge_across_the_seam(tokenizer: Tokenizer) -> None:
    prompt = "### Response:\n"
    joined = tokenizer.encode(prompt + "\n\nBlue")
    assert joined[: len(tokenizer.encode(prompt))] != tokenizer.encode(prompt)
    with_space = "### Response: "  # and a header that ends with a space breaks nearly every row
    joined = tokenizer.encode(with_space + "Blue")
    assert joined[: len(tokenizer.encode(with_space))] != tokenizer.encode(with_space)


def test_a_row_that_is_too_long_keeps_response_and_end_of_text(tokenizer: Tokenizer) -> None:
    long_input = entry(input="The sky is blue. " * 100)
    example = encode_entry(long_input, tokenizer, max_length=100)
    response = [i for i, kind in zip(example.ids, example.kinds, strict=True) if kind == R]
    assert len(example.ids) <= 100
    assert tokenizer.decode(response) == "Blue."
    assert example.ids[-1] == EOT
    plain = encode_entry(long_input, tokenizer, max_length=10_000).ids[:100]  # the wrong variant cuts the answer off
    assert EOT not in plain


def test_a_response_too_long_by_one_loses_one_token_and_keeps_its_end(tokenizer: Tokenizer) -> None:
    whole = encode_entry(entry(input="", output="one two three four five six"), tokenizer, "short")
    n = len(whole.ids)
    short_prompt = entry(instruction="Go", input="", output="one two three four five six")
    n = len(encode_entry(short_prompt, tokenizer, "short").ids)
    cut = encode_entry(short_prompt, tokenizer, "short", max_length=n - 1)
    assert len(cut.ids) == n - 1
    assert cut.ids[-1] == EOT
    assert cut.kinds.count(R) == 5


def test_three_quarters_of_a_row_are_the_most_that_the_instruction_keeps(tokenizer: Tokenizer) -> None:
    asked = entry(input="The sky is blue. " * 100)
    least = len(tokenizer.encode(format_prompt(asked | {"input": "x"})))  # all of the instruction, none of the input
    assert n_least_prompt_tokens(asked, tokenizer, "alpaca", max_length=200) == least
    long = entry(instruction="Name the colour. " * 100, output="Blue. " * 100)
    assert n_least_prompt_tokens(long, tokenizer, "alpaca", max_length=200) == 150
    kinds = encode_entry(long, tokenizer, max_length=200).kinds
    assert (kinds.count(P) + kinds.count(H), kinds.count(R), len(kinds)) == (150, 49, 200)


def test_a_row_has_room_for_a_token_of_the_response_and_its_end_or_is_refused(tokenizer: Tokenizer) -> None:
    least = n_template_tokens(entry(), tokenizer)
    assert encode_entry(entry(), tokenizer, max_length=least + 2).kinds[-3:] == [H, R, E]
    with pytest.raises(
        ValueError, match=f"{least + 1} tokens a row are too few: template 'alpaca' alone takes {least}"
    ):
        encode_entry(entry(), tokenizer, max_length=least + 1)


def test_a_long_answer_does_not_cut_the_question(tokenizer: Tokenizer) -> None:
    question = "Why does this program fail on line three, and what should stand there instead?"
    example = encode_entry(
        entry(instruction=question, input="x = 1 " * 20, output="Because " * 300), tokenizer, max_length=200
    )
    prompt = tokenizer.decode([i for i, kind in zip(example.ids, example.kinds, strict=True) if kind < R])
    assert question in prompt
    assert len(example.ids) == 200


def test_a_response_is_not_cut_inside_a_character(tokenizer: Tokenizer) -> None:
    for length in range(100, 130):
        example = encode_entry(entry(input="", output="天气很好，我们去公园散步。" * 20), tokenizer, max_length=length)
        response = [i for i, kind in zip(example.ids, example.kinds, strict=True) if kind == R]
        assert "\ufffd" not in tokenizer.decode(response)
        assert example.ids[-1] == EOT
    ids = tokenizer.encode("天气很好，我们去公园散步。" * 20)  # the wrong variant: most cuts leave half a character
    assert sum("\ufffd" in tokenizer.decode(ids[:n]) for n in range(20, 50)) > 10


def test_what_is_cut_and_dropped_is_counted(tokenizer: Tokenizer) -> None:
    entries = [
        entry(),
        entry(input="word " * 200),
        entry(instruction="Go", input="", output="word " * 200),
        entry(output=" "),
    ]
    dataset = InstructionDataset(entries, tokenizer, max_length=100)
    n_tokens = sum(len(example.ids) for example in dataset.examples)
    counts = {"entries": 3, "tokens": n_tokens, "cut_prompt": 1, "cut_response": 1, "dropped": 1}
    assert dataset.counts() == counts
    assert len(dataset) == 3
    assert dataset.dropped == [(3, "empty output")]
    assert [e["instruction"] for e in dataset.entries] == ["Name the colour.", "Name the colour.", "Go"]
    assert all(len(example.ids) <= 100 for example in dataset.examples)


def test_a_row_without_room_for_a_character_of_its_response_is_dropped_and_counted(tokenizer: Tokenizer) -> None:
    one = InstructionDataset([entry(instruction="Go", input="", output="x")], tokenizer, "short").examples[0]
    thin = entry(instruction="Go", input="", output="嗯，好")  # 嗯 takes three tokens
    for extra, n_kept in ((0, 0), (1, 0), (2, 1)):
        dataset = InstructionDataset([thin], tokenizer, "short", max_length=len(one.ids) + extra)
        assert dataset.dropped == [(0, "no room for the output")] * (1 - n_kept)
        assert len(dataset) == n_kept and dataset.counts()["cut_response"] == n_kept
    wrong = encode_entry(thin, tokenizer, "short", len(one.ids))
    assert wrong.kinds.count(Kind.RESPONSE) == 0 and wrong.kinds.count(Kind.END) == 1  # it would learn to say nothing


def test_every_row_has_something_to_learn_and_a_batch_without_would_be_nan(tokenizer: Tokenizer) -> None:
    entries = [entry(output=output) for output in ("Blue.", "", "\n", "x" * 500)]
    for example in InstructionDataset(entries, tokenizer, max_length=64).examples:
        assert (collate([example])[1] != IGN).sum() >= 2
    nothing = torch.full((1, 4), IGN)
    assert F.cross_entropy(torch.zeros(1, 50257, 4), nothing).isnan()  # what the wrong variant trains on


def test_end_of_text_in_an_entry_stays_plain_text(tokenizer: Tokenizer) -> None:
    example = encode_entry(entry(output="a<|endoftext|>b"), tokenizer)
    assert example.ids.count(EOT) == 1
    assert tokenizer.decode(example.ids).endswith("a<|endoftext|>b<|endoftext|>")


def test_batches_hold_every_row_once_and_waste_little() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(10, 200) for _ in range(1000)]
    batches = list(batches_by_length(lengths, 8, random.Random(1)))
    assert sorted(i for batch in batches for i in batch) == list(range(1000))
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    shuffled = rng.sample(range(1000), 1000)
    plain = sum(8 * max(lengths[i] for i in shuffled[k : k + 8]) for k in range(0, 1000, 8))
    assert padded < 1.1 * sum(lengths) < 1.4 * sum(lengths) < plain
    assert batches != list(batches_by_length(lengths, 8, random.Random(2)))
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest[:16] != sorted(longest[:16])  # short and long ones in turn, as they come


def test_the_rows_that_do_not_fill_a_batch_are_any_and_not_the_longest() -> None:
    lengths = list(range(10, 110))  # 100 rows: 4 are left out
    left_out, wrong = Counter(), Counter()
    for seed in range(200):
        batches = list(batches_by_length(lengths, 8, random.Random(seed), drop_last=True))
        assert [len(batch) for batch in batches] == [8] * 12
        left_out.update(set(range(100)) - {row for batch in batches for row in batch})
        for batch in batches_by_length(lengths, 8, random.Random(seed)):  # the wrong variant: what is short at the end
            wrong.update(batch if len(batch) < 8 else [])
    assert left_out.total() == wrong.total() == 800
    assert len(left_out) > 95 and max(left_out.values()) < 25  # 8 for each on average
    assert set(wrong) == {96, 97, 98, 99}


def test_show_mask_colours_what_counts(tokenizer: Tokenizer, capsys: pytest.CaptureFixture) -> None:
    show_mask(encode_entry(entry(output="🙂 blue"), tokenizer, "short"))
    shown = capsys.readouterr().out
    assert "\ufffd" not in shown  # a character of three ids is shown whole
    assert shown.startswith("\033[90m###")  # the prompt in grey
    assert shown.count("⏎\n") == 7  # 1 + 2 of the instruction, 1 + 2 of the input, 1 of the header
    green = [part.split("\033[0m")[0] for part in shown.split("\033[1;32m")[1:]]
    assert "".join(green) == "🙂 blue<|endoftext|>"
    assert "Response" in shown
