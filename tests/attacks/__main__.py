"""Run attacks, print a line for each, and write the table of docs/reliability.md.

    python -m tests.attacks                          # all, bounded to 30 minutes
    python -m tests.attacks --only threads --long    # those of that name, ten minutes each
"""
from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

MODULES = ('plain_loops', 'state_machines', 'damaged_files', 'hostile', 'kills', 'training',
           'processes', 'threads', 'mixed')
PAGE = Path(__file__).parents[2] / 'docs' / 'reliability.md'
BEGIN, END = '<!-- attacks -->', '<!-- end of attacks -->'
HEAD = ('| attack | done | of | failed | seconds | seed | day | |\n'
        '|---|--:|---|--:|--:|--:|---|---|\n')
LONG = {'threads': 10, 'mixed': 60}  # minutes of the long form, by the first word


def load() -> None:
    """Import the modules, which register their attacks."""
    for name in MODULES:
        importlib.import_module(f'{__package__}.{name}')


def run(name: str, seconds: float, seed: int, scale: float = 1.0) -> dict[str, object]:
    """Run one attack here; its row."""
    from .attack import ATTACKS, Tally
    one = ATTACKS[name]
    tally = Tally(max(1, round(one.least * scale)), seconds, seed)
    logging.disable(logging.CRITICAL)  # what is damaged warns thousands of times
    one.run(tally)
    return dict(attack=name, done=tally.done, what=one.what, failed=len(tally.failures),
                seconds=round(time.monotonic() - tally.begin), seed=seed,
                day=date.today().isoformat(), notes='; '.join(tally.notes),
                failures=tally.failures, least=tally.least)


def write_table(rows: list[dict[str, object]]) -> None:
    """Put rows in the place of those of the same attacks."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    table, _, after = rest.partition(END)
    lines = {line.split('|')[1].strip(): line for line in table.strip().splitlines()[2:]}
    for row in rows:
        lines[str(row['attack'])] = (
            f'| {row["attack"]} | {row["done"]:,} | {row["what"]} | {row["failed"]} | '
            f'{row["seconds"]:,} | {row["seed"]} | {row["day"]} | {row["notes"]} |')
    from .attack import ATTACKS
    order = [*ATTACKS, *lines]
    kept = sorted(lines, key=order.index)
    PAGE.write_text(f'{before}{BEGIN}\n\n{HEAD}' + '\n'.join(lines[name] for name in kept)
                    + f'\n\n{END}{after}')


def main() -> None:
    """Run the attacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', default='', help='a regular expression in the names')
    parser.add_argument('--minutes', type=float, default=30, help='for all together')
    parser.add_argument('--long', action='store_true',
                        help='ten minutes for each index, an hour of mixed work')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    parser.add_argument('--scale', type=float, default=1, help='of how many are done')
    parser.add_argument('--no-table', action='store_true')
    parser.add_argument('--one', help=argparse.SUPPRESS)
    parser.add_argument('--seconds', type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    load()
    from .attack import ATTACKS
    if given.one:
        print('\n' + json.dumps(run(given.one, given.seconds, given.seed, given.scale)))
        return
    chosen = [one for one in ATTACKS.values() if re.search(given.only, one.name)]
    total = sum(one.share for one in chosen)

    def start(name: str, share: float) -> dict[str, object]:
        seconds = 60 * given.minutes * given.workers * share / max(total, 0.2) * 0.9
        if given.long:
            seconds = 60 * LONG[name.split()[0]]
        command = [sys.executable, '-m', str(__package__), '--one', name, '--seconds',
                   str(seconds), '--seed', str(given.seed), '--scale', str(given.scale)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=dict(
            os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1'))
        if done.returncode:
            row = dict(attack=name, done=0, what='', failed=1, seconds=0, seed=given.seed,
                       day=date.today().isoformat(), notes=f'ended with {done.returncode}',
                       failures=[f'the attack ended with {done.returncode}'], least=1)
        else:
            row = json.loads(done.stdout.splitlines()[-1])
        print(f'{name}: {row["done"]:,} {row["what"]}, {row["failed"]} failed, '
              f'{row["seconds"]} s, seed {row["seed"]}; {row["notes"]}', flush=True)
        for failure in row['failures']:
            print(f'    {failure}', flush=True)
        return row

    with ThreadPoolExecutor(given.workers) as pool:
        rows = list(pool.map(lambda one: start(one.name, one.share),
                             sorted(chosen, key=lambda one: -one.share)))
    if not given.no_table:
        write_table(rows)
    short = [row['attack'] for row in rows if row['done'] < row['least']]
    if short:
        print(f'fewer than asked for: {", ".join(map(str, short))}')
    sys.exit(1 if short or any(row['failed'] for row in rows) else 0)


if __name__ == '__main__':
    main()
