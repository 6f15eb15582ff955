"""Marks of right and wrong results, and switching to the projection that is trained on them."""
from __future__ import annotations

import csv
import json
import logging
import os
import shutil
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from torch import Tensor

from ..files import write_atomically
from .background import Background, Progress
from .changes import NotWritableError
from .marks import (
    FEWEST,
    FOLDS,
    HEADER,
    Mark,
    held_out,
    marked_pairs,
    read_marks,
    train_projection,
)
from .service import Query, Service, UnknownRowError


class Feedback:
    """The marks of a service in ``marks.csv``, and what is trained on them.

    Args:
        service: what is served.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.path = service.source.state / 'marks.csv'
        self.trained_path = service.source.state / 'projection.safetensors'
        self.used_path = service.source.state / 'projection.used.safetensors'
        self._lock, self._training = threading.Lock(), Background(self._train)
        self._take_up()

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
                    writer.writerow(HEADER)
                writer.writerow(line)
                file.flush()
                os.fsync(file.fileno())
        return self.counts()

    def marks(self) -> list[Mark]:
        """The marks, the last of each pair."""
        return read_marks(self.path) if self.path.exists() else []

    def counts(self) -> dict[str, Any]:
        """How many marks there are, and what they are good for."""
        marks = self.marks()
        right = sum(mark.right for mark in marks)
        folder = self.service.source.folder
        return dict(right=right, wrong=len(marks) - right,
                    file=str(self.path.relative_to(folder)) if folder is not None and
                    self.path.is_relative_to(folder) else self.path.name,
                    queries=len({mark.query for mark in marks}), needed=FEWEST,
                    can_train=len(marks) >= FEWEST and 0 < right < len(marks),
                    trained=self.trained_path.is_file(),
                    use='original' if self.service.projection is None else 'trained')

    # Training ------------------------------------------------------------------------------------

    def train(self, wait: bool = True) -> Any:
        """Train a projection on all marks, and say what the same training does to marks that it
        did not see. The same marks over the same gallery are trained on once.

        Args:
            wait: return when it is done; else with a :class:`Progress` until it is.

        Returns:
            ``before`` and ``after``, each with ``ordered`` (see :func:`held_out`); ``marks``, how
            many; and ``changed``, the held-out marks with both similarities, the largest change
            first.

        Raises:
            ValueError: there are too few marks, or of one kind alone.
            NotWritableError: both models are searched.
        """
        self._check_one_model()
        state = self.path.stat() if self.path.exists() else None
        key = (state and (state.st_mtime_ns, state.st_size),
               weakref.ref(self.service.own_gallery))
        return self._training(key, wait)

    def _train(self, _: Any, progress: Progress) -> dict[str, Any]:
        progress.begin('looking at what was marked')
        snapshot, gallery = self.service.both()
        pairs = marked_pairs(self.marks(), gallery.embeddings, snapshot.ids, snapshot.row_of_name,
                             self.service.pictures, snapshot.served.encoder)
        pairs.check()
        progress.begin('training', FOLDS + 1)
        found = held_out(pairs, progress.advance)
        projection = train_projection(pairs.queries, pairs.results, pairs.right)
        self._save(projection, snapshot.served.fingerprint)
        return dict(before=dict(ordered=found.ordered_before),
                    after=dict(ordered=found.ordered_after), marks=len(pairs.marks),
                    changed=self._changed(pairs.marks, found.before, found.after))

    def _changed(self, marks: list[Mark], before: Tensor,
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

    def _save(self, projection: Tensor, made: dict[str, Any]) -> None:
        from safetensors.torch import save

        fingerprint = json.dumps(made, sort_keys=True)
        data = save({'projection': projection.contiguous()}, {'fingerprint': fingerprint})
        write_atomically(self.trained_path, lambda path: Path(path).write_bytes(data))

    def use(self, which: str) -> dict[str, Any]:
        """Search through the trained projection, or as before; searches that run end as they began.

        Raises:
            UnknownRowError: nothing was trained.
            ValueError: it was trained for another model.
            NotWritableError: both models are searched.
        """
        self._check_one_model()
        if which == 'original':
            self.used_path.unlink(missing_ok=True)
            self.service.use(None)
            return self.counts()
        if not self.trained_path.is_file():
            raise UnknownRowError('Nothing was trained yet: mark results, and train.')
        projection = self._read(self.trained_path)
        if projection is None:
            raise ValueError('The projection was trained for another model: train again.')
        write_atomically(self.used_path, lambda path: shutil.copyfile(self.trained_path, path))
        self.service.use(projection)
        return self.counts()

    def _check_one_model(self) -> None:
        if self.service.served.mixture is not None:
            raise NotWritableError('Both models are searched, and a projection belongs to one of '
                                   'them: use the new or the old model first.')

    def _read(self, path: Path) -> Tensor | None:
        """A projection; None where it was trained for another model."""
        from safetensors import safe_open

        with safe_open(path, 'pt') as opened:
            made = (opened.metadata() or {}).get('fingerprint')
            own = json.dumps(self.service.fingerprint, sort_keys=True)
            return opened.get_tensor('projection') if made == own else None

    def _take_up(self) -> None:
        """Search through the projection that was in use when the server ended."""
        if self.used_path.is_file():
            projection = self._read(self.used_path)
            if projection is None:
                print_log('The trained projection is of another model, and not used.', 'current',
                          logging.WARNING)
            else:
                self.service.use(projection)
