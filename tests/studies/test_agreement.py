"""Statistics against values worked out by hand, a plain count over pairs, and judges whose worth is known."""

import itertools
import random

import numpy as np
import pytest

from gpt.studies.agreement import (
    agreement,
    calibrate,
    is_shown,
    kendall,
    pair_counts,
    pair_outcome,
    paired,
    paired_difference,
    pearson,
    permutation_p,
    ranks,
    spearman,
)

A, B = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]
TIED_A, TIED_B = [1.0, 2.0, 2.0, 3.0], [1.0, 3.0, 2.0, 2.0]

# ---- correlations ----


def test_correlations_of_five_rows_are_those_worked_out_by_hand() -> None:
    """Two neighbours swapped twice: sum of squared rank differences 4, so 1 - 6*4/120; 8 pairs agree, 2 do not."""
    assert pearson(A, B) == pytest.approx(0.8)
    assert spearman(A, B) == pytest.approx(0.8)
    assert kendall(A, B) == pytest.approx(0.6)
    assert spearman(A, [x**3 for x in A]) == pytest.approx(1.0) != pytest.approx(pearson(A, [x**3 for x in A]))


def test_ties_share_their_rank_and_are_taken_out_of_kendalls_scale() -> None:
    """TIED_A has ranks 1, 2.5, 2.5, 4 and TIED_B 1, 4, 2.5, 2.5; of 6 pairs 3 agree, 1 disagrees, 1 is tied on each
    side: tau-b is (3 - 1) / 5, where tau without the correction would be 2 / 6."""
    assert ranks(TIED_A).tolist() == [1, 2.5, 2.5, 4]
    assert spearman(TIED_A, TIED_B) == pytest.approx(2.25 / 4.5)
    assert kendall(TIED_A, TIED_B) == pytest.approx(2 / 5)


def test_correlations_equal_a_plain_count_over_pairs_on_random_scores_with_ties() -> None:
    rng = random.Random(0)
    for _ in range(20):
        a, b = ([rng.randint(0, 5) for _ in range(12)] for _ in range(2))
        pairs = list(itertools.combinations(range(12), 2))
        signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
        untied = [sum(s[side] != 0 for s in signs) for side in (0, 1)]
        assert kendall(a, b) == pytest.approx(sum(x * y for x, y in signs) / (untied[0] * untied[1]) ** 0.5)
        assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
        by_count = [[sum(y < x for y in v) + (v.count(x) + 1) / 2 for x in v] for v in (a, b)]
        assert spearman(a, b) == pytest.approx(np.corrcoef(*by_count)[0, 1])


def test_where_one_side_does_not_vary_there_is_no_correlation() -> None:
    """NumPy would give nan, which is no JSON."""
    for correlation in (pearson, spearman, kendall):
        assert correlation(A, [3.0] * 5) is None
        assert correlation([], []) is None
        assert correlation([1.0], [2.0]) is None


def test_rows_that_one_side_could_not_score_are_left_out_and_counted() -> None:
    assert paired([1, None, 3], [4, 5, None]) == ([1], [4])
    found = agreement([1, 2, None, 3, 4], [2, 4, 9, 6, None])
    assert found == {"n": 3, "pearson": pytest.approx(1), "spearman": pytest.approx(1), "kendall": pytest.approx(1)}


# ---- differences ----


def test_the_permutation_test_of_few_rows_counts_all_signs() -> None:
    """Of the 16 ways to sign 1, 2, 3, 4 only two reach a sum of 10 either way; of those to sign 1, 1, -1, eight have
    a sum as far from 0 as 1: all."""
    assert permutation_p([1, 2, 3, 4]) == 2 / 16
    assert permutation_p([1, 1, -1]) == 1.0
    assert permutation_p([0.0, 0.0]) == 1.0
    assert permutation_p([0.1] * 3 + [0.2]) == 2 / 16  # sums that differ by rounding are the same


def test_drawn_signs_agree_with_all_signs() -> None:
    differences = np.random.default_rng(1).normal(0.4, 1, 14)
    signs = np.array(list(itertools.product((-1, 1), repeat=14)))
    exact = (abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert permutation_p(differences) == pytest.approx(exact, abs=0.015)
    assert permutation_p(differences) == permutation_p(differences)
    assert permutation_p([1.0] * 40) == pytest.approx(1 / 10_001)  # never 0: the signs as found are possible


def test_without_a_difference_one_in_twenty_is_shown_at_the_most_about() -> None:
    rng = np.random.default_rng(0)
    small = [permutation_p(rng.normal(0, 1, 10)) < 0.05 for _ in range(300)]
    assert np.mean(small) < 0.09


def test_pairing_shows_a_difference_that_two_separate_means_hide() -> None:
    """Rows differ by 30 points and more; the models by 2 on each row."""
    rng = random.Random(0)
    theirs = [rng.uniform(0, 100) for _ in range(60)]
    ours = [x + rng.gauss(2, 1) for x in theirs]
    found = paired_difference(ours, theirs)
    assert found["n"] == 60
    assert 1.5 < found["low"] < found["value"] < found["high"] < 2.5
    assert is_shown(found)
    shuffled = paired_difference(ours, rng.sample(theirs, 60))  # the wrong variant: other rows' scores
    assert not is_shown(shuffled)
    assert not is_shown(paired_difference(ours, ours))
    assert not is_shown(paired_difference([None], [1.0]))


# ---- pairs ----


@pytest.mark.parametrize(
    ("in_order", "swapped", "outcome"),
    [("A", "B", 1.0), ("B", "A", 0.0), ("A", "A", 0.5), ("B", "B", 0.5), ("A", "tie", 0.5), ("tie", "A", 0.5),
     ("tie", "tie", 0.5), (None, "B", None), ("A", None, None)],
)  # fmt: skip
def test_only_a_choice_that_stays_the_same_in_both_orders_wins(
    in_order: str | None, swapped: str | None, outcome: float | None
) -> None:
    assert pair_outcome(in_order, swapped) == outcome


def test_a_judge_that_always_takes_the_first_place_ties_all_rows_and_is_seen() -> None:
    found = pair_counts(["A"] * 8, ["A"] * 8)
    assert (found["wins"], found["ties"], found["losses"], found["order_changed_it"]) == (0, 8, 0, 8)
    assert found["first_place_chosen"] == 1.0
    assert found["win_rate"]["value"] == 0.5
    assert found["p"] == 1.0
    one_order = [1.0] * 8  # the wrong variant: asked in one order, it would be a clean win
    assert permutation_p(np.subtract(one_order, 0.5)) < 0.05


def test_pairs_are_counted_with_a_tie_as_half_a_win() -> None:
    found = pair_counts(["A", "A", "B", "tie", None], ["B", "A", "A", "tie", "B"])
    assert {name: found[name] for name in ("n", "wins", "ties", "losses", "unreadable", "order_changed_it")} == {
        "n": 4, "wins": 1, "ties": 2, "losses": 1, "unreadable": 1, "order_changed_it": 1,
    }  # fmt: skip
    assert found["win_rate"]["value"] == 0.5
    assert pair_counts([], [])["n"] == 0


# ---- calibration ----

TEXTS = {"reference": [f"answer {i} " * (i % 3 + 1) for i in range(20)], "empty": [""] * 20}
TEXTS["copied input"] = [f"a longer question about {i}" for i in range(20)]
TEXTS["shuffled reference"] = TEXTS["reference"][7:] + TEXTS["reference"][:7]


def score_all(score: object) -> dict[str, list[float | None]]:
    return {name: [score(text, i) for i, text in enumerate(texts)] for name, texts in TEXTS.items()}


@pytest.mark.parametrize("seed", range(8))
def test_a_random_judge_is_unfit(seed: int) -> None:
    rng = random.Random(seed)
    found = calibrate(score_all(lambda text, i: rng.randint(0, 100)))
    assert found["fit"] is False
    assert found["words"].startswith("The judge is unfit")


@pytest.mark.parametrize("score", [50, 100, 0, None])
def test_a_constant_judge_and_one_that_nobody_can_read_are_unfit(score: int | None) -> None:
    found = calibrate(score_all(lambda text, i: score))
    assert found["fit"] is False
    assert found["reference_wins"]["empty"]["value"] == 0.5


def test_a_judge_whose_longest_wins_is_unfit_though_it_knows_empty_ones() -> None:
    found = calibrate(score_all(lambda text, i: len(text)))
    assert found["fit"] is False
    assert found["reference_wins"]["empty"]["value"] == 1.0
    assert "empty" not in found["words"]
    assert "copied input" in found["words"]


def test_an_oracle_is_fit_also_if_a_few_of_its_replies_are_lost() -> None:
    def oracle(text: str, i: int) -> float:
        return 95.0 if text == TEXTS["reference"][i] else 20.0

    found = calibrate(score_all(oracle))
    assert found["fit"] is True
    assert found["words"].startswith("The judge is fit")
    assert found["means"]["reference"] == 95.0
    assert calibrate(score_all(lambda text, i: None if i < 2 else oracle(text, i)))["fit"] is True
    assert calibrate(score_all(lambda text, i: 10.0 - oracle(text, i)))["fit"] is False


def test_too_few_rows_show_nothing() -> None:
    found = calibrate({name: scores[:3] for name, scores in score_all(lambda text, i: len(text) and 5).items()})
    assert found["fit"] is False
    assert "not known" in found["words"]
