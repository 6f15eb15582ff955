"""Work on tiles by several threads, each of which multiplies and selects by itself.

A thread that takes a tile through product and selection waits for nobody, while a product shared by
all threads ends in a selection for which only one is at hand. NumPy lets other threads run during
its loops; its BLAS is held to one thread meanwhile, so that there are as many threads as torch may
use and no more.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

Task = TypeVar('Task')
Result = TypeVar('Result')


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], threads: int | None = None,
             torch_alone: bool = False, ahead: int = 2) -> Iterator[Result]:
    """``work`` of every task, in order, by so many threads at once (torch's number by default).

    Args:
        torch_alone: inside of ``work`` torch starts no threads of its own.
        ahead: so many results for each thread are held at a time.
    """
    threads = torch.get_num_threads() if threads is None else threads
    tasks = iter(tasks)
    if threads <= 1:
        with single_threaded_blas():
            yield from map(work, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    def begin() -> None:
        if torch_alone:
            torch.set_num_threads(1)  # of this thread

    with single_threaded_blas(), ThreadPoolExecutor(threads, initializer=begin) as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= ahead * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def shares(count: int, parts: int | None = None) -> list[tuple[int, int]]:
    """``range(count)`` as that many (torch's number of threads) even ``(start, stop)``, none empty.

    Example:
        >>> shares(7, 3)
        [(0, 2), (2, 4), (4, 7)]
    """
    parts = max(1, min(torch.get_num_threads() if parts is None else parts, count))
    edges = [count * part // parts for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


class _Limit:
    """The BLAS held to one thread while anybody needs it so, also from several threads at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.held: Any = None

    def enter(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                _take_control()
                self.held = _controller().limit(limits=1, user_api='blas')

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                _take_control()
                self.held.restore_original_limits()
                self.held = None


_LIMIT = _Limit()


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # finding the libraries takes milliseconds, once


def _take_control() -> None:
    """Let this thread set the number, which threadpoolctl 3.7 leaves to the first that did."""
    for library in _controller().lib_controllers:
        if hasattr(library, 'clear_controlling_thread'):
            library.clear_controlling_thread(force=True)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold NumPy's BLAS to one thread."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
