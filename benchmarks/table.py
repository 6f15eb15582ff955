"""Run the comparisons with peers, and write their table into docs/benchmarks.md.

    python benchmarks/table.py                          all of them: an hour on two idle cores
    python benchmarks/table.py search training:folder   some of them, of the second one case
    python benchmarks/table.py --write                  the table alone, of what was measured before

Every ratio is kept in docs/benchmarks.jsonl with the processor, the date and the versions; the
table shows the last one of each processor.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE, DOCS = Path(__file__).parent, Path(__file__).parents[1] / 'docs'
RECORD, PAGE = DOCS / 'benchmarks.jsonl', DOCS / 'benchmarks.md'
BEGIN, END = '<!-- measured: make benchmark -->', '<!-- end of what was measured -->'
RUNS = {
    'evaluation': ['--plot', str(DOCS / 'images' / 'evaluation_growth.png')],
    'search': ['exact', 'latency', 'build'],
    'matching': [], 'inference_model': [], 'reranking': ['dense'], 'image_reading': [],
    'training': [], 'serving': [], 'galleries': []}
LIBRARIES = ('torch', 'numpy', 'faiss-cpu', 'pytorch-metric-learning', 'scikit-learn')


def processor() -> str:
    """The processor's name, with the instructions that products depend on, and the cores in use."""
    found: dict[str, str] = {}
    try:
        for line in Path('/proc/cpuinfo').read_text().split('\n\n')[0].splitlines():
            key, _, value = line.partition(':')
            found[key.strip()] = value.strip()
    except OSError:
        import platform
        found['model name'] = platform.processor() or platform.machine()
    known = ('avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16', 'amx_int8')
    able = [name for name in known if name in found.get('flags', '').split()]
    family = f' (family {found["cpu family"]}, model {found["model"]})' if 'model' in found else ''
    return f'{found.get("model name", "unknown")}{family}, {os.cpu_count()} cores, ' \
        f'{" ".join(able[-3:])}'


def installed(name: str) -> str:
    """The version of a library, or that it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return 'none'


def measure(names: list[str]) -> bool:
    """Run the scripts and keep their ratios; False where one failed."""
    good, told = True, dict(
        processor=processor(), date=datetime.date.today().isoformat(),
        versions={name: installed(name) for name in LIBRARIES})
    for name, _, case in (name.partition(':') for name in names):
        print(f'== {name} {case}', flush=True)
        with tempfile.NamedTemporaryFile('r', suffix='.jsonl') as lines:
            done = subprocess.run([sys.executable, str(HERE / f'{name}.py'),
                                   *([case] if case else RUNS[name])],
                                  env={**os.environ, 'BENCHMARK_RECORD': lines.name})
            found = [json.loads(line) for line in lines.read().splitlines()]
        good &= done.returncode == 0
        with RECORD.open('a') as record:
            for one in found:
                record.write(json.dumps({**one, **told}) + '\n')
    return good


def table() -> str:
    """The last ratio of each comparison on each processor, as tables in Markdown."""
    latest: dict[str, dict[tuple[str, str, str], dict[str, Any]]] = {}
    for line in RECORD.read_text().splitlines():
        one = json.loads(line)
        latest.setdefault(one['processor'], {})[one['script'], one['work'], one['peer']] = one
    parts = []
    for name, found in latest.items():
        versions = ', '.join(f'{library} {number}' for library, number in
                             next(reversed(found.values()))['versions'].items())
        columns = ('script', 'work', 'ours', 'peer', 'ratio', 'limit', 'seen')
        head = f'| {" | ".join(columns)} |\n{"|---" * len(columns)}|\n'
        parts.append(f'{name}; {versions}.\n\n{head}' + '\n'.join(map(row, found.values())))
    return '\n\n'.join(parts)


def row(one: dict[str, Any]) -> str:
    """A line of the table."""
    limit = '' if one['limit'] is None else f'{"at least" if one["least"] else "at most"} ' \
        f'{one["limit"]}'
    kept = one['limit'] is None or (one['ratio'] >= one['limit'] if one['least'] else
                                    one['ratio'] <= one['limit'])
    ratio, theirs = f'{one["ratio"]:.3g}', f': {one["theirs"]}' if one['theirs'] else ''
    return (f'| `{one["script"]}` | {one["work"]} | {one["ours"]} | {one["peer"]}{theirs} '
            f'| {ratio if kept else f"**{ratio}**"} | {limit} | {one["date"]} |')


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='SCRIPT', help=f'out of {", ".join(RUNS)}')
    parser.add_argument('--write', action='store_true', help='measure nothing')
    options = parser.parse_args()
    unknown = {name.partition(':')[0] for name in options.names} - set(RUNS)
    if unknown:
        parser.error(f'unknown script {sorted(unknown)[0]!r}; there are {", ".join(RUNS)}')
    good = options.write or measure(options.names or list(RUNS))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f'{before}{BEGIN}\n\n{table()}\n\n{END}{after}')
    if not good:
        raise SystemExit('A script failed: see above.')


if __name__ == '__main__':
    main()
