"""Augmentation: other words for the same task, and all that must not change."""

import json
from pathlib import Path

import pytest

from gpt.curation.augment import augment_jobs, is_code, why_not_same, with_synonyms, wordnet_synonyms

DEBIAN = Path("/usr/share/wordnet")


def entry(instruction: str, given: str = "", output: str = "Fine.", **others: object) -> dict:
    return {"instruction": instruction, "input": given, "output": output, **others}


BIRDS = entry("Name three birds that can swim.", output="Duck, swan and penguin.", source="written")


def saying(new: str, same: str = "Yes.", there: str = "Nenne drei Vögel."):
    def ask(prompt: str) -> str:
        return same if "<first>" in prompt else there if "into German" in prompt else new

    return ask


# ---- by a teacher ----


@pytest.mark.parametrize("method", ["paraphrase", "back-translation"])
def test_only_the_instruction_changes(method: str) -> None:
    [job] = augment_jobs([BIRDS], method)
    [new] = job.work(saying("List three birds which are able to swim.")).entries
    assert new["instruction"] == "List three birds which are able to swim."
    assert {k: v for k, v in new.items() if k not in ("instruction", "made")} == {
        k: v for k, v in BIRDS.items() if k != "instruction"
    }
    assert new["made"]["method"] == f"augment:{method}" and len(new["made"]["parent"]) == 12


@pytest.mark.parametrize(
    ("ask", "reason"),
    [
        (saying(""), "the teacher said nothing"),
        (saying("I'm sorry, I can't do that."), "the teacher refused"),
        (saying("name three birds that can swim!"), "nothing changed"),
        (saying("Duck, swan and penguin."), "it is the answer"),
        (saying("Tell me. " + "Well, " * 60), "62 words instead of 6"),
        (saying("Name some birds which are able to swim.", same="No."),
         "the teacher does not find that it asks for the same"),
        (saying("Name some birds which are able to swim.", same=""),
         "the teacher does not find that it asks for the same"),
    ],
)  # fmt: skip
def test_what_is_no_paraphrase_is_dropped(ask, reason: str) -> None:
    [job] = augment_jobs([BIRDS], "paraphrase")
    outcome = job.work(ask)
    assert outcome.entries == []
    assert outcome.dropped[0]["reason"] == reason
    assert outcome.dropped[0]["old"] == BIRDS["instruction"]


def test_a_text_that_was_not_translated_is_dropped() -> None:
    [job] = augment_jobs([BIRDS], "back-translation", languages=["German"])
    outcome = job.work(saying("List three swimming birds.", there=BIRDS["instruction"]))
    assert outcome.dropped[0]["reason"] == "it was not translated"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (entry("Say 12 plus 5.", output="17"), "Add a dozen and 5.", "left out: 12"),
        (entry('Explain "cold turkey" to me.'), "Please explain cold turkey to me.",
         'left out: "cold turkey"'),
        (entry("Write it in capitals: the dog runs", output="THE DOG RUNS"), "Use capitals: a hound runs",
         "left out: dog"),
        (entry("Write in capitals: green meadow", output="GREEN MEADOW"), "Use capitals: the meadow",
         "left out: green"),
        (entry("End with the word hello.", output="So, hello", constraints=[{"check": "ends_with", "text": "hello"}]),
         "Finish with a greeting.", "left out: hello"),
        (entry("用三个词形容大海。", output="宽广的大海"), "请形容一下湖泊，用三个词。", "left out: 大"),
    ],
)  # fmt: skip
def test_what_the_answer_hangs_on_has_to_stay(old: dict, new: str, reason: str | None) -> None:
    assert why_not_same(old, new) == reason


@pytest.mark.parametrize(
    "row",
    [
        entry("Explain this.", "def f(x):\n    return x"),
        entry("Explain this.", "int main() {"),
        entry("Write a Python function that adds."),
        entry("Show it.", output="```\nls\n```"),
        entry("Explain this.", "SELECT name FROM users"),
        entry("Say it.", kind="code"),
    ],
)
def test_code_is_never_touched(row: dict) -> None:
    assert is_code(row)
    for method in ("paraphrase", "back-translation", "synonyms"):
        [job] = augment_jobs([row], method, synonyms=lambda word: ["other"])
        outcome = job.work(lambda prompt: pytest.fail("asked"))
        assert outcome.dropped[0]["reason"] == "code is never augmented"


def test_a_conversation_is_left_as_it_was_said() -> None:
    turns = [{"role": "user", "content": BIRDS["instruction"]}, {"role": "assistant", "content": BIRDS["output"]},
             {"role": "user", "content": "Which is the largest?"}]  # fmt: skip
    [job] = augment_jobs([BIRDS | {"turns": turns}], "paraphrase")
    outcome = job.work(lambda prompt: pytest.fail("asked"))
    assert outcome.entries == [] and outcome.dropped[0]["reason"].startswith("a conversation is not augmented")


def test_prose_is_no_code() -> None:
    rows = [BIRDS, entry("Import duties: what are they?"), entry("What is a class action (law)?")]
    assert not any(map(is_code, rows))


def test_jobs_differ_by_variant_and_language() -> None:
    jobs = augment_jobs([BIRDS, BIRDS], "paraphrase", n=2)
    assert [job.order for job in jobs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({job.key for job in jobs}) == 2
    jobs = augment_jobs([BIRDS, BIRDS], "back-translation", n=2, languages=["German", "French"])
    assert [job.work.keywords["rewrite"].keywords["language"] for job in jobs] == [
        "German", "French", "French", "German",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="use synonyms, back-translation, paraphrase"):
        augment_jobs([BIRDS], "swap")


# ---- by WordNet ----

TABLE = {"mistake": ["error"], "error": ["mistake"], "select": ["choose"], "find": ["discover"], "car": ["automobile"]}


def changed(row: dict) -> str | None:
    new, reason = with_synonyms(str, row, lambda word: TABLE.get(word, []), "1")
    return None if reason else new


@pytest.mark.parametrize(
    ("row", "new"),
    [
        (entry("Find the mistake."), "Discover the error."),
        (entry("Find the car.", "My car is red."), "Discover the car."),
        (entry('Find "the car" here.'), 'Discover "the car" here.'),
        (entry("Find a mistake."), "Discover a mistake."),  # "a error" is none
        (entry("Find Car and Select."), "Discover Car and Select."),  # names
        (entry("Find the word for car."), None),
        (entry("Sing a song."), None),
        (entry("The find's mistakes."), None),
    ],
)
def test_sure_words_are_replaced_and_others_stay(row: dict, new: str | None) -> None:
    assert changed(row) == new


def write_wordnet(folder: Path) -> Path:
    """A WordNet of a few words, in the format of wndb(5WN), as Debian lays it out: without lexnames."""
    senses = {  # part of speech: synsets as words with their uses
        "noun": [[("mistake", 20), ("error", 15)], [("error", 1)], [("bank", 9)], [("bank", 8)], [("step", 9)],
                 [("steps", 5), ("stairs", 7)]],
        "verb": [[("choose", 9), ("select", 8), ("pick_out", 4)]],
        "adj": [], "adv": [[("about", 9), ("roughly", 9)]],
    }  # fmt: skip
    counts = []
    for (pos, synsets), code in zip(senses.items(), "nvar", strict=True):
        data, index = "", {}
        for names in synsets:
            for name, n in names:
                index.setdefault(name, []).append(len(data))
                key = f"{name}%{'nvar'.index(code) + 1}:00:{len(data) % 100:02d}::"
                counts.append(f"{key} {len(index[name])} {n}\n")
            lexical = " ".join(f"{name} {len(data) % 100:x}" for name, _ in names)
            data += f"{len(data):08d} 00 {code} {len(names):02x} {lexical} 000 | a meaning\n"
        lines = []
        for name, offsets in index.items():
            places = " ".join(f"{offset:08d}" for offset in offsets)
            lines.append(f"{name} {code} {len(offsets)} 0 {len(offsets)} 0 {places}\n")
        (folder / f"data.{pos}").write_text(data)
        (folder / f"index.{pos}").write_text("".join(sorted(lines)))
        (folder / f"{pos}.exc").write_text("")
    (folder / "cntlist.rev").write_text("".join(sorted(counts)))
    return folder


def test_synonyms_are_those_whose_main_sense_is_shared(tmp_path: Path) -> None:
    pytest.importorskip("nltk", reason="pip install nltk")
    synonyms = wordnet_synonyms(write_wordnet(tmp_path))
    assert synonyms("mistake") == ["error"]
    assert synonyms("error") == ["mistake"]
    assert synonyms("choose") == ["select"]  # "pick out" is two words
    assert synonyms("bank") == synonyms("nothing") == []
    assert synonyms("steps") == []  # it may be the plural of "step"
    assert synonyms("about") == []  # an adverb, which may be a preposition


def test_a_folder_without_wordnet_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("nltk", reason="pip install nltk")
    with pytest.raises(ValueError, match=r"has no data\.noun"):
        wordnet_synonyms(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.exists(), reason="WordNet's files: apt install wordnet-base")
def test_the_real_wordnet_replaces_few_words_well() -> None:
    synonyms = wordnet_synonyms(DEBIAN)
    assert synonyms("large") == ["big"] and synonyms("car") == ["automobile"]
    assert all(synonyms(word) == [] for word in ("about", "kind", "given", "steps", "before", "text"))
    rows = json.loads((Path(__file__).parents[2] / "data" / "instructions.json").read_text(encoding="utf-8"))
    made = [o.entries[0] for job in augment_jobs(rows, "synonyms", synonyms=synonyms) if (o := job.work(str)).entries]
    assert made and all(new["instruction"] != "" for new in made)
