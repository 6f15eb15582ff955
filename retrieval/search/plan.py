"""What to do about duplicates that were proved, as a table and as a shell script."""
from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Iterator
from typing import Any

from .proof import SURE
from .proved_duplicates import ProvedDuplicates

COLUMNS = ('group', 'action', 'kind', 'id', 'of', 'width', 'height', 'bytes', 'alike', 'difference',
           'inliers')
_SCRIPT = '''#!/bin/sh
# Moves copies into a folder that is named when this is run: sh {name} FOLDER
# Nothing is deleted. "copy" moves its second file, of which the first is kept: nothing of it is
# lost but its name. "look" does nothing: those are crops, edited ones and shots of a burst; write
# "copy" in its place to move its second file.
set -eu
[ $# -eq 1 ] || {{ echo 'Name a folder for the copies: sh {name} FOLDER' >&2; exit 2; }}
mkdir -p -- "$1"
into=$(CDPATH= cd -- "$1" && pwd)
number=0
copy() {{
  number=$((number + 1))
  [ -f "$1" ] || {{ printf 'kept since what it is a copy of is gone: %s\\n' "$2" >&2; return 0; }}
  [ -f "$2" ] || {{ printf 'not there any more: %s\\n' "$2" >&2; return 0; }}
  mv -n -- "$2" "$into/$number-${{2##*/}}"
}}
look() {{ :; }}

'''


def plan_lines(found: ProvedDuplicates) -> Iterator[dict[str, Any]]:
    """What to do about every picture of a group, as values of :data:`COLUMNS`.

    ``keep`` the best; ``remove`` what is surely all in it; ``look`` at the others, at shots of a
    burst, at pairs that share a part, and at what is better than the copy that another set has.
    """
    def line(number: int, action: str, row: int, keep: int | None = None,
             proof: Any = None) -> dict[str, Any]:
        width, height, size = found.sizes.get(row, ('', '', ''))
        known = {} if proof is None else proof.as_dict()
        values = dict(group=number, action=action, id=found.ids[row], width=width, height=height,
                      of='' if keep is None else found.ids[keep], bytes=size, **{
                          name: known.get(name) for name in (
                              'kind', 'alike', 'difference', 'inliers')})
        return {name: '' if values[name] is None else values[name] for name in COLUMNS}
    number = 0
    for number, group in enumerate([*found.groups, *found.bursts]):
        yield line(number, 'keep', group.keep)
        for row, of, proof in group.members:
            action = 'remove' if _loses_nothing(found, row, of, proof) else 'look'
            yield line(number, action, row, of, proof)
    for pair, (row, other, proof) in enumerate(found.parts, number + 1):
        yield line(pair, 'look', row, other, proof)


def _loses_nothing(found: ProvedDuplicates, row: int, of: int, proof: Any) -> bool:
    """True where all of a picture is in another; a better one may be a copy of another set's."""
    def quality(row: int) -> tuple[int, int]:
        width, height, size = found.sizes.get(row, (0, 0, 0))
        return width * height, size
    return proof.kind in SURE[:2] or proof.kind in SURE and quality(row) <= quality(of)


def plan_table(found: ProvedDuplicates) -> bytes:
    """The plan as CSV; names that are no UTF-8 keep their bytes.

    Example:
        >>> plan_table(ProvedDuplicates([])).decode()[:17]
        'group,action,kind'
    """
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(plan_lines(found))
    return table.getvalue().encode('utf-8', 'surrogateescape')


def plan_script(found: ProvedDuplicates, name: str = 'duplicates.sh') -> bytes:
    """A shell script (POSIX) that moves the copies of the plan into a folder that is named when it
    is run; rows that are no files are left out.

    Example:
        >>> print(plan_script(ProvedDuplicates([])).decode().splitlines()[0])
        #!/bin/sh
    """
    lines = [_SCRIPT.format(name=name)]
    for group in [*found.groups, *found.bursts]:
        paths = {row: os.path.abspath(found.ids[row]) for row in group.rows
                 if os.path.isfile(found.ids[row])}
        for row, of, proof in group.members:
            if row in paths and of in paths:
                verb = 'copy' if _loses_nothing(found, row, of, proof) else 'look'
                lines.append(f'{verb} {shlex.quote(paths[of])} {shlex.quote(paths[row])}'
                             f'  # {proof.kind}\n')
    return ''.join(lines).encode('utf-8', 'surrogateescape')
