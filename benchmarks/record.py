"""A comparison of ours with a peer: printed, and noted where ``$BENCHMARK_RECORD`` names a file."""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def verdict(work: str, peer: str, ratio: float, limit: float | None = None, least: bool = False,
            ours: str = '', theirs: str = '') -> bool:
    """Print a ratio beside its limit; True where it is kept.

    Args:
        work: what was done, with its sizes.
        peer: what ours was compared with.
        ratio: ours over the peer's, in the unit that the work says.
        limit: what it may be at most; None for a ratio that is only told.
        least: it is what it must be at least.
        ours, theirs: what was measured, with units.
    """
    kept = limit is None or (ratio >= limit if least else ratio <= limit)
    told = '' if limit is None else f'   limit {">=" if least else "<="} {limit}'
    print(f'  {work}, over {peer}: {ratio:.3f}{told}{"" if kept else "   NOT KEPT"}'
          + (f'   ({ours}, {theirs})' if ours else ''), flush=True)
    if os.environ.get('BENCHMARK_RECORD'):
        line = dict(script=Path(sys.argv[0]).name, work=work, peer=peer, ours=ours, theirs=theirs,
                    ratio=round(ratio, 4), limit=limit, least=least)
        with open(os.environ['BENCHMARK_RECORD'], 'a') as record:
            record.write(json.dumps(line) + '\n')
    return kept
