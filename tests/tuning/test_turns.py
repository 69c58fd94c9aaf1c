"""Conversations from the file to the chat: what a row holds, what of it counts, what is left out, and who sees it."""

import json
import sys
from pathlib import Path

import pytest
import torch

from gpt.model import generate as generation
from gpt.model.gpt2 import GPT
from gpt.serving.protocol import ChatBody, Served, chat_job
from gpt.text.dataset import IGNORE_INDEX, InstructionDataset, Kind, collate, encode_entry, show_mask
from gpt.text.entries import entries_sha256, load_entries, read_entries, split_entries
from gpt.text.formats import record_to_entries
from gpt.text.prompts import encode_prompt
from gpt.text.tokenizer import Tokenizer
from gpt.training.loss import evaluate_loss
from gpt.tuning.turns import ConversationDataset, check_turns, encode_earlier, encode_turns, exchanges, stream_turn
from scripts import finetune, respond, serve
from tests.test_chat import Keyboard

EOT, IGN = 50256, IGNORE_INDEX
OASST = Path(__file__).parents[1] / "fixtures" / "formats" / "oasst_tree.jsonl"


def talk(*texts: str) -> dict:
    """A ShareGPT record read as an entry: texts are said in turn, the user's first."""
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return record_to_entries({"conversations": said})[0][0]


EMMA = talk("Who wrote Emma?", "Jane Austen.", "When?", "1815.")
# EMMA in the template "short", worked out by hand with GPT-2's table of tokens:
# ### Instruction : \n Who wrote Emma ? \n \n ### Response : \n Jane Aust en . end
# ### Instruction : \n When ? \n \n ### Response : \n 18 15 . end
ROW = [21017, 46486, 25, 198, 8241, 2630, 18966, 30, 198, 198, 21017, 18261, 25, 198, 41083, 2517, 268, 13, EOT,
       21017, 46486, 25, 198, 2215, 30, 198, 198, 21017, 18261, 25, 198, 1507, 1314, 13, EOT]  # fmt: skip
TARGETS = [IGN] * 13 + [41083, 2517, 268, 13, EOT] + [IGN] * 12 + [1507, 1314, 13, EOT]


def targets_of(row: object, loss_on: str = "response") -> list[int]:
    return collate([row], loss_on)[1][0].tolist()


# ---- the row ----


def test_two_turns_are_a_row_worked_out_by_hand(tokenizer: Tokenizer) -> None:
    row = encode_turns(EMMA, tokenizer, "short")
    assert row.ids == ROW
    assert targets_of(row) == TARGETS
    header = [21017, 18261, 25, 198]
    with_headers = [IGN] * 9 + [*header, 41083, 2517, 268, 13, EOT] + [IGN] * 8 + [*header, 1507, 1314, 13, EOT]
    assert targets_of(row, "header") == with_headers
    assert targets_of(row, "all") == ROW[1:]


def test_the_known_wrong_masks_are_other_masks(tokenizer: Tokenizer) -> None:
    row = encode_turns(EMMA, tokenizer, "short")
    last_only = [IGN] * 30 + TARGETS[30:]
    first_end = ROW.index(EOT)
    up_to_the_first_end = TARGETS[:first_end] + [IGN] * (len(TARGETS) - first_end)  # the end of text, found by its id
    no_end = [IGN if target == EOT else target for target in TARGETS]  # masked as if it were padding
    user_too = [IGN] * 13 + ROW[14:]  # all after the first prompt
    for wrong in (last_only, up_to_the_first_end, no_end, user_too):
        assert wrong != targets_of(row)
        assert len(wrong) == len(TARGETS)
    for wrong, n in ((last_only, 4), (up_to_the_first_end, 5), (no_end, 7), (user_too, 21)):
        assert sum(target != IGN for target in wrong) == n  # where 9 count


def test_the_mask_shows_every_answer_and_its_end(tokenizer: Tokenizer, capsys: pytest.CaptureFixture) -> None:
    show_mask(encode_turns(EMMA, tokenizer), tokenizer=tokenizer)
    green = [part.split("\033[0m")[0] for part in capsys.readouterr().out.split("\033[1;32m")[1:]]
    assert "".join(green) == "Jane Austen.<|endoftext|>1815.<|endoftext|>"


@pytest.mark.parametrize("template", ["alpaca", "book", "short", "zh"])
def test_an_entry_without_turns_is_the_row_that_it_was(tokenizer: Tokenizer, template: str) -> None:
    entry = {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue."}
    assert encode_turns(entry, tokenizer, template) == encode_entry(entry, tokenizer, template)


def test_a_turn_may_bring_an_input(tokenizer: Tokenizer) -> None:
    asked = {"role": "user", "content": "And this?", "input": "The grass is green."}
    entry = {"instruction": "Name the colour.", "input": "The sky is blue.", "output": "Blue."}
    entry["turns"] = [{"role": "user", "content": "Name the colour."}, {"role": "assistant", "content": "Blue."},
                      asked, {"role": "assistant", "content": "Green."}]  # fmt: skip
    check_turns(entry, "here")
    second = {"instruction": "And this?", "input": "The grass is green.", "output": "Green."}
    assert exchanges(entry) == [entry, second]
    assert encode_turns(entry, tokenizer).ids == [i for e in (entry, second) for i in encode_entry(e, tokenizer).ids]


def test_opening_replies_and_last_questions_are_in_no_exchange(tokenizer: Tokenizer) -> None:
    roles = ["gpt", "human", "gpt", "human", "gpt", "human"]
    texts = ["Welcome.", "Hi.", "Hello.", "How are you?", "Fine.", "And?"]
    said = [{"from": role, "value": text} for role, text in zip(roles, texts, strict=True)]
    [entry], counts = record_to_entries({"conversations": said})
    assert [(e["instruction"], e["output"]) for e in exchanges(entry)] == [("Hi.", "Hello."), ("How are you?", "Fine.")]
    assert (counts["opening_replies"], counts["unanswered"]) == (1, 1)  # and the reader said so
    assert "Welcome" not in tokenizer.decode(encode_turns(entry, tokenizer).ids)


# ---- too long ----


def test_a_row_ends_at_a_turn_and_what_is_left_out_is_counted(tokenizer: Tokenizer) -> None:
    entry = talk("One?", "1.", "Two?", "2.", "Three?", "word " * 50, "Four?", "4.")
    whole = encode_turns(entry, tokenizer, "short")
    ends = [place + 1 for place, kind in enumerate(whole.kinds) if kind == Kind.END]
    assert len(ends) == 4
    for length in range(ends[0], len(whole.ids) + 1):
        row = encode_turns(entry, tokenizer, "short", length)
        assert len(row.ids) == max(end for end in ends if end <= length)
        assert row.ids == whole.ids[: len(row.ids)]
        dataset = ConversationDataset([entry], tokenizer, "short", length)
        n = row.kinds.count(Kind.END)
        assert dataset.counts() == {"entries": 1, "tokens": len(row.ids), "cut_prompt": 0, "cut_response": 0,
                                    "dropped": 0, "turns": n, "cut_turns": 4 - n}  # fmt: skip
    plain = whole.ids[: ends[2] - 10]  # the wrong variant teaches an answer that breaks off
    assert plain[-1] != EOT


def test_a_first_exchange_too_long_by_itself_is_cut_as_a_single_one_is(tokenizer: Tokenizer) -> None:
    entry = talk("Go.", "word " * 300, "Two?", "2.")
    dataset = ConversationDataset([entry], tokenizer, "short", 64)
    assert dataset[0] == encode_entry(entry, tokenizer, "short", 64)
    assert dataset[0].ids[-1] == EOT
    assert (dataset.n_cut_response, dataset.n_cut_turns) == (1, 1)


def test_a_conversation_ends_before_a_turn_that_lacks_a_text(tokenizer: Tokenizer) -> None:
    dataset = ConversationDataset(
        [talk("One?", "1.", "Two?", " ", "Three?", "3."), talk("One?", "", "Two?", "2.")], tokenizer, "short"
    )
    assert dataset[0] == encode_entry({"instruction": "One?", "input": "", "output": "1."}, tokenizer, "short")
    assert dataset.counts()["cut_turns"] == 2
    assert dataset.dropped == [(1, "empty output")]


def test_the_loss_is_that_of_the_answers_each_after_what_was_said_before_it(model: GPT, tokenizer: Tokenizer) -> None:
    row = encode_turns(EMMA, tokenizer, "short")
    with torch.no_grad():
        log_probs = model(torch.tensor([row.ids[:-1]]))[0].log_softmax(-1)
    counted = [(place, target) for place, target in enumerate(TARGETS) if target != IGN]
    expected = -sum(log_probs[place, target].item() for place, target in counted) / len(counted)
    assert evaluate_loss(model, [row])["response"] == pytest.approx(expected, rel=1e-5)
    apart = evaluate_loss(model, [encode_entry(e, tokenizer, "short") for e in exchanges(EMMA)])["response"]
    assert abs(apart - expected) > 1e-3  # the wrong variant: "When?" with nothing before it


# ---- real conversations, files and splits ----


def test_real_trees_give_every_answer_of_their_best_thread(tokenizer: Tokenizer) -> None:
    entries, counts = read_entries(OASST)
    dataset = ConversationDataset(entries, tokenizer)
    assert dataset.counts()["turns"] == len(entries) + counts["later_turns"] == 7
    assert dataset.n_cut_turns == 0
    for entry, (ids, kinds) in zip(dataset.entries, dataset, strict=True):
        answers = [turn["content"] for turn in entry.get("turns", []) if turn["role"] == "assistant"]
        counted = [i for i, kind in zip(ids, kinds, strict=True) if kind >= Kind.RESPONSE]
        assert tokenizer.decode(counted).split("<|endoftext|>") == [*(answers or [entry["output"]]), ""]


WRONG = {
    "3": '"turns" must be a list of {"role": "user" or "assistant"',
    '[{"role": "system", "content": "x"}]': '"turns" must be a list',
    '[{"role": "user", "content": 3}]': '"turns" must be a list',
    '[{"role": "user", "content": "x", "input": null}]': '"turns" must be a list',
    '[{"role": "user", "content": "\\ud83d"}]': '"turns" must be a list',
    '[{"role": "user", "content": "x"}, {"role": "user", "content": "y"}]': "turns 0 and 1 are both the user's",
}


@pytest.mark.parametrize("turns", WRONG)
def test_turns_that_cannot_be_read_are_an_error_that_says_where(turns: str) -> None:
    entry = {"instruction": "a", "input": "", "output": "b", "turns": json.loads(turns)}
    with pytest.raises(ValueError, match=r"^f.json: entry 3: ") as caught:
        check_turns(entry, "f.json: entry 3")
    assert WRONG[turns] in str(caught.value)


def test_the_fingerprint_changes_with_a_later_turn() -> None:
    other = talk("Who wrote Emma?", "Jane Austen.", "When?", "1816.")
    assert entries_sha256([EMMA]) != entries_sha256([other])
    single = {name: EMMA[name] for name in ("instruction", "input", "output")}
    assert entries_sha256([single]) == entries_sha256([single | {"kind": "naming"}])


def test_conversations_that_open_nearly_alike_are_on_one_side_whatever_follows() -> None:
    openings = [f"Tell me all that you know about the {animal} and its life in winter." for animal in
                "fox owl bat bee elk hen cat dog ant emu cow pig yak ape rat jay koi cod eel gnu".split()]  # fmt: skip
    entries = [talk(opening, "A.", f"Go on {i}.", "B.") for opening in openings for i in range(2)]
    for side in split_entries(entries):
        counts = {entry["instruction"]: 0 for entry in side}
        for entry in side:
            counts[entry["instruction"]] += 1
        assert set(counts.values()) <= {2}
    assert sum(map(len, split_entries(entries))) == len(entries)


# ---- the next turn ----


def test_the_newest_turns_that_fit_stand_before_the_prompt(tokenizer: Tokenizer) -> None:
    history = [{"instruction": f"Question {i}?", "input": "", "output": f"Answer {i}."} for i in range(3)]
    rows = [encode_entry(exchange, tokenizer, "short").ids for exchange in history]
    whole = [i for row in rows for i in row]
    assert encode_earlier(history, tokenizer, "short", len(whole)) == (whole, 3)
    assert encode_earlier(history, tokenizer, "short", len(whole) - 1) == (rows[1] + rows[2], 2)
    assert encode_earlier(history, tokenizer, "short", len(rows[2]) - 1) == ([], 0)


def test_a_streamed_turn_says_how_much_of_the_history_it_saw_and_never_cuts_its_own_prompt(
    model: GPT, tokenizer: Tokenizer
) -> None:
    history = [{"instruction": f"Question {i}?", "input": "", "output": f"Answer {i}."} for i in range(20)]
    entry = {"instruction": "And now?", "input": "", "output": ""}
    *_, last = stream_turn(model, tokenizer, entry, history, template="short", max_new_tokens=4)
    ids = encode_prompt(entry, tokenizer, "short")
    n = (128 - 4 - len(ids)) // len(encode_entry(history[0], tokenizer, "short").ids)  # a context of 128
    assert 0 < n == last.n_earlier < 20
    assert not last.is_cut
    earlier, _ = encode_earlier(history[-n:], tokenizer, "short")
    [expected] = generation.generate(model, [[*earlier, *ids]], max_new_tokens=4)
    assert last.text == tokenizer.decode(expected.ids).strip()
    *_, alone = stream_turn(model, tokenizer, entry, template="short", max_new_tokens=4)
    assert alone.n_earlier == 0


# ---- as a user starts it ----


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    path = tmp_path / "talks.jsonl"
    things = (
        "lamp river tower garden bridge engine violin candle mirror kettle anchor basket ladder hammer pillow".split()
    )
    records = [
        {"conversations": [
            {"from": "human", "value": f"{verb} the {thing}."}, {"from": "gpt", "value": f"The {thing}."},
            {"from": "human", "value": "And again?"}, {"from": "gpt", "value": f"The {thing}, again."},
        ]} for verb in ("Describe for a child", "Name what one needs to paint") for thing in things
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return path


@pytest.mark.long
def test_a_run_on_turns_records_it_and_terminal_and_server_then_send_the_history(
    conversations: Path, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(finetune, "evaluate_run", lambda folder, device: None)
    flags = ["--data", str(conversations), "--epochs", "1", "--device", "cpu", "--no-self-check"]
    assert finetune.main([*flags, "--turns", "--template", "short", "--out", str(tmp_path / "turns")]) == 0
    said = capsys.readouterr().out
    assert finetune.main([*flags, "--template", "short", "--out", str(tmp_path / "single")]) == 0
    facts = {}
    for name, is_on in {"turns": True, "single": False}.items():
        training = json.loads((tmp_path / name / "training.json").read_text(encoding="utf-8"))
        facts[name] = training["facts"]
        assert training["turns"] is is_on
    n = facts["turns"]["entries"]["train"]
    assert f"turns      {2 * n} answers in the training entries, all of them count" in said
    assert facts["turns"]["counts"]["train"]["turns"] == 2 * n
    assert facts["single"]["converted"]["later_turns"] == 30
    assert "later_turns" not in facts["turns"]["converted"]  # they are not left out

    lines = ["Describe the lamp.", "/new", "Describe it.", "And again?", "/quit"]
    prompts, answers = chat(tmp_path / "turns", lines, monkeypatch)
    said = capsys.readouterr().err
    assert "Earlier lines belong to the prompt, /new forgets them." in said
    assert "(the model sees nothing of what was said so far)" in said
    asked = [encode_prompt({"instruction": line, "input": "", "output": ""}, tokenizer, "short") for line in lines]
    assert prompts[:2] == [asked[0], asked[2]]  # /new has forgotten the lamp
    row = encode_turns(talk("Describe it.", answers[1], "And again?", "Yes."), tokenizer, "short").ids
    assert prompts[2] == row[: len(prompts[2])]  # the beginning of what would be a training row
    assert prompts[2] == [*asked[2], *tokenizer.encode(answers[1]), EOT, *asked[3]]
    messages = [("user", "Describe it."), ("assistant", answers[1]), ("user", "And again?")]
    assert ask_server(tmp_path / "turns", messages, monkeypatch) == prompts[2]

    prompts, _ = chat(tmp_path / "single", [line for line in lines if line != "/new"], monkeypatch)
    assert "Each line is a fresh prompt." in capsys.readouterr().err
    assert prompts == [asked[0], asked[2], asked[3]]
    assert ask_server(tmp_path / "single", messages, monkeypatch) == asked[3]


def chat(folder: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[list[int]], list[str]]:
    """`respond --interactive` with these lines: the prompts that the model got, and its answers."""
    prompts, steps, answer, answers = [], generation.generate_steps, respond.Chat.answer, []

    def listening(model: GPT, given: list, **options: object) -> object:
        prompts.extend(given)
        return steps(model, given, **options)

    def keeping(self: respond.Chat, entry: dict) -> None:
        answer(self, entry)
        answers.extend(said["output"] for said in self.history[-1:])

    with monkeypatch.context() as patch:
        patch.setattr(generation, "generate_steps", listening)
        patch.setattr(respond.Chat, "answer", keeping)
        patch.setattr(sys, "stdin", Keyboard(*lines))
        assert respond.main([str(folder), "--interactive", "--device", "cpu", "--max-new-tokens", "8"]) == 0
    return prompts, answers


def ask_server(folder: Path, said: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The prompt that `scripts.serve` makes of these messages for a run."""
    seen: list[Served] = []

    class Server:
        def run(self, sockets: list) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(serve, "make_app", lambda served, **_: seen.append(served))
        patch.setattr(serve, "make_server", lambda app: Server())
        assert serve.main([str(folder), "--port", "0", "--device", "cpu"]) == 0
    body = ChatBody(messages=[{"role": role, "content": text} for role, text in said], max_tokens=8)
    return chat_job(body, seen[0])[0].prompt


def test_turns_are_refused_where_no_entry_has_any(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "single.json"
    path.write_text(json.dumps([{"instruction": "a", "output": "b"}]), encoding="utf-8")
    assert finetune.main(["--data", str(path), "--turns", "--device", "cpu", "--out", str(tmp_path / "run")]) == 2
    assert "--turns: no entry of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_single_answer_run_learns_from_first_answers_only(conversations: Path, tokenizer: Tokenizer) -> None:
    entries = load_entries(conversations)
    single, whole = InstructionDataset(entries, tokenizer), ConversationDataset(entries, tokenizer)
    assert all(a.kinds.count(Kind.END) == 1 for a in single.examples)
    assert all(b.ids[: len(a.ids)] == a.ids for a, b in zip(single.examples, whole.examples, strict=True))
