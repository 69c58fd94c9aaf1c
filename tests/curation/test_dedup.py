"""Deduplication against brute force over all pairs; what is kept, and what is said of what is not."""

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest

from gpt.curation.dedup import (
    N_HASHES,
    DedupIndex,
    band_shape,
    dedup_text,
    deduplicate,
    jaccard_of,
    make_dedup,
    shingle_hashes,
    text_beside_input,
)
from gpt.text.entries import Entry, load_entries

pytest.importorskip("datasketch", reason="pip install -e '.[curate]'")
sparse = pytest.importorskip("scipy.sparse")
ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("GPT_INSTRUCT_DATA", "/nowhere"))  # a folder of public sets, for the slow test


def entry(instruction: str, output: str = "", **others: object) -> Entry:
    return {"instruction": instruction, "input": "", "output": output, **others}


def runs_of(text: str) -> set[str]:
    """The 5-grams as strings: nothing is hashed here."""
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def all_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    """Every pair i < j with its Jaccard similarity, by counting all shared runs: no hashing, no shortcut."""
    number: dict[str, int] = {}
    rows = [[number.setdefault(run, len(number)) for run in runs_of(text)] for text in texts]
    starts = np.cumsum([0, *map(len, rows)])
    ones = np.ones(starts[-1], np.int32)
    table = sparse.csr_matrix((ones, np.concatenate(rows), starts), shape=(len(texts), len(number)))
    sizes, transposed, found = np.diff(starts), table.T.tocsr(), {}
    for low in range(0, len(texts), 500):
        shared = (table[low : low + 500] @ transposed).tocoo()
        i, j = shared.row + low, shared.col
        similarity = shared.data / (sizes[i] + sizes[j] - shared.data)
        for k in np.nonzero((similarity >= threshold) & (i < j))[0]:
            found[int(i[k]), int(j[k])] = float(similarity[k])
    return found


def indexed_pairs(texts: list[str], threshold: float) -> dict[tuple[int, int], float]:
    index, found = DedupIndex(threshold), {}
    for j, text in enumerate(texts):
        found |= {(int(match.label), j): match.similarity for match in index.matches(text)}
        index.add(text, str(j))
    return found


def perturbed(texts: list[str], n: int, seed: int) -> list[str]:
    """Copies with a few words replaced: similarities on both sides of any threshold."""
    rng = random.Random(seed)
    pool, made = " ".join(texts).split(), []
    for _ in range(n):
        parts, share = rng.choice(texts).split(), rng.random() * 0.12
        made.append(" ".join(rng.choice(pool) if rng.random() < share else word for word in parts))
    return made


def check_against_brute_force(texts: list[str], threshold: float) -> None:
    texts = list(dict.fromkeys(texts))
    true, found = all_pairs(texts, threshold), indexed_pairs(texts, threshold)
    assert len(true) > 100
    assert all(found[pair] == pytest.approx(true[pair]) for pair in found)  # precision 1, and the similarity is right
    assert len(found) >= 0.99 * len(true), f"recall {len(found) / len(true):.4f}"


@pytest.mark.long
@pytest.mark.parametrize("threshold", [0.6, 0.8])
def test_all_pairs_above_the_threshold_are_found_and_no_other(threshold: float) -> None:
    texts = [dedup_text(e) for e in load_entries(ROOT / "data" / "instructions.json")][::4]
    check_against_brute_force(texts + perturbed(texts, 1000, seed=1), threshold)


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9])
@pytest.mark.skipif(not REAL.is_dir(), reason="GPT_INSTRUCT_DATA names no folder of public sets")
def test_ten_thousand_real_rows_against_brute_force(threshold: float) -> None:
    texts = [dedup_text(e) for path in sorted(REAL.glob("*.jsonl")) for e in load_entries(path)]
    texts = random.Random(0).sample(list(dict.fromkeys(texts)), 9000)
    check_against_brute_force(texts + perturbed(texts, 1000, seed=2), threshold)


def asked_about(texts: list[str], n: int, seed: int) -> list[Entry]:
    """n questions about few long texts: new ones and such as were asked before, to the letter or nearly."""
    rng, rows = random.Random(seed), []
    passages = [" ".join(rng.sample(texts, 12)) for _ in range(n // 15)]
    for k in range(n):
        earlier = rng.choice(rows) if rows and k % 2 else entry(*rng.sample(texts, 2), input=rng.choice(passages))
        asked, passage = (perturbed([earlier[field]], 1, seed=k)[0] for field in ("instruction", "input"))
        rows.append(earlier | {"instruction": asked, "input": passage if k % 3 else earlier["input"]})
    return rows


@pytest.mark.long
def test_questions_about_one_long_text_against_brute_force() -> None:
    texts = [dedup_text(e) for e in load_entries(ROOT / "data" / "instructions.json")]
    rows = asked_about([text for text in texts if 40 < len(text) < 80], 600, seed=8)
    rows = list({dedup_text(row): row for row in rows}.values())
    wholes = all_pairs([dedup_text(row) for row in rows], 0.8)
    sides = [" ".join(f"{row['instruction']} {row['output']}".lower().split()) for row in rows]
    is_long = [len(row["input"]) > len(row["instruction"] + row["output"]) for row in rows]
    near = all_pairs(sides, 0.8)
    true = {(i, j): s for (i, j), s in wholes.items() if (i, j) in near or not (is_long[i] and is_long[j])}
    index, found = DedupIndex(0.8), {}
    for j, row in enumerate(rows):
        found |= {(int(m.label), j): m.similarity for m in index.matches(dedup_text(row), text_beside_input(row))}
        index.add(dedup_text(row), str(j), text_beside_input(row))
    assert 100 < len(true) < 0.8 * len(wholes), (len(true), len(wholes))
    assert found.keys() <= true.keys() and len(found) >= 0.99 * len(true), (len(found), len(true))


def test_too_few_bands_miss_pairs_that_ours_find() -> None:
    texts = [dedup_text(e) for e in load_entries(ROOT / "data" / "instructions.json")][::10]
    texts = list(dict.fromkeys(texts + perturbed(texts, 300, seed=3)))
    true, index = all_pairs(texts, 0.8), DedupIndex(0.8)
    from datasketch import MinHashLSH

    index.lsh = MinHashLSH(num_perm=N_HASHES, params=(4, 32))  # long bands look precise
    found = 0
    for text in texts:
        found += sum(1 for _ in index.matches(text))
        index.add(text, "")
    assert found < 0.6 * len(true)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_promise_the_recall_at_the_threshold(threshold: float) -> None:
    bands, r = band_shape(threshold)
    assert bands * r <= N_HASHES and 1 - (1 - threshold**r) ** bands >= 0.99
    assert threshold < 1 or (bands, r) == (2, N_HASHES // 2)  # the longest, and so the fewest false hits


@pytest.mark.parametrize("threshold, complaint", [(0, "no similarity"), (1.2, "no similarity"), (0.01, "too low")])
def test_a_threshold_that_cannot_be_is_said(threshold: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        band_shape(threshold)


def test_hashed_runs_give_the_jaccard_similarity_of_the_strings() -> None:
    pairs = [("the cat sat on the mat", "the cat sat on a mat"), ("abc", "abc"), ("abc", "abd"), ("", ""), ("", "a")]
    pairs += [("茶在中国人的生活里几乎无处不在", "茶在中国人的生活中几乎无处不在")]
    pairs += [("😀😀😀😀😀a", "😀😀😀😀😀b")]
    for a, b in pairs:
        exact = len(runs_of(a) & runs_of(b)) / len(runs_of(a) | runs_of(b))
        assert jaccard_of(shingle_hashes(a), shingle_hashes(b)) == pytest.approx(exact)
        assert len(shingle_hashes(a)) == len(runs_of(a))  # a text shorter than a run is one


LONG = "A river carries water from the hills to the sea, and on its way it turns the wheels of many old mills."


def test_case_and_white_space_do_not_count_and_the_reason_names_the_one_that_is_kept() -> None:
    loud, longer = LONG.upper() + "\n", LONG.replace("old", "very old")
    rows = [entry("Rivers?", LONG), entry("Bread?", "Flour and water, and time."), entry("rivers?", loud)]
    rows += [entry("Rivers?", longer), entry("Bread? Flour", "and water, and time.")]
    assert deduplicate(rows) == [
        None, None, "duplicate of entry 1", "near-duplicate of entry 1, Jaccard 0.92", "duplicate of entry 2"
    ]  # fmt: skip


def test_another_answer_to_the_same_question_stays() -> None:
    assert deduplicate([entry("Name a river.", "The Rhine."), entry("Name a river.", "The Yangtze.")]) == [None, None]


def test_other_questions_about_one_long_text_stay() -> None:
    passage = " ".join(f"In the year {1000 + n} the mill had {n} wheels." for n in range(20))
    asked = [("Who built the mill?", "A monk."), ("What did it grind?", "Salt."), ("who built the mill? ", "A monk.")]
    rows = [entry(question, answer) | {"input": passage} for question, answer in asked]
    rows.append(rows[1] | {"input": passage.replace("year 1003", "year 1033")})
    assert deduplicate(rows) == [None, None, "duplicate of entry 1", "near-duplicate of entry 2, Jaccard 0.96"]
    index = DedupIndex()  # which looked at the whole alone
    assert [bool(index.find_or_add(dedup_text(row), "")) for row in rows] == [False, True, True, True]


def test_texts_that_differ_and_have_the_same_runs_are_no_copies() -> None:
    rows = [entry("ha" * 30), entry("ha" * 50), entry("ha" * 30)]
    assert deduplicate(rows) == [None, "near-duplicate of entry 1, Jaccard 1.00", "duplicate of entry 1"]


def test_order_says_which_of_a_group_is_kept() -> None:
    rows = [entry("Rivers?", LONG), entry("Rivers?", LONG + " So it is."), entry("Rivers?", LONG[:-1])]
    kept = {order: deduplicate(rows, order=order).index(None) for order in ("first", "longest", "shortest")}
    assert kept["first"] == 0 and kept["longest"] == 1
    rows = [row | {"score": score} for row, score in zip(rows, (1, 2, 7.5), strict=True)]
    assert [reason is None for reason in deduplicate(rows, order="score")] == [False, False, True]
    with pytest.raises(ValueError, match="order 'stars': found None: use first, longest, shortest or a field"):
        deduplicate(rows, order="stars")


def test_whatever_the_order_no_two_kept_entries_are_near_and_every_dropped_one_is_near_a_kept_one() -> None:
    texts = [dedup_text(e) for e in load_entries(ROOT / "data" / "instructions.json")][::20]
    rows = [entry(text) for text in texts + perturbed(texts, 300, seed=4)]
    for order in ("first", "shortest"):
        reasons = deduplicate(rows, 0.7, order=order)
        kept = [i for i, reason in enumerate(reasons) if reason is None]
        assert not all_pairs([rows[i]["instruction"] for i in kept], 0.7)
        for i, reason in enumerate(reasons):
            if reason:
                near = int(re.search(r"entry (\d+)", reason)[1]) - 1
                a, b = (runs_of(rows[k]["instruction"].strip()) for k in (i, near))
                assert near in kept and len(a & b) / len(a | b) >= 0.7


def test_what_stands_in_the_test_set_is_removed_from_train() -> None:
    check = make_dedup(against=[entry("Rivers?", LONG)])
    assert check(1, entry("Rivers?", LONG + "!")) == "near-duplicate of test entry 1, Jaccard 0.99"
    assert check(2, entry("Bread?", "Flour.")) is None and check(3, entry("Bread?", "Flour.")) == "duplicate of entry 2"


def test_a_chain_keeps_what_is_not_near_the_kept_one() -> None:
    words = [f"word{i:03}" for i in range(100)]
    chain = [entry(" ".join(words[k : k + 60])) for k in (0, 8, 16)]
    reasons = deduplicate(chain, 0.7)
    assert reasons[0] is None and "entry 1" in reasons[1] and reasons[2] is None


def test_empty_entries_are_duplicates_of_each_other() -> None:
    assert deduplicate([entry(""), entry(" "), entry("a")]) == [None, "duplicate of entry 1", None]


def test_two_conversations_that_open_alike_and_go_on_differently_stay() -> None:
    def chat(asked: str, answer: str) -> Entry:
        opening = [{"role": "user", "content": "Hello there!"}, {"role": "assistant", "content": "Hello! What is it?"}]
        later = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return entry("Hello there!", "Hello! What is it?", turns=opening + later)

    rivers, bread = chat("What do rivers do?", LONG), chat("How is bread made?", "Of flour and water, and with time.")
    assert deduplicate([rivers, bread, rivers]) == [None, None, "duplicate of entry 1"]
    assert deduplicate([{**row, "turns": []} for row in (rivers, bread)])[1] == "duplicate of entry 1"  # but for turns
