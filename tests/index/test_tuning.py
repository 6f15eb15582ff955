"""Trials against exact search, and the choice among them."""
from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.tuning import Budget, Candidate, Trial, Tuner, _seconds, candidates, held_out

from .toys import WIDTH, blobs


def tuner(rows=2000, similarity='cosine_similarity', **options):
    return Tuner(torch.from_numpy(blobs(rows)), torch.from_numpy(blobs(50, 7)), similarity,
                 options.pop('k', 10), **options)


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_recall_counts_what_exact_search_finds(similarity):
    tuned = tuner(similarity=similarity)
    exact = ExactIndex(similarity)
    exact.add(tuned.gallery, range(2000))
    best = exact.search(tuned.queries, 20).indices
    assert tuned.recall(best[:, :10]) == 1
    assert tuned.recall(best[:, 3:13]) == pytest.approx(0.7, abs=0.005)
    assert tuned.recall(best[:, 10:]) < 0.005
    assert tuned.recall(torch.cat([best[:, :4], best.new_full((50, 6), -1)], 1)) == \
        pytest.approx(0.4)


def test_ties_with_the_last_result_count():
    gallery = torch.eye(4).repeat(5, 1)  # each row five times
    tuned = Tuner(gallery, torch.eye(4), 'cosine_similarity', 3)
    assert tuned.recall(torch.tensor([[16, 12, 8], [17, 13, 9], [18, 14, 10], [0, 7, 3]])) == \
        pytest.approx((3 + 2 / 3) / 4)


def test_trials_measure_what_they_say(monkeypatch):
    monkeypatch.setattr('retrieval.index.tuning._LEAST_SECONDS', 0.01)
    tuned = tuner()
    made = list(tuned.trials(Candidate(dict(factory='IVF16,Flat'), settings=(
        dict(nprobe=1), dict(nprobe=4), dict(nprobe=16)))))
    recalls = [one.recall for one in made]
    assert recalls == sorted(recalls) and recalls[-1] > 0.999
    for one in made:
        index = FaissIndex(**{key: value for key, value in one.index.items() if key != 'type'})
        index.add(tuned.gallery, range(2000))
        assert tuned.recall(index.search(tuned.queries, 10).indices) == pytest.approx(one.recall)
        assert one.memory_mb == pytest.approx(index.nbytes / 1e6)
        assert one.queries_per_second > 0 and 0 < one.latency_ms < 1e4
    stopped = list(tuned.trials(Candidate(dict(factory='IVF16,Flat'), settings=(
        dict(nprobe=8), dict(nprobe=16))), enough=0.5))
    assert len(stopped) == 1
    halved = list(tuned.trials(Candidate(dict(factory='IVF16,Flat'), settings=(
        dict(nprobe=1), dict(nprobe=16))), enough=0.9))
    tried = [one.index['search_parameters']['nprobe'] for one in halved]
    assert tried[:3] == [1, 16, 8] and len(tried) == 5
    fewest = min(number for number, one in zip(tried, halved, strict=True) if one.recall >= 0.9)
    assert all(one.recall < 0.9 for number, one in zip(tried, halved, strict=True)
               if number < fewest)
    rescored = list(tuned.trials(Candidate(dict(factory='PQ4x4', rescore=True), (
        dict(rescore_factor=2), dict(rescore_factor=50)))))
    assert [one.index['rescore_factor'] for one in rescored] == [2, 50]
    assert rescored[0].recall < rescored[1].recall


def test_a_failure_is_a_trial():
    for factory, says in (('IVF4000,Flat', 'at least 4000 rows'), ('PQ7', 'width 16')):
        failed, = tuner().trials(Candidate(dict(factory=factory)))
        assert says in failed.error and failed.name == factory
        assert Budget(recall=0.5).choose([failed]) == (None, None)


def test_an_excluded_row_counts_for_nothing():
    gallery = torch.from_numpy(blobs(500))
    tuned = Tuner(gallery, gallery[:20], 'cosine_similarity', 5, exclude=list(range(20)))
    exact = ExactIndex()
    exact.add(gallery, range(500))
    assert tuned.exact().recall == 1
    found = exact.search(gallery[:20], 6).indices
    assert tuned.recall(found[:, 1:]) == 1


def test_candidates_fit_the_gallery():
    for rows, width in ((200, 6), (5000, 64), (10 ** 6, 128), (10 ** 6, 97)):
        made = candidates(rows, width, 'cosine_similarity')
        names = [one.options['factory'] for one in made]
        assert 'HNSW32' in names and ('IVF1024,Flat' in names) == (rows == 10 ** 6)
        assert any(name.startswith('IVF') for name in names) == (rows > 200)
        for one in made:
            FaissIndex(**one.options)
            assert all(len(setting) == 1 or one.settings == ({},) for setting in one.settings)
    given = candidates(1000, WIDTH, 'euclidean', ['IDMap,IVF30,PQ8,RFlat', 'PQ8'])
    assert [one.options for one in given] == [
        dict(factory='IVF30,PQ8,RFlat'), dict(factory='PQ8'), dict(factory='PQ8', rescore=True)]
    assert given[0].settings[-1] == dict(nprobe=30)
    assert given[0].factors == (dict(k_factor_rf=4), dict(k_factor_rf=16))
    with pytest.raises(ValueError, match='cannot build'):
        candidates(1000, WIDTH, 'euclidean', ['Flatt'])


def made(recall, rate, latency, memory):
    return Trial(dict(type='x'), 'x', recall, rate, latency, memory)


def test_the_choice():
    slow, fast, coarse, small = (made(1.0, 10, 9, 100), made(0.96, 50, 2, 100),
                                 made(0.7, 90, 1, 100), made(0.8, 20, 5, 10))
    everything = [slow, fast, coarse, small]
    assert Budget(recall=0.95).choose(everything)[0] is fast
    assert Budget(recall=0.97).choose(everything)[0] is slow
    assert Budget(latency_ms=3).choose(everything)[0] is fast
    assert Budget(memory_mb=20).choose(everything)[0] is small
    assert Budget(recall=0.6, latency_ms=1.5).choose(everything)[0] is coarse
    assert Budget(recall=0.95, memory_mb=20).choose(everything) == (None, small)
    assert Budget(latency_ms=0.5).choose(everything) == (None, coarse)


def test_by_what_share_a_trial_misses():
    one = made(0.6, 1, 3, 50)
    assert Budget(recall=0.8).shortfall(one) == pytest.approx(0.25)
    assert Budget(0.8, latency_ms=2, memory_mb=40).shortfall(one) == pytest.approx(1)
    assert Budget(0.5, latency_ms=4, memory_mb=60).shortfall(one) == 0


def test_a_time_is_the_median_of_three_calls(monkeypatch):
    monkeypatch.setattr('retrieval.index.tuning._LEAST_SECONDS', 0)
    calls = []
    assert 0 <= _seconds(lambda: calls.append(1)) < 1 and len(calls) == 3


def test_held_out_rows_are_no_rows_of_the_gallery():
    asked, kept = held_out(100, 10, seed=1)
    assert len(asked) == 10 and sorted([*asked.tolist(), *kept.tolist()]) == list(range(100))
    assert not torch.equal(asked, held_out(100, 10, seed=2)[0])
    assert np.array_equal(asked, held_out(100, 10, seed=1)[0])


def test_a_build_stops_at_the_deadline():
    rows = torch.randn(6000, 8)
    tuner = Tuner(rows, rows[:20], 'cosine_similarity', 5)
    tuner.exact()
    tuner.deadline = time.perf_counter() - 1
    (candidate,) = candidates(6000, 8, 'cosine_similarity', ['HNSW16'])
    (one,) = tuner.trials(candidate)
    assert 'time limit' in one.error
    (candidate,) = candidates(6000, 8, 'cosine_similarity', ['IVF64,Flat'])
    assert 0 < tuner.training_seconds(candidate) < 60


def test_coarse_codes_are_rescored_and_others_not():
    made = candidates(10 ** 6, 128, 'cosine_similarity')
    rescored = {one.options['factory'] for one in made if one.options.get('rescore')}
    assert rescored == {one.options['factory'] for one in made
                        if 'PQ' in one.options['factory'] or 'RaBitQ' in one.options['factory']}
    by_name = {one.options['factory']: one for one in made if one.options.get('rescore') is None}
    assert [setting['efSearch'] for setting in by_name['HNSW32'].settings] == [
        16, 32, 64, 128, 256, 512, 1024]
    assert by_name['IVF1024,Flat'].settings[-1] == dict(nprobe=1024)


def test_the_time_that_is_left_and_that_training_takes():
    tuned = tuner()
    tuned._rate = 1e6
    assert tuned.seconds_left() == float('inf')
    for factory, rows in (('IVF16,Flat', 2000), ('IVF4,Flat', 1024)):
        assert tuned.training_seconds(Candidate(dict(factory=factory))) == pytest.approx(
            2 * rows * int(factory[3:].split(',')[0]) * WIDTH * 10 / 1e6)
    assert tuned.training_seconds(Candidate(dict(factory='HNSW8'))) == 0
    tuned.train_size = 300
    assert tuned.training_seconds(Candidate(dict(factory='IVF16,Flat'))) == pytest.approx(
        2 * 300 * 16 * WIDTH * 10 / 1e6)


@pytest.mark.parametrize('recalls, enough, tried', [
    ([0.5] * 5, None, 3),  # more effort finds no more
    ([0.1, 0.5, 0.95, 0.99], 0.9, 3), ([0.1, 0.2, 0.3, 0.4], 0.9, 2),  # at this pace it never will
    ([0.1, 0.5, 1.0, 1.0], None, 3)])
def test_more_thorough_settings_are_tried_while_they_may_help(recalls, enough, tried, monkeypatch):
    tuned, given = tuner(200), iter([*recalls, *[0.95] * 9])

    def measured(index, one, size=None):
        one.recall = next(given)
        return one
    monkeypatch.setattr(tuned, '_measured', measured)
    settings = tuple(dict(nprobe=number) for number in (1, 2, 3, 4, 5)[:len(recalls)])
    made = list(tuned.trials(Candidate(dict(factory='IVF5,Flat'), settings=settings), enough))
    assert len(made) == tried and made[0].error is None
