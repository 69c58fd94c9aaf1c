import random
import tracemalloc

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from gpt.evaluation import metrics
from gpt.evaluation.metrics import (
    METRICS,
    bleu,
    bootstrap_interval,
    copied_input,
    exact_match,
    nearest_responses,
    rouge_l,
    score_floors,
    score_responses,
    token_f1,
)
from gpt.text.entries import jaccard, words

NOUNS = "river teacher garden window market doctor bridge candle forest kitchen ladder mirror needle orange".split()
GLUE = "the a of in and to is was it on for with that by".split()


def english(rng: random.Random, n_words: int = 12) -> str:
    """A text of common and rare words, capitals, signs and digits."""
    text = " ".join(rng.choice(rng.choice((NOUNS, GLUE))) for _ in range(rng.randint(1, n_words)))
    return text.capitalize() + rng.choice([".", "!", ", don't.", " (12).", ""])


def pairs(n: int) -> list[tuple[str, str]]:
    rng = random.Random(1)
    return [(english(rng), english(rng)) for _ in range(n)]


# ---- one pair ----


def test_exact_match_ignores_white_space_only() -> None:
    assert exact_match(" The  cat.\n", "The cat.") == 1
    assert exact_match("the cat.", "The cat.") == exact_match("The cat", "The cat.") == exact_match("", "x") == 0


def test_token_f1_is_the_harmonic_mean_of_precision_and_recall() -> None:
    precision, recall = 2 / 3, 2 / 4
    assert token_f1("a b x", "A b, c d.") == pytest.approx(2 * precision * recall / (precision + recall))
    assert token_f1("a b", "b A") == 1
    assert token_f1("a", "b") == 0


def test_token_f1_counts_a_word_as_often_as_it_stands() -> None:
    assert token_f1("the the the the", "the cat") == pytest.approx(2 * 1 / (4 + 2))
    assert len(set("the the the the".split()) & set("the cat".split())) / 1 == 1  # of sets, precision would be full


def test_rouge_l_on_english_is_what_rouge_score_gives() -> None:
    authority = RougeScorer(["rougeL"])
    for response, reference in pairs(200):
        assert rouge_l(response, reference) == authority.score(reference, response)["rougeL"].fmeasure


def test_rouge_l_of_chinese_is_by_character() -> None:
    assert rouge_l("猫在睡觉。", "猫在睡觉。") == 1
    assert rouge_l("猫在睡觉", "狗在睡觉") == token_f1("猫在睡觉", "狗在睡觉") == 0.75
    default = RougeScorer(["rougeL"]).score("猫在睡觉。", "猫在睡觉。")["rougeL"].fmeasure
    assert default == 0  # the wrong variant: its tokenizer throws every Chinese character away


def test_rouge_l_minds_the_order_and_token_f1_does_not() -> None:
    assert rouge_l("plum fig", "fig plum") == 0.5
    assert token_f1("plum fig", "fig plum") == 1


def test_bleu_is_what_sacrebleu_gives() -> None:
    for response, reference in pairs(200):
        assert bleu(response, reference) == pytest.approx(sacrebleu.sentence_bleu(response, [reference]).score / 100)
    for response, reference in [("猫在睡觉。", "狗在睡觉。"), ("今天下雨了", "今天下雨"), ("abc", "今天下雨")]:
        wanted = sacrebleu.sentence_bleu(response, [reference], tokenize="zh").score / 100
        assert bleu(response, reference) == pytest.approx(wanted)


def test_bleu_of_chinese_is_by_character() -> None:
    assert bleu("猫今天在家睡觉", "狗今天在家睡觉") > 0.8
    assert sacrebleu.sentence_bleu("猫今天在家睡觉", ["狗今天在家睡觉"]).score == 0  # the wrong variant: one word each


def test_bleu_of_japanese_is_by_character() -> None:
    assert bleu("ありがとうございます", "ありがとうございました") > 0.5


@pytest.mark.parametrize("text", ["ฉันชอบแมวมาก", "ຂ້ອຍຮັກລາວຫຼາຍ", "ខ្ញុំចូលចិត្តឆ្មា", "ကျွန်တော်ကြောင်ကြိုက်တယ်"])
def test_bleu_of_thai_lao_khmer_and_burmese_is_by_character(text: str) -> None:
    part = "".join(words(text)[:-2])
    assert 0.5 < bleu(part, text) < 1 and bleu(text, text) == pytest.approx(1)
    assert sacrebleu.sentence_bleu(part, [text]).score == 0  # the wrong variant: one word each


@pytest.mark.parametrize("name", METRICS)
def test_nothing_is_the_right_answer_to_nothing_for_all_metrics_alike(name: str) -> None:
    assert METRICS[name]("", "") == METRICS[name](" \n", "") == 1


@pytest.mark.parametrize("name", METRICS)
def test_a_response_equal_to_its_reference_scores_one_and_a_different_one_zero(name: str) -> None:
    for text in ("The cat sleeps.", "Oslo", "猫在睡觉。", "!", "42", "a, b, c"):
        assert METRICS[name](text, text) == pytest.approx(1)
        assert METRICS[name]("", text) == METRICS[name](text, "") == METRICS[name]("zzz", text) == 0


@pytest.mark.parametrize("name", [name for name in METRICS if name != "bleu"])
def test_scores_lie_between_zero_and_one(name: str) -> None:
    for response, reference in [*pairs(200), ("the same words here", "the same words here")]:
        assert 0 <= METRICS[name](response, reference) <= 1


def test_bleu_lies_between_zero_and_one() -> None:
    assert 0 <= bleu("the same words here", "the same words here") <= 1


# ---- intervals ----


def width(interval: dict[str, float]) -> float:
    return interval["high"] - interval["low"]


def test_an_interval_holds_the_mean_of_its_rows() -> None:
    for seed in range(20):
        rows = np.random.default_rng(seed).random(30)
        interval = bootstrap_interval(rows)
        assert interval["value"] == pytest.approx(rows.mean())
        assert interval["low"] < interval["value"] < interval["high"]


def test_an_interval_is_as_wide_as_the_normal_one_and_half_as_wide_with_four_times_the_rows() -> None:
    rows = np.random.default_rng(0).random(1600)
    for n in (400, 1600):
        assert width(bootstrap_interval(rows[:n])) == pytest.approx(2 * 1.96 * rows[:n].std() / n**0.5, rel=0.08)
    assert width(bootstrap_interval(rows)) == pytest.approx(width(bootstrap_interval(rows[:400])) / 2, rel=0.15)


def test_constant_rows_give_an_interval_of_zero_width() -> None:
    assert bootstrap_interval([0.5] * 10) == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert bootstrap_interval([1]) == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_an_interval_depends_on_its_seed_only() -> None:
    rows = np.random.default_rng(0).random(50).tolist()
    assert bootstrap_interval(rows, seed=1) == bootstrap_interval(rows, seed=1)
    assert bootstrap_interval(rows, seed=1)["low"] != bootstrap_interval(rows, seed=2)["low"]


def test_about_95_of_100_intervals_hold_the_true_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "N_BOOTSTRAP", 400)
    rng = np.random.default_rng(7)
    samples = rng.beta(2, 3, size=(400, 80))  # scores in 0..1 of 80 responses; their true mean is 2 / 5
    intervals = [bootstrap_interval(rows, seed=i) for i, rows in enumerate(samples)]
    held = np.mean([interval["low"] <= 0.4 <= interval["high"] for interval in intervals])
    assert 0.91 <= held <= 0.98  # of 400 at 95%, within about three standard errors
    # The wrong variant: the spread of the rows instead of the spread of their mean holds it always.
    assert all(low <= 0.4 <= high for low, high in np.quantile(samples, [0.025, 0.975], axis=1).T)


@pytest.mark.parametrize("n", [1, 2, 7, 110, 999])
def test_an_interval_is_the_same_to_the_bit_as_from_all_samples_drawn_at_once(n: int) -> None:
    rows, rng = np.random.default_rng(n).random(n), np.random.default_rng(123)
    low, high = np.quantile(rows[rng.integers(0, n, (2000, n))].mean(1), [0.025, 0.975])
    assert bootstrap_interval(rows) == {"value": rows.mean(), "low": low, "high": high}


def test_the_samples_of_many_rows_are_not_held_all_at_once() -> None:
    rows = np.random.default_rng(0).random(5000)
    tracemalloc.start()
    bootstrap_interval(rows)
    assert tracemalloc.get_traced_memory()[1] < 20e6  # bytes; all at once take 160 MB
    tracemalloc.stop()


def test_no_rows_are_an_error() -> None:
    for empty in ([], np.array([])):
        with pytest.raises(ValueError, match="nothing to average"):
            bootstrap_interval(empty)
    with pytest.raises(ValueError, match="nothing to average"):
        score_responses([], [])


def test_a_set_is_scored_by_every_metric_and_needs_a_reference_for_each_response() -> None:
    responses, references = (list(side) for side in zip(*pairs(30), strict=True))
    scores = score_responses(responses, references)
    assert set(scores) == {"exact_match", "token_f1", "rouge_l", "bleu"}
    for name, score in scores.items():
        each = [METRICS[name](a, b) for a, b in zip(responses, references, strict=True)]
        assert score["value"] == pytest.approx(np.mean(each))
        assert score["low"] <= score["value"] <= score["high"]
    with pytest.raises(ValueError, match="shorter"):
        score_responses(responses, references[:-1])


# ---- floors ----


def entry(instruction: str, text: str = "", output: str = "x") -> dict:
    return {"instruction": instruction, "input": text, "output": output}


def test_the_copied_input_is_the_instruction_where_there_is_no_input() -> None:
    assert copied_input(entry("Copy.", "The cat.")) == "The cat."
    assert copied_input(entry("Copy.")) == copied_input(entry("Copy.", " \n")) == "Copy."


def nearest_by_brute_force(train: list[dict], test: list[dict]) -> list[str]:
    """Every training prompt against every test prompt; of equals the first."""

    def prompt_words(each: dict) -> frozenset[str]:
        return frozenset(words(each["instruction"] + "\n" + each["input"]))

    sets = [prompt_words(each) for each in train]
    best = [max(range(len(train)), key=lambda i: jaccard(sets[i], prompt_words(each))) for each in test]
    return [train[i]["output"] for i in best]


def prompts(n: int, n_words: int, seed: int) -> list[dict]:
    """Prompts of words as frequent as in a language (Zipf), each with an answer of its own."""
    rng = np.random.default_rng(seed)
    drawn = rng.zipf(1.3, size=(n, 2, n_words)).clip(max=500)
    return [
        entry(*(" ".join(f"w{word}" for word in half) for half in row), f"{seed}.{i}") for i, row in enumerate(drawn)
    ]


@pytest.mark.long
def test_the_nearest_training_answer_of_short_prompts_is_the_one_brute_force_finds() -> None:
    train, test = prompts(400, 5, seed=1), prompts(200, 5, seed=2)
    assert nearest_responses(train, test) == nearest_by_brute_force(train, test)
    assert nearest_responses(train, train[:50]) == nearest_by_brute_force(train, train[:50])


@pytest.mark.long
def test_the_nearest_training_answer_of_long_prompts_is_the_one_brute_force_finds() -> None:
    train, test = prompts(200, 20, seed=1), prompts(100, 20, seed=2)
    assert nearest_responses(train, test) == nearest_by_brute_force(train, test)


def test_a_prompt_that_shares_no_word_gets_the_first_training_answer() -> None:
    train = [entry("name a colour", output="Blue."), entry("name a fruit", output="Fig.")]
    assert nearest_responses(train, [entry("下雨"), entry("Name a fruit!")]) == ["Blue.", "Fig."]


def test_a_prompt_without_words_gets_the_first_training_answer() -> None:
    assert nearest_responses([entry("???", output="Blue.")], [entry("!!!")]) == ["Blue."]


def test_floors_are_the_scores_of_the_copied_input_and_of_the_nearest_training_answer() -> None:
    train = [entry("Name a colour.", output="Blue."), entry("Name a fruit.", output="Fig.")]
    test = [entry("Name one colour.", output="Blue."), entry("Copy.", "The cat.", "The cat.")]
    floors = score_floors(train, test)
    assert set(floors) == {"copied_input", "nearest_training_answer"}
    assert floors["copied_input"] == score_responses(["Name one colour.", "The cat."], ["Blue.", "The cat."])
    assert floors["copied_input"]["exact_match"]["value"] == 0.5
    assert floors["nearest_training_answer"]["exact_match"]["value"] == 0.5
    assert set(score_floors([], test)) == {"copied_input"}
