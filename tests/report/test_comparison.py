"""Two runs: pairing, wins and losses, and their significance against plain counts."""
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from retrieval.evaluation import QueryResults
from retrieval.report import compare_runs


def results(rows, num_relevant=None, names=('mAP', 'MRR')):
    rows = torch.tensor(np.asarray(rows, dtype=float))
    relevant = torch.ones(len(rows), dtype=torch.int64) if num_relevant is None else num_relevant
    return QueryResults(list(names), rows, torch.as_tensor(relevant))


@pytest.fixture
def pair():
    numbers = np.random.default_rng(0)
    before = numbers.random((12, 2)).round(1)
    return before, (before + numbers.choice([0, 0, .1, .2, -.1], (12, 2))).clip(0, 1)


def test_wins_losses_and_p_values(pair):
    before, after = pair
    found = compare_runs(results(before), results(after))
    for column, one in enumerate(found.metrics):
        apart = after[:, column] - before[:, column]
        assert one.wins == (apart > 0).sum() and one.losses == (apart < 0).sum()
        assert one.wins + one.losses + one.ties == 12
        assert one.difference == pytest.approx(100 * apart.mean())
        assert one.sign_p_value == pytest.approx(
            binomtest(one.wins, one.wins + one.losses).pvalue)
        # every change of signs, in the place of a draw of them
        means = [abs(np.dot(signs, apart)) for signs in product([-1, 1], repeat=12)]
        exact = np.mean([mean >= abs(apart.sum()) - 1e-9 for mean in means])
        assert one.p_value == pytest.approx(exact, abs=0.02)
        draws = np.random.default_rng(1).integers(0, 12, (20000, 12))
        low, high = np.percentile(100 * apart[draws].mean(1), [2.5, 97.5])
        assert (one.low, one.high) == pytest.approx((low, high), abs=1)


def test_the_same_run_is_no_different(pair):
    for one in compare_runs(results(pair[0]), results(pair[0])).metrics:
        assert (one.difference, one.wins, one.losses, one.ties) == (0, 0, 0, 12)
        assert one.p_value == one.sign_p_value == 1


def test_queries_are_paired_by_their_ids(pair):
    before, after = pair
    names = [f'q{row}' for row in range(12)]
    order = np.random.default_rng(2).permutation(12)
    plain = compare_runs(results(before), results(after))
    mixed = compare_runs(results(before), results(after[order]), names,
                         [names[row] for row in order])
    assert mixed.metrics == plain.metrics and mixed.only == (0, 0)
    part = compare_runs(results(before), results(after[3:]), names, [*names[3:-1], 'other'])
    assert part.only == (4, 1) and len(part.queries[0]) == 8
    np.testing.assert_allclose(part.differences, 100 * (after - before)[3:-1])


def test_queries_that_count_in_one_run_alone_are_left_out(pair):
    before, after = pair
    found = compare_runs(results(before, [0, *[1] * 11]), results(after, [*[2] * 10, 0, 3]))
    assert found.skipped == 2 and found.queries[0].tolist() == [*range(1, 10), 11]


def test_runs_that_cannot_be_compared(pair):
    before, after = map(results, pair)
    with pytest.raises(ValueError, match='12 and 5 queries'):
        compare_runs(before, results(pair[0][:5]))
    with pytest.raises(ValueError, match='share no query'):
        compare_runs(before, after, list('abcdefghijkl'), list('mnopqrstuvwx'))
    with pytest.raises(ValueError, match="occurs twice: 'a'"):
        compare_runs(before, after, list('aacdefghijkl'), list('abcdefghijkl'))
    with pytest.raises(ValueError, match='other metrics'):
        compare_runs(before, results(pair[1], names=('mAP', 'Recall@1')))
    with pytest.raises(ValueError, match='relevant row in both'):
        compare_runs(results(pair[0][:2], [0, 1]), results(pair[1][:2], [1, 0]))
