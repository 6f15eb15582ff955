"""Frozen, linear or fine-tuned: Recall@1 and MAP@R on classes that were not trained on.

    python benchmarks/small_sets.py data/small_sets
    python benchmarks/own_images.py data/small_sets                           all sets, three seeds
    python benchmarks/own_images.py data/small_sets --sets emoji --seeds 0 --epochs 5
    python benchmarks/own_images.py data --sets objects --config \
        configs/multi_similarity/lite0-ms_4e_objects.py

For each set (a folder of classes), with the pictures, encoder, loss and sampler of
`configs/multi_similarity/lite0-ms_15e_image_folder.py` or another config: ``frozen`` is the pooled
features of the default encoder as they are; ``linear`` a projection to 256 that is trained on them,
as `train_on_embeddings --epochs 20` does; ``tuned`` the config as it stands, after its last epoch
(its best one would be chosen by the classes that it is measured on), and ``start`` the same before
the first. Printed are the median and the range over the seeds, and the seconds of processor time
that the training took without its validations, and that one step took. What stands in ``--out`` is
not run again, so that the same command goes on where it was ended.
"""
from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook

import retrieval.registry  # noqa: F401
from retrieval.hooks.start import CURVE
from retrieval.registry import HOOKS
from retrieval.retrievers import build_retriever
from retrieval.runs import feature_training
from retrieval.runs.config import build_runner, load_config
from retrieval.runs.features import FeatureSets

CONFIG = 'configs/multi_similarity/lite0-ms_15e_image_folder.py'
METRICS = {'': 'embedding/Recall@1', ' MAP@R': 'embedding/MAP@R'}  # after the column's name


@HOOKS.register_module()
class ProcessorTime(Hook):
    """The processor's seconds that steps take, reading of pictures included."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Any) -> None:
        """Begin."""
        self.seconds = 0.0

    def before_train_epoch(self, runner: Any) -> None:
        """Start the clock."""
        self.began = time.process_time()

    def after_train_epoch(self, runner: Any) -> None:
        """Stop it, before the validation."""
        self.seconds += time.process_time() - self.began


def configured(path: str, folder: Path, seed: int, work_dir: Path, epochs: int | None) -> Any:
    """The config for a set; pictures are read by the same process, so that its time counts."""
    os.environ['DATA_ROOT'] = str(folder)
    config = load_config(path, None, str(work_dir))
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'gallery_dataloader'):
        config[name].update(num_workers=0, persistent_workers=False)
    config.model.prototype.update(num_workers=0, persistent_workers=False)
    config.randomness = dict(seed=seed)
    config.val_evaluator = dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R'])
    config.log_level, config.visualizer = 'WARNING', None
    config.experiment_name = f'{folder.name}-{seed}-{time.monotonic_ns()}'
    config.train_cfg.max_epochs = epochs or config.train_cfg.max_epochs
    config.train_cfg.val_interval = config.train_cfg.max_epochs
    return config


def linear(config: Any, work_dir: Path) -> dict[str, float]:
    """The metrics of the frozen features, and of a projection trained on them."""
    feature_training.set_schedule(config, 20, None)
    model = build_retriever(config).cpu()
    sets = FeatureSets(model, config, work_dir)
    projection = model.image_encoder.projection
    retrieval.encoders.start_at_components(projection, sets.training.embeddings)
    start = feature_training.trained_weights(model.state_dict())
    frozen = feature_training.evaluate(sets.config, start, projected=False)
    trained = feature_training.evaluate(sets.config, feature_training.train(sets.config, start))
    return {**named('frozen', frozen), **named('linear', trained)}


def named(column: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a column under its name."""
    return {column + suffix: metrics[name] for suffix, name in METRICS.items()}


def tuned(config: Any) -> dict[str, float]:
    """The metrics of the config, before its first epoch and after its last."""
    config.default_hooks.checkpoint = None
    config.custom_hooks = [*config.custom_hooks, dict(type='ProcessorTime')]
    runner = build_runner(config, 'none')
    runner.train()
    curve = runner.message_hub.get_info(CURVE)
    clock = next(hook for hook in runner.hooks if isinstance(hook, ProcessorTime))
    return {**named('start', curve[0]), **named('tuned', curve[-1]), 'steps': runner.iter,
            'seconds': clock.seconds, 'step': clock.seconds / runner.iter}


def shown(name: str, suffix: str, runs: list[dict[str, float]]) -> str:
    """The medians of a metric of a set's runs, with their ranges, as a row of a table."""
    cells = [name + (suffix or ' Recall@1')]
    for column in ('frozen', 'start', 'linear', 'tuned'):
        values = [run[column + suffix] for run in runs]
        cells.append(f'{statistics.median(values):.1f} ({min(values):.1f}–{max(values):.1f})')
    cells += [f'{statistics.median(run[column] for run in runs):.{digits}f}'
              for column, digits in (('seconds', 0), ('step', 2))]
    return '| ' + ' | '.join(cells) + ' |'


def main() -> None:
    """Run the sets that are asked for."""
    arguments = argparse.ArgumentParser(description=__doc__,
                                        formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('folder', type=Path)
    arguments.add_argument('--sets', nargs='*', default=[])
    arguments.add_argument('--seeds', nargs='*', type=int, default=[0, 1, 2])
    arguments.add_argument('--config', default=CONFIG)
    arguments.add_argument('--epochs', type=int)
    arguments.add_argument('--threads', type=int, default=1)
    arguments.add_argument('--out', type=Path, help='add each run to this file, a line of JSON, '
                           'and take those from it that it has')
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    sets = given.sets or sorted(path.name for path in given.folder.iterdir()
                                if path.is_dir() and path.name != 'downloads')
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sets}
    kept = {}
    if given.out is not None and given.out.exists():
        lines = map(json.loads, given.out.read_text().splitlines())
        kept = {(run.pop('set'), run.pop('seed')): run for run in lines}
    with tempfile.TemporaryDirectory() as scratch:
        for seed, name in product(given.seeds, sets):
            if (name, seed) in kept:
                runs[name].append(kept[name, seed])
                continue
            parts = [configured(given.config, given.folder / name, seed, Path(scratch, name),
                                given.epochs) for _ in range(2)]
            run = {**linear(parts[0], Path(scratch, name)), **tuned(parts[1])}
            runs[name].append(run)
            print(name, seed, {key: round(value, 2) for key, value in run.items()}, flush=True)
            if given.out is not None:
                with given.out.open('a') as file:
                    file.write(json.dumps(dict(run, set=name, seed=seed)) + '\n')
    rows = [shown(name, suffix, runs[name]) for name in sets for suffix in METRICS]
    heads = ['set', 'frozen', 'start', 'linear', 'tuned', 'seconds', 'a step']
    print('\n'.join(['| ' + ' | '.join(heads) + ' |', '|---' * len(heads) + '|', *rows]))


if __name__ == '__main__':
    main()
