import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gpt.text import entries as module
from gpt.text.entries import (
    EntryError,
    duplicate_groups,
    entries_sha256,
    jaccard,
    load_entries,
    near_duplicates,
    read_entries,
    shingles,
    split_entries,
    split_report,
    words,
)

NOUNS = (
    "river teacher garden window market doctor bridge candle forest kitchen ladder mirror needle orange pepper".split()
)


def make_entries(n: int, seed: int = 0) -> list[dict]:
    """Prompts of random words, so that no two are nearly the same."""
    rng = random.Random(seed)
    return [
        {"instruction": " ".join(rng.choices(NOUNS, k=8)), "input": f"{i} {rng.random()}", "output": rng.choice(NOUNS)}
        for i in range(n)
    ]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_json_and_json_lines_give_the_same_entries(tmp_path: Path) -> None:
    entries = [
        {"instruction": "Say hi.", "input": "", "output": "Hi.", "kind": "generation"},
        {"instruction": "Copy.", "input": "a\u2028b", "output": "a\u2028b"},
    ]
    whole = write(tmp_path / "a.json", json.dumps(entries, indent=2))
    lines = write(tmp_path / "a.jsonl", "\n".join(json.dumps(e, ensure_ascii=False) for e in entries) + "\n\n")
    marked = write(tmp_path / "b.json", b"\xef\xbb\xbf" + json.dumps(entries).encode())
    assert load_entries(whole) == load_entries(lines) == load_entries(marked) == entries


def test_the_content_tells_the_kind_of_file_and_not_its_name(tmp_path: Path) -> None:
    entries = make_entries(3)
    forms = {
        "list": json.dumps(entries),
        "lines": "\r\n".join(map(json.dumps, entries)),
        "wrapped": json.dumps({"version": "1.0", "licences": ["MIT"], "empty": [], "data": entries}),
        "wrapped over lines": '{"train": [' + ",\n".join(map(json.dumps, entries)) + "\n]}",
        "indented": json.dumps({"data": entries}, indent=1),
    }
    for form, text in forms.items():
        for suffix in (".json", ".jsonl", ".json.gz"):
            plain = write(tmp_path / f"plain{suffix}", text)
            packed = write(tmp_path / f"packed{suffix}", gzip.compress(text.encode()))
            assert read_entries(plain) == read_entries(packed) == (entries, {"alpaca": 3}), (form, suffix)


def test_one_record_in_a_file_is_not_taken_for_a_wrapped_list(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]}
    task = {"instruction": "Double it.", "instances": [{"input": "2", "output": "4"}]}
    for record in (chat, task):
        entry, counts = read_entries(write(tmp_path / "one.jsonl", json.dumps(record)))
        assert (len(entry), sum(counts.values())) == (1, 1)
        assert entry == read_entries(write(tmp_path / "one.json", json.dumps([record], indent=1)))[0]
        lists = [v for v in record.values() if isinstance(v, list)]
        assert len(lists) == 1  # unwrapping whatever holds one list would have taken these for the records


def test_a_wrapped_list_of_one_short_line_is_read(tmp_path: Path) -> None:
    entry = {"instruction": "a", "input": "", "output": "b"}
    # The first line ends in "}", as those of JSON Lines do, and is no object by itself.
    assert load_entries(write(tmp_path / "a.json", f'{{"data": [{json.dumps(entry)}\n]}}')) == [entry]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(json.dumps(make_entries(50)).encode()))
    if damage == "cut":
        del data[-100:]
    else:
        data[200:220] = bytes(20)
    with pytest.raises(EntryError, match=r"a\.jsonl\.gz: the gzip file is cut off or damaged"):
        load_entries(write(tmp_path / "a.jsonl.gz", bytes(data)))


def test_records_of_several_formats_may_stand_in_one_file(tmp_path: Path) -> None:
    records = [
        {"instruction": "a", "output": "b"},
        {"question": "a", "answer": "b"},
        {"instruction": "a", "input": "<noinput>", "output": "b"},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    ]
    entries, counts = read_entries(write(tmp_path / "a.json", json.dumps(records)))
    assert entries == [{"instruction": "a", "input": "", "output": "b"}] * 4 == load_entries(tmp_path / "a.json")
    assert counts == {"alpaca": 2, "question_answer": 1, "chat": 1, "no_input_markers": 1}


def test_a_missing_or_null_input_becomes_empty(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json", '[{"instruction": "a", "output": "b"}, {"instruction": "a", "input": null, "output": "b"}]'
    )
    assert [entry["input"] for entry in load_entries(path)] == ["", ""]


BROKEN = {
    "": "no entries",
    "[]": "no entries",
    "[1]": r"entry 0: expected an object, found int 1",
    '[{"instruction": "a", "output": "b"}, {"instruction": "a"}]': r"entry 1: its fields \['instruction'\] are of no",
    '[{"instruction": 3, "output": "b"}]': r'entry 0: "instruction" must be text, found int 3',
    '[{"instruction": "a", "output": null}]': r'entry 0: "output" must be text, found NoneType null',
    '[{"instruction": "a", "input": [1], "output": "b"}]': r'entry 0: "input" must be text, found list \[1\]',
    '[{"instruction": " ", "output": "b"}]': r'entry 0: "instruction" is empty',
    '[{"instruction": "a", "output": "b"}': "not valid JSON",
    '{"instruction": "a", "output": "b"}\n{oops}': "line 2: not valid JSON",
    '{"instruction": "a", "instruction": "c", "output": "b"}': "the key 'instruction' stands twice",
    "[" * 100_000: "not valid JSON",
    '{"instruction": "a", "outp\n{"instruction": "a", "output": "b"}': "not valid JSON: .* line 1 column",
    '{"instruction": "a", "a": 1, "a": 2}\n{}': "line 1: not valid JSON: the key 'a' stands twice",
    '{"train": [{"instruction": "a", "output": "b"}], "test": [{}]}': r"\['test', 'train'\] are lists of objects",
    '{"data": []}': r"entry 0: its fields \['data'\] are of no known format",
    '{"messages": [{"role": "user", "content": "a"}]}': "no entries: only {'chat': 1, 'no_entry': 1, 'unanswered': 1}",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_file_is_an_error_that_names_file_position_and_field(tmp_path: Path, text: str) -> None:
    with pytest.raises(EntryError, match=BROKEN[text]) as caught:
        load_entries(write(tmp_path / "broken.json", text))
    assert "broken.json" in str(caught.value)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(EntryError, match="byte 18 is not UTF-8"):
        load_entries(write(tmp_path / "a.json", b'[{"instruction": "\xff"}]'))


def test_the_fingerprint_changes_with_any_text_and_with_the_order() -> None:
    entries = make_entries(3)
    changed = [entries[0] | {"output": entries[0]["output"] + "."}, *entries[1:]]
    fingerprints = {entries_sha256(e) for e in (entries, changed, entries[::-1])}
    assert len(fingerprints) == 3
    assert entries_sha256(entries) == entries_sha256([dict(e, kind="other") for e in entries])  # not trained on


def test_text_without_spaces_is_counted_by_character() -> None:
    text = "今天天气很好，我们去公园。"
    assert words(text) == list("今天天气很好我们去公园")
    assert len(text.split()) == 1  # the wrong variant sees one word
    assert words("GPT-2 学习 naïve_text 3.5") == ["gpt", "2", "学", "习", "naïve_text", "3", "5"]


def test_near_duplicates_are_those_of_brute_force() -> None:
    rng = random.Random(3)
    entries = make_entries(120)
    for entry in make_entries(120):  # copies with a word changed, added or none
        text = entry["instruction"].split() + NOUNS[:12]
        base = entry | {"instruction": " ".join(text), "input": ""}
        text[rng.randrange(len(text))] = rng.choice(NOUNS)
        entries += [base, base | {"instruction": " ".join(text)}]
    sets = [shingles(e["instruction"] + "\n" + e["input"]) for e in entries]
    inputs = [shingles(e["input"]) for e in entries]
    brute = [
        (i, j)
        for i in range(len(entries))
        for j in range(i + 1, len(entries))
        if jaccard(sets[i], sets[j]) >= 0.7 and jaccard(inputs[i], inputs[j]) >= 0.5
    ]
    assert sorted(near_duplicates(entries)) == brute
    assert 100 < len(brute) < 1000


def test_the_same_question_about_another_text_is_no_duplicate() -> None:
    ask = "Read the following sentence carefully and then tell me which animal is mentioned in it, using one word only."
    entries = [{"instruction": ask, "input": text, "output": ""} for text in ("The cat sleeps.", "A dog barks loudly.")]
    assert list(near_duplicates(entries)) == []
    entries[1]["input"] = "The cat sleeps!"
    assert list(near_duplicates(entries)) == [(0, 1)]


def test_a_grouped_split_keeps_near_duplicates_on_one_side_and_an_ordered_one_does_not() -> None:
    entries = make_entries(400)
    twins = [e | {"instruction": e["instruction"].upper(), "output": "again"} for e in entries[:150]]
    copies = [dict(e, output="copy") for e in entries[150:200]]
    everything = entries + twins + copies
    train, val, test = split_entries(everything)
    assert split_report(train, test) == {"entries": 60, "exact": 0, "near": 0}
    assert split_report(train, val)["near"] == 0
    assert sorted(map(str, train + val + test)) == sorted(map(str, everything))  # nothing lost, nothing twice
    train, _, test = split_entries(everything, how="ordered")
    report = split_report(train, test)  # the wrong variant: the copies at the end have their twins in train
    assert report["exact"] == 20
    assert report["near"] > 0


def test_an_ordered_split_of_1100_is_the_published_935_110_55() -> None:
    entries = make_entries(1100)
    train, val, test = split_entries(entries, how="ordered")
    assert (train, test, val) == (entries[:935], entries[935:1045], entries[1045:])


def test_a_split_follows_from_its_seed() -> None:
    entries = make_entries(200)
    assert split_entries(entries, seed=1) == split_entries(entries, seed=1)
    assert split_entries(entries, seed=1)[2] != split_entries(entries, seed=2)[2]
    with pytest.raises(ValueError, match="'random' is not known"):
        split_entries(entries, how="random")


def test_groups_join_by_way_of_others() -> None:
    base = NOUNS + NOUNS[::-1]
    chain = [" ".join(base[:i] + ["x"] * 0 + base[i + 1 :]) if i else " ".join(base) for i in (0, 3, 6)]
    entries = [{"instruction": text, "input": "", "output": ""} for text in chain] + make_entries(5)
    assert [0, 1, 2] in duplicate_groups(entries)


def few_words(n: int) -> list[dict]:
    """Prompts of so few different words that thousands share each run of three."""
    rng = random.Random(0)
    pick = lambda k: " ".join(rng.choices(NOUNS, k=k))  # noqa: E731
    return [{"instruction": pick(8), "input": pick(9), "output": ""} for _ in range(n)]


def one_template(n: int) -> list[dict]:
    """An instruction and two words: some prompts are the same, and many differ in a word."""
    rng = random.Random(0)
    ask = "Say whether these two are found in one house:"
    return [{"instruction": ask, "input": f"{rng.randrange(60)} {rng.choice(NOUNS)}", "output": ""} for _ in range(n)]


def real_set(n: int) -> list[dict]:
    """Ours twice, the second time with every fifth word left out."""
    entries = load_entries(Path(__file__).parents[2] / "data" / "instructions.json")[: n // 2]
    without = [[word for i, word in enumerate(e["instruction"].split()) if i % 5 != 2] for e in entries]
    return entries + [e | {"instruction": " ".join(text)} for e, text in zip(entries, without, strict=True)]


@pytest.mark.long
@pytest.mark.parametrize("make", [few_words, one_template, real_set])
def test_whichever_way_a_pair_is_found_it_is_one_of_brute_force(
    make: Callable[[int], list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = make(800)
    sets = [(shingles(e["instruction"] + "\n" + e["input"]), shingles(e["input"])) for e in entries]
    brute = [
        (i, j)
        for j, (prompt, text) in enumerate(sets)
        for i, (other_prompt, other_text) in enumerate(sets[:j])
        if jaccard(prompt, other_prompt) >= 0.7 and jaccard(text, other_text) >= 0.5
    ]
    assert list(near_duplicates(entries)) == brute
    for meeting in ({1: 1}, {2: 1, 1: 1e9}, {3: 1, 2: 1e6, 1: 1e9}):  # the other ways where a set is too small
        monkeypatch.setattr(module, "MEETING", meeting)
        assert list(near_duplicates(entries)) == brute
    assert brute or make is few_words


@pytest.mark.long
def test_few_pairs_are_compared_where_one_meeting_would_compare_a_growing_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def counted(a: frozenset, b: frozenset) -> float:
        compared.append(1)
        return jaccard(a, b)

    def n_a_row(n: int) -> float:
        compared.clear()
        assert list(near_duplicates(few_words(n))) == []
        return len(compared) / n

    monkeypatch.setattr(module, "jaccard", counted)
    assert n_a_row(3000) < 0.5
    monkeypatch.setattr(module, "MEETING", {1: 1})  # the wrong variant: twice as many rows, twice as many for each
    few, many = n_a_row(1500), n_a_row(3000)
    assert few > 5
    assert many > 1.7 * few


@pytest.mark.slow  # a minute, by the clock: on a busy machine it says nothing
def test_grouping_grows_about_linearly_where_one_meeting_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 10,000 to 20,000 entries of few words: 2.4 times as long; 3.5 times where one shared shingle is enough."""

    def seconds(n: int) -> float:
        entries, began = few_words(n), time.process_time()
        assert list(near_duplicates(entries)) == []
        return time.process_time() - began

    assert min(seconds(20_000) for _ in range(2)) < 2.7 * min(seconds(10_000) for _ in range(2))
    monkeypatch.setattr(module, "MEETING", {1: 1})  # the wrong variant
    assert seconds(20_000) > 3 * seconds(10_000)


def test_copies_of_a_prompt_are_no_pairs_to_go_through() -> None:
    """3,000 copies are 4.5 million pairs."""
    copies = [{"instruction": "Tell me a joke.", "input": "", "output": str(i)} for i in range(3000)]
    others = make_entries(20)
    began = time.process_time()
    assert duplicate_groups(others[:10] + copies + others[10:])[9:12] == [[9], list(range(10, 3010)), [3010]]
    assert split_report(copies, copies[:2] + others)["exact"] == 2
    assert time.process_time() - began < 2


def test_marks_belong_to_their_letters() -> None:
    assert words("\u0915\u0940") != words("\u0915\u0947")  # ki and ke of Hindi: without marks both are k
    assert len(words("\u0e44\u0e21\u0e48")) == 2  # Thai, which has no spaces: one word a character
    assert words("nai\u0308ve") == ["nai\u0308ve"]


BAD_FIELDS = [
    ({"output": "x\ud83d"}, r'"output" has half a character, \\ud83d at position 1'),
    ({"source": "cut \ud83d"}, r'"source" has half a character, \\ud83d at position 4'),
    ({"notes": {"by": ["\ud83d"]}}, '"notes" has half a character'),
    ({"\ud83d": 1}, "has half a character"),
    ({"turns": [{"role": "user", "content": "\ud83d"}]}, '"turns" has half a character'),
    ({"kind": ["a"]}, '"kind" must be text, found list'),
    ({"turns": 3}, '"turns" must be a list, found int 3'),
    ({"turns": ["a"]}, r'"turns" must be objects with a text "content", found str "a"'),
    ({"turns": [{"role": "user", "content": None}]}, '"turns" must be objects with a text "content", found dict'),
    ({"constraints": {"check": "upper_case"}}, '"constraints" must be a list, found dict'),
]


@pytest.mark.parametrize(("bad", "message"), BAD_FIELDS)
def test_a_field_that_would_fail_later_is_refused_with_its_place(tmp_path: Path, bad: dict, message: str) -> None:
    good = {"instruction": "a", "output": "b"}
    path = write(tmp_path / "a.json", json.dumps([good, good | bad]))
    with pytest.raises(EntryError, match=f"entry 1: .*{message}"):
        load_entries(path)
    rejected = []
    assert len(read_entries(path, rejected)[0]) == len(rejected) == 1


@pytest.mark.parametrize(
    "bad", ["oops", '{"instruction": "a", "out', "", "[1, 2]", '{"instruction": 5, "output": "b"}']
)
@pytest.mark.parametrize("n_bad", [1, 2])
def test_json_lines_may_begin_with_what_is_to_be_left_out(tmp_path: Path, bad: str, n_bad: int) -> None:
    good, rejected = '{"instruction": "a", "output": "b"}', []
    path = write(tmp_path / "a.jsonl", "\n".join([bad] * n_bad + [good]))
    assert len(read_entries(path, rejected)[0]) == 1
    assert [row["where"] for row in rejected] == [f"{path}: line {n + 1}" for n in range(n_bad) if bad]


LAID_OUT = ["[\n{0}\n]", "[{0},\n{0}\n]", "[{0}\n,\n{0}]", '{{"data": [\n{0}\n]}}', '{{\n"data": [\n{0},\n{0}\n]\n}}']


@pytest.mark.parametrize("form", LAID_OUT)
def test_json_in_lines_is_no_json_lines(tmp_path: Path, form: str) -> None:
    """Whichever of the first lines is an object by itself."""
    path = write(tmp_path / "a.json", form.format('{"instruction": "a", "output": "b"}'))
    assert len(load_entries(path)) == form.count("{0}")
    missing = write(
        tmp_path / "b.json", '[\n{"instruction": "a", "output": "b"}\n{"instruction": "c", "output": "d"}\n]'
    )
    with pytest.raises(EntryError, match="not valid JSON: Expecting ',' delimiter: line 3"):
        load_entries(missing)


def test_fields_that_are_null_in_a_row_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    """A table has every field in every row."""
    good = {"instruction": "a", "output": "b"}
    empty = dict.fromkeys(("kind", "source", "system", "constraints", "turns"))
    assert load_entries(write(tmp_path / "a.json", json.dumps([good | empty]))) == [good | {"input": ""}]
