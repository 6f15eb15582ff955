"""Pictures of several clients are encoded together."""
from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch
from mmengine.dataset import pseudo_collate
from torch import Tensor

from ..datasets import ImageList
from ..encoders.preprocessor import parts_of_one_size
from ..retrievers import evaluation_mode
from .pictures import DECODED_AT_ONCE


class BusyError(RuntimeError):
    """More pictures wait than can be encoded soon."""


class NoEncoderError(RuntimeError):
    """Pictures cannot be encoded, since an index alone is served."""


class Batcher:
    """One thread that calls a function on what several others want of it.

    Args:
        work: from a list of items to a list of results.
        most: items of one call.
        wait: seconds that the first waits for company.
        waiting: items that may wait; more are refused.

    Example:
        >>> batcher = Batcher(lambda numbers: [2 * number for number in numbers])
        >>> batcher(4), batcher.close()
        (8, None)
    """

    def __init__(self, work: Callable[[list[Any]], Sequence[Any]], most: int = 32,
                 wait: float = 0.003, waiting: int = 128) -> None:
        self.work, self.most, self.wait = work, most, wait
        self.queue: queue.Queue[tuple[Any, Future[Any]] | None] = queue.Queue(waiting)
        self.sizes = [0, 0]  # batches, items
        self._entering, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name='batcher')
        self._thread.start()

    def __call__(self, item: Any) -> Any:
        """The result of one item.

        Raises:
            BusyError: too many wait.
        """
        done: Future[Any] = Future()
        with self._entering:
            closed = self._closed
            if not closed:
                try:
                    self.queue.put_nowait((item, done))
                except queue.Full:
                    raise BusyError(f'{self.queue.maxsize} pictures wait to be encoded: try again '
                                    'in a second.') from None
        return self.work([item])[0] if closed else done.result()

    def _run(self) -> None:
        while (first := self.queue.get()) is not None:
            batch, end = [first], time.monotonic() + self.wait
            while len(batch) < self.most:
                try:
                    more = self.queue.get(timeout=max(0.0, end - time.monotonic()))
                except queue.Empty:
                    break
                if more is None:
                    self.queue.put(None)
                    break
                batch.append(more)
            self.sizes[0] += 1
            self.sizes[1] += len(batch)
            self._answer(batch)

    def _answer(self, batch: list[tuple[Any, Future[Any]]]) -> None:
        try:
            results = self.work([item for item, _ in batch])
        except Exception as error:
            for _, done in batch:
                done.set_exception(error)
            return
        for (_, done), result in zip(batch, results, strict=True):
            done.set_result(result)

    def close(self) -> None:
        """End the thread when what waits is done; who comes later does the work alone."""
        with self._entering:
            if self._closed:
                return
            self._closed = True
            self.queue.put(None)
        self._thread.join()


class Encoder:
    """From pictures to embeddings, as the inferencer encodes them.

    Args:
        model: a retriever.
        pipeline: config of the test pipeline; empty where there is no encoder.
    """

    def __init__(self, model: Any, pipeline: Sequence[dict[str, Any]]) -> None:
        self.model, self.pipeline = model, list(pipeline)
        self.batcher = Batcher(self._embed)
        self._decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)

    def __call__(self, picture: Any) -> Tensor:
        """The embedding ``(D,)`` of a picture: a file, or an array ``(H, W, C)`` uint8.

        Raises:
            UnreadableImageError: the file cannot be read.
            BusyError: too many pictures wait.
            NoEncoderError: there is no encoder.
        """
        self.check()
        with self._decoding:
            item = ImageList([picture], pipeline=self.pipeline)[0]
        return self.batcher(item)

    @torch.no_grad()
    def words(self, text: str) -> Tensor:
        """The embedding ``(D,)`` of words.

        Raises:
            ValueError: the encoder has no text tower, or they are empty.
        """
        with evaluation_mode(self.model):
            return self.model.embed_words([text])[0].float().cpu()

    def check(self) -> None:
        """Raise NoEncoderError where there is no encoder."""
        if not self.pipeline:
            raise NoEncoderError('An index alone is served, and no encoder is known for pictures: '
                                 'search by row, id or vector, or start the server with --config '
                                 'and --checkpoint.')

    def many(self, pictures: Sequence[Any]) -> Tensor:
        """The embeddings ``(n, D)`` of some pictures, past the queue."""
        items = list(ImageList(list(pictures), pipeline=self.pipeline))
        return torch.stack([row for start in range(0, len(items), self.batcher.most)
                            for row in self._embed(items[start:start + self.batcher.most])])

    @torch.no_grad()
    def _embed(self, items: list[Any]) -> list[Tensor]:
        found: list[Any] = [None] * len(items)
        with evaluation_mode(self.model):
            for places, part in parts_of_one_size(pseudo_collate(items)):
                inputs = self.model.data_preprocessor(part, False)['inputs']
                embeddings = self.model.embed(inputs).float().cpu()
                for place, embedding in zip(places, embeddings, strict=True):
                    found[place] = embedding
        return found
