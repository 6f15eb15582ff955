"""Pictures that are encoded together."""
import threading

import pytest
import torch

from retrieval.server.batching import Batcher, BusyError

from .conftest import COLOURS, picture


def test_several_are_answered_together_and_each_with_its_own():
    calls, begin = [], threading.Event()

    def work(items):
        begin.wait(5)
        calls.append(len(items))
        return [10 * item for item in items]
    batcher, found = Batcher(work, most=4), {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: batcher(n)})) for n in range(9)]
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join()
    batcher.close()
    assert found == {n: 10 * n for n in range(9)}
    assert sum(calls) == 9 and max(calls) <= 4 and len(calls) < 9


def test_a_full_queue_refuses():
    hold = threading.Event()
    batcher = Batcher(lambda items: hold.wait(5) and items, most=1, waiting=1)
    threads = [threading.Thread(target=batcher, args=(n,)) for n in range(2)]
    threads[0].start()
    while batcher.queue.qsize():
        pass
    threads[1].start()
    while not batcher.queue.full():
        pass
    with pytest.raises(BusyError, match='try again'):
        batcher(3)
    hold.set()
    for thread in threads:
        thread.join()
    batcher.close()


def test_an_error_reaches_who_asked_and_the_next_is_answered():
    def work(items):
        return [1 / item for item in items]
    batcher = Batcher(work)
    with pytest.raises(ZeroDivisionError):
        batcher(0)
    assert batcher(2) == 0.5
    batcher.close()


def test_embeddings_do_not_depend_on_company(folder_service, folder):
    """Also of pictures of other sizes, and of arrays."""
    files = [str(path) for path in sorted(folder.rglob('*.png'))]
    together = folder_service.encoder.many(files)
    rows = folder_service.own_gallery
    assert torch.allclose(together, rows.embeddings, atol=1e-5) and list(rows.ids) == files
    import numpy as np
    array = np.asarray(picture(COLOURS['red'], 0))
    assert torch.allclose(folder_service.encoder(array),
                          rows.embeddings[files.index(str(folder / 'red' / '0.png'))], atol=1e-5)
