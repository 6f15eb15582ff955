from __future__ import annotations

import threading

import pytest
from threadpoolctl import threadpool_info

from retrieval.ranking.threads import in_order, shares, single_threaded_blas


@pytest.mark.parametrize('threads', [1, 3])
def test_results_come_in_order_and_few_are_held(threads):
    begun = []
    results = in_order(lambda task: begun.append(task) or task * task, range(50), threads)
    assert next(results) == 0 and len(begun) <= 2 * threads
    assert list(results) == [task * task for task in range(1, 50)]
    assert sorted(begun) == list(range(50))


@pytest.mark.parametrize('threads', [1, 3])
def test_a_failure_is_the_callers(threads):
    def work(task):
        if task == 4:
            raise ValueError('task 4')
        return task

    with pytest.raises(ValueError, match='task 4'):
        list(in_order(work, range(50), threads))


def blas_threads():
    return {info['num_threads'] for info in threadpool_info() if info['user_api'] == 'blas'}


def test_the_blas_is_held_until_the_last_user_leaves():
    before, inside, leave = blas_threads(), threading.Event(), threading.Event()

    def hold():
        with single_threaded_blas():
            inside.set()
            leave.wait()

    other = threading.Thread(target=hold, daemon=True)
    with single_threaded_blas():
        other.start()
        inside.wait()
    assert blas_threads() == {1}
    leave.set()
    other.join()
    assert blas_threads() == before


@pytest.mark.parametrize(('count', 'parts'), [(10, 3), (2, 5), (0, 4), (7, 7)])
def test_shares_are_even_and_cover_all(count, parts):
    found = shares(count, parts)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(count))
    sizes = [stop - start for start, stop in found]
    assert max(sizes) - min(sizes) <= 1 and (min(sizes) > 0 or count == 0)
