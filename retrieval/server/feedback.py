"""Marks of right and wrong results, and a projection that is trained on them."""
from __future__ import annotations

import csv
import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from ..files import write_atomically
from ..gallery import Gallery
from ..image_io import read_image
from .service import Query, Service, UnknownRowError, cut
from .snapshot import Snapshot

_HEADER = ['query', 'result', 'right', 'time']
_FEWEST = 8  # marks, right and wrong together
_FOLDS = 4
_RANK, _STEPS, _RATE, _DECAY = 32, 150, 0.01, 0.05
_SCALE = 10.0  # of a similarity, in the loss


class Marked(NamedTuple):
    """A mark: a query as JSON text, the id of the result, and whether it is right."""

    query: str
    result: str
    right: bool


class Feedback:
    """The marks of a service in ``marks.csv``, and what is trained on them.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.path = service.source.state / 'marks.csv'
        self.trained_path = service.source.state / 'projection.safetensors'
        self._lock, self._training = threading.Lock(), threading.Lock()

    # Marks ---------------------------------------------------------------------------------------

    def mark(self, query: Query, handle: int, right: bool) -> dict[str, Any]:
        """Append a mark; on the disk when this returns. A later mark of the same pair counts.

        Raises:
            UnknownRowError, UnknownUploadError: there is no such row or upload.
            ValueError: a query that is a vector cannot be kept.
        """
        snapshot = self.service.current()
        row = self.service.row_of(snapshot, Query(row=handle))
        assert row is not None
        kept: dict[str, Any] = {'box': list(query.box)} if query.box is not None else {}
        if query.upload is not None:
            path = self.service.uploads.path(query.upload)
            target = self.service.source.state / 'marked' / query.upload
            if not target.exists():  # longer than uploads are kept
                target.parent.mkdir(exist_ok=True)
                write_atomically(target, lambda temporary: shutil.copyfile(path, temporary))
            kept['upload'] = query.upload
        else:
            asked = self.service.row_of(snapshot, query)
            if asked is None:
                raise ValueError('A mark wants a query with a row, an id or an upload.')
            kept['id'] = snapshot.name(asked)
        line = [json.dumps(kept, sort_keys=True), snapshot.name(row), int(right), int(time.time())]
        with self._lock:
            new = not self.path.exists()
            with open(self.path, 'a', newline='', encoding='utf-8',
                      errors='surrogateescape') as file:
                writer = csv.writer(file, lineterminator='\n')
                if new:
                    writer.writerow(_HEADER)
                writer.writerow(line)
                file.flush()
                os.fsync(file.fileno())
        return self.counts()

    def marks(self) -> list[Marked]:
        """The marks, the last of each pair."""
        if not self.path.exists():
            return []
        found = {}
        with open(self.path, newline='', encoding='utf-8', errors='surrogateescape') as file:
            for line in csv.DictReader(file):
                if line.get('right') in ('0', '1'):  # a line that a kill cut off is none
                    found[line['query'], line['result']] = line['right'] == '1'
        return [Marked(*pair, right) for pair, right in found.items()]

    def counts(self) -> dict[str, Any]:
        """How many marks there are, and what they are good for."""
        marks = self.marks()
        right = sum(mark.right for mark in marks)
        return dict(right=right, wrong=len(marks) - right,
                    queries=len({mark.query for mark in marks}), needed=_FEWEST,
                    can_train=len(marks) >= _FEWEST and 0 < right < len(marks),
                    trained=self.trained_path.is_file(),
                    use='original' if self.service.projection is None else 'trained')

    # Training ------------------------------------------------------------------------------------

    def _embedded(self, query: str, snapshot: Snapshot, gallery: Gallery,
                  memory: dict[str, Tensor | None]) -> Tensor | None:
        """The embedding of a query without a projection; None where its picture is gone."""
        if query not in memory:
            service, kept = self.service, json.loads(query)
            try:
                if 'upload' in kept:
                    path = service.source.state / 'marked' / kept['upload']
                    memory[query] = service.encoder(
                        str(path) if 'box' not in kept else cut(read_image(path), kept['box']))
                else:
                    row = snapshot.row_of_name[kept['id']]
                    memory[query] = gallery.embeddings[row] if 'box' not in kept else \
                        service.encoder(cut(service.pictures.read(snapshot.ids[row]), kept['box']))
            except (OSError, LookupError):
                memory[query] = None
        return memory[query]

    def train(self) -> dict[str, Any]:
        """Train a projection on all marks, and say what the same training does to marks that it
        did not see: the queries are split into four parts, each held out once.

        Returns:
            ``before`` and ``after``, each with ``ordered``: the share of pairs of a right and a
            wrong held-out result that their similarities order rightly; and ``changed``, the
            held-out marks with both similarities, the largest change first.

        Raises:
            ValueError: there are too few marks, or of one kind alone.
        """
        if not self._training.acquire(blocking=False):
            raise TimeoutError('A training is running: wait for it.')
        try:
            return self._train()
        finally:
            self._training.release()

    def _train(self) -> dict[str, Any]:
        snapshot, gallery = self.service.both()
        memory: dict[str, Tensor | None] = {}
        pairs, marks = [], []
        for mark in self.marks():
            query = self._embedded(mark.query, snapshot, gallery, memory)
            row = snapshot.row_of_name.get(mark.result)
            if query is not None and row is not None:
                pairs.append((normalize(query, dim=0), normalize(gallery.embeddings[row], dim=0)))
                marks.append(mark)
        right = torch.tensor([float(mark.right) for mark in marks])
        if len(marks) < _FEWEST or not 0 < right.sum() < len(right):
            raise ValueError(f'A training wants at least {_FEWEST} marks, some right and some '
                             f'wrong; there are {int(right.sum())} right and '
                             f'{int(len(right) - right.sum())} wrong.')
        ones, others = (torch.stack(side) for side in zip(*pairs, strict=True))
        names = sorted({mark.query for mark in marks})
        groups = names if len(names) >= 2 * _FOLDS else None
        fold = torch.tensor([(names.index(mark.query) if groups else place) % _FOLDS
                             for place, mark in enumerate(marks)])
        before = (ones * others).sum(1)
        after = torch.zeros_like(before)
        for number in range(_FOLDS):
            held = fold == number
            if held.any() and 0 < right[~held].sum() < len(right[~held]):
                after[held] = _scores(train_projection(ones[~held], others[~held], right[~held]),
                                      ones[held], others[held])
            else:
                after[held] = before[held]
        projection = train_projection(ones, others, right)
        self._save(projection)
        return dict(
            before=dict(ordered=_ordered(before, right, fold)),
            after=dict(ordered=_ordered(after, right, fold)), marks=len(marks),
            changed=self._changed(marks, before, after))

    def _changed(self, marks: Sequence[Marked], before: Tensor,
                 after: Tensor) -> list[dict[str, Any]]:
        snapshot = self.service.current()
        row_of = snapshot.row_of_name
        order = (after - before).abs().argsort(descending=True)[:50].tolist()
        found = []
        for place in order:
            mark, query = marks[place], json.loads(marks[place].query)
            row = row_of.get(mark.result)
            asked = row_of.get(query.get('id', ''))
            if row is not None:
                found.append(dict(
                    row=int(snapshot.handles[row]), upload=query.get('upload'),
                    query_row=None if asked is None else int(snapshot.handles[asked]),
                    name=snapshot.name(row), right=mark.right,
                    before=round(float(before[place]), 4), after=round(float(after[place]), 4)))
        return found

    def _save(self, projection: Tensor) -> None:
        from safetensors.torch import save

        fingerprint = json.dumps(self.service.fingerprint, sort_keys=True)
        data = save({'projection': projection.contiguous()}, {'fingerprint': fingerprint})
        write_atomically(self.trained_path, lambda path: Path(path).write_bytes(data))

    def use(self, which: str) -> dict[str, Any]:
        """Search through the trained projection, or as before; searches that run end as they began.

        Raises:
            UnknownRowError: nothing was trained.
            ValueError: it was trained for another model.
        """
        if which == 'original':
            self.service.use(None)
            return self.counts()
        if not self.trained_path.is_file():
            raise UnknownRowError('Nothing was trained yet: mark results, and train.')
        from safetensors import safe_open

        with safe_open(self.trained_path, 'pt') as opened:
            made = (opened.metadata() or {}).get('fingerprint')
            projection = opened.get_tensor('projection')
        own = json.dumps(self.service.fingerprint, sort_keys=True)
        if made != own:
            raise ValueError('The projection was trained for another model: train again.')
        self.service.use(projection)
        return self.counts()


def train_projection(ones: Tensor, others: Tensor, right: Tensor) -> Tensor:
    """A projection ``(D, D)`` after which right pairs are similar and wrong ones are not.

    The identity and a correction of low rank, which is held small: a few marks must not turn
    everything over. The level from which pairs count as similar is learned too.

    Args:
        ones, others: ``(n, D)`` float32, the pairs, at length 1.
        right: ``(n,)`` float32, 1 or 0.

    Example:
        >>> ones, others = torch.eye(2)[[0, 0]], torch.tensor([[.6, .8], [.8, .6]])
        >>> found = _scores(train_projection(ones, others, torch.tensor([1., 0.])), ones, others)
        >>> bool(found[0] - found[1] > -0.2)
        True
    """
    generator = torch.Generator().manual_seed(0)
    width = ones.shape[1]
    down = (torch.randn(width, min(_RANK, width), generator=generator)
            / width ** 0.5).requires_grad_()
    up = torch.zeros(min(_RANK, width), width, requires_grad=True)
    level = (ones * others).sum(1).median().clone().requires_grad_()
    weights = [down, up, level]
    moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in weights]
    share = right.mean()
    weight = torch.where(right > 0, 0.5 / share, 0.5 / (1 - share))
    with torch.enable_grad():
        for step in range(1, _STEPS + 1):
            scores = (normalize(ones + ones @ down @ up)
                      * normalize(others + others @ down @ up)).sum(1)
            loss = binary_cross_entropy_with_logits(_SCALE * (scores - level), right, weight)
            loss = loss + _DECAY * ((down.T @ down) * (up @ up.T)).sum()  # of the correction's norm
            # Adam (Kingma & Ba, 2015); that of torch.optim imports a compiler first, for seconds
            for one, slope, (first, second) in zip(weights, torch.autograd.grad(loss, weights),
                                                   moments, strict=True):
                first.lerp_(slope, 0.1)
                second.lerp_(slope.square(), 0.001)
                one.data -= _RATE * (first / (1 - 0.9 ** step)) / (
                    (second / (1 - 0.999 ** step)).sqrt() + 1e-8)
    return (torch.eye(width) + down @ up).detach()


def _scores(projection: Tensor, ones: Tensor, others: Tensor) -> Tensor:
    """The cosine similarity of pairs after a projection, ``(n,)``."""
    return (normalize(ones @ projection) * normalize(others @ projection)).sum(1)


def _ordered(scores: Tensor, right: Tensor, fold: Tensor) -> float | None:
    """The share of right and wrong pairs of one fold that their scores order rightly."""
    shares = []
    for number in fold.unique().tolist():
        own = fold == number
        good, bad = scores[own & (right > 0)], scores[own & (right == 0)]
        if len(good) and len(bad):
            shares.append(np.mean((good[:, None] > bad).numpy()
                                  + 0.5 * (good[:, None] == bad).numpy()))
    return round(float(np.mean(shares)), 4) if shares else None
