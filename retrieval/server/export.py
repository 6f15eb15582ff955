"""Rows and duplicates as files."""
from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..image_files import UnreadableImageError
from ..index import PartsIndex
from ..search import find_duplicates, prove_duplicates
from ..search.proof import SURE
from .background import Progress
from .pictures import NoPictureError
from .service import Query, Service
from .snapshot import Snapshot

_MOST_BYTES = 2 ** 30  # of the pictures in an archive
_COLUMNS = ('row', 'id', 'label', 'folder', 'width', 'height', 'date')
_FORMULA = ('=', '+', '-', '@', '\t', '\r')


def exported(service: Service, handles: Sequence[int], format: str) -> tuple[bytes, str, str]:
    """Rows as a file: its bytes, media type and name.

    Args:
        service: what is served.
        handles: the numbers of the rows.
        format: ``'csv'``, ``'json'``, or ``'zip'`` with the pictures.

    Raises:
        UnknownRowError: there is no such row.
        ValueError: the pictures are too many for one archive.
    """
    items = [service.item(handle) for handle in handles]
    if format == 'json':
        return json.dumps(items, indent=1).encode(), 'application/json', 'export.json'
    extra = sorted({name for item in items for name in item['metadata']})
    table = _table([*_COLUMNS, *extra], [
        [*(item[name] for name in _COLUMNS), *(item['metadata'].get(name) for name in extra)]
        for item in items])
    if format == 'csv':
        return table, 'text/csv', 'export.csv'
    out, size, used = io.BytesIO(), 0, set()
    with zipfile.ZipFile(out, 'w', zipfile.ZIP_STORED) as archive:
        archive.writestr('export.csv', table)
        for handle, item in zip(handles, items, strict=True):
            size += item['bytes'] or 0
            if size > _MOST_BYTES:
                raise ValueError('The pictures have more than a gigabyte together: export fewer.')
            with suppress(NoPictureError, OSError):
                path = service.pictures.path_of(service.name_of(handle))
                stem, ending = os.path.splitext(item['name'])
                if path is None or '#' in item['name']:
                    data, ending = service.pictures.original(service.name_of(handle))[0], '.jpg'
                else:
                    with open(path, 'rb') as file:
                        data = file.read()
                name, number = stem + ending, 1
                while name in used:
                    number += 1
                    name = f'{stem}-{number}{ending}'
                used.add(name)
                archive.writestr(name.replace('/', '_'), data)
    return out.getvalue(), 'application/zip', 'export.zip'


def duplicate_groups(service: Service, threshold: float,
                     progress: Progress | None = None) -> list[dict[str, Any]]:
    """Groups of near-duplicates; the best has the most pixels, then bytes, and is the oldest.

    Args:
        service: what is served.
        threshold: of the similarity.
        progress: is told how far it is.

    Raises:
        ValueError: no similarity reaches the threshold.
        UnknownRowError: nothing is served yet.
    """
    progress = progress or Progress()
    snapshot = service.current()
    progress.begin(f'comparing {len(snapshot):,} pictures')
    similarity = snapshot.model.similarity_name or snapshot.model.similarity.function
    found = find_duplicates(snapshot.gallery, None, threshold, similarity)
    near = found.nearest()[0]
    groups = []
    progress.begin('reading sizes and dates', len(found.groups))
    for rows, _ in found.groups:
        members, order = [], []
        for row in rows:
            facts = service.facts.of(snapshot.ids[row])
            members.append(_member(service, snapshot, row) | dict(score=round(near[row], 6)))
            order.append((-(facts.width * facts.height), -facts.bytes, facts.date or '9',
                          snapshot.name(row)) if facts else (0, 0, '9', snapshot.name(row)))
        best = members[order.index(min(order))]['row']
        groups.append(dict(rows=[member['row'] for member in members], best=best, members=members))
        progress.advance()
    return groups


def _member(service: Service, snapshot: Snapshot, row: int) -> dict[str, Any]:
    """A picture of a group."""
    facts = service.facts.of(snapshot.ids[row])
    return dict(row=int(snapshot.handles[row]), name=snapshot.name(row),
                width=facts.width if facts else None, height=facts.height if facts else None,
                bytes=facts.bytes if facts else None, date=facts.date if facts else None)


def proved_groups(service: Service, threshold: float,
                  progress: Progress | None = None) -> list[dict[str, Any]]:
    """Groups of copies and of bursts, in which each picture has a ``proof``, a word of
    :data:`retrieval.search.proof.KINDS`, is ``sure`` where nothing of it is lost, and has
    ``as_name`` where that is the proof that it is another one than the best.

    Args:
        service: what is served.
        threshold: pictures at least so similar are compared.
        progress: is told how far it is.

    Raises:
        UnknownRowError: nothing is served yet.
    """
    progress, snapshot = progress or Progress(), service.current()

    def step(title: str, total: int) -> Any:
        progress.begin(title, total)
        return progress.advance

    def source(name: str) -> Any:
        try:
            return service.pictures.file_or_part(name)
        except (NoPictureError, UnreadableImageError):
            return None
    index = getattr(snapshot.model.holder, 'index', None)
    found = prove_duplicates(snapshot.gallery, source, threshold=threshold, progress=step,
                             index=index if isinstance(index, PartsIndex) else None)
    groups = []
    for group in [*found.groups, *found.bursts]:
        members = [_member(service, snapshot, group.keep) | dict(
            proof=None, sure=False, as_name=None),
                   *(_member(service, snapshot, row) | dict(
                       proof=proof.kind, sure=proof.kind in SURE,
                       as_name=None if of == group.keep else snapshot.name(of))
                     for row, of, proof in group.members)]
        groups.append(dict(rows=[member['row'] for member in members], best=members[0]['row'],
                           members=members))
    return groups


def plan_file(service: Service, groups: Sequence[tuple[int, Sequence[int]]],
              format: str) -> tuple[bytes, str, str]:
    """What to keep and what could go, as a file: its bytes, media type and name.

    Raises:
        UnknownRowError: there is no such row.
    """
    snapshot = service.current()

    def name(handle: int) -> str:
        row = service.row_of(snapshot, Query(row=handle))
        assert row is not None
        return snapshot.name(row)
    named = [(name(keep), list(map(name, others))) for keep, others in groups]
    if format == 'json':
        plan = dict(groups=[dict(keep=keep, others=others) for keep, others in named])
        return json.dumps(plan, indent=1).encode(), 'application/json', 'duplicates-plan.json'
    lines = [[number, action, one] for number, (keep, others) in enumerate(named)
             for action, one in [('keep', keep), *(('remove', other) for other in others)]]
    return _table(['group', 'action', 'id'], lines), 'text/csv', 'duplicates-plan.csv'


def _table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> bytes:
    """A CSV table; a text that a spreadsheet would take for a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(header)
    writer.writerows([[f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA)
                       else value for value in line] for line in lines])
    return out.getvalue().encode('utf-8', 'replace')
