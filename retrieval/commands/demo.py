"""Train, test and search the embedded dataset, in minutes."""
from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import CommandParser, Outcome, add_config_options, reports_errors

CONFIG = 'arcface/resnet10-arcface_4e_glyphs'
METRICS = ('Recall@1', 'MAP@R', 'mAP')
ROWS = {'pixels': 'raw pixels, nearest neighbour', 'untrained': 'the encoder before training',
        'trained': 'the encoder after training'}


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('demo', description=__doc__)
    arguments.add_argument('--config', default=CONFIG,
                           help=f'the config to run (default: {CONFIG})')
    arguments.add_argument('--work-dir', default='work_dirs/demo',
                           help='where everything goes (default: work_dirs/demo)')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..runs.config import build_runner, load_config
    from ..runs.training import test as tested
    from ..runs.training import train

    start = time.monotonic()
    out = Path(arguments.work_dir)
    config = load_config(arguments.config, arguments.cfg_options, arguments.work_dir)
    config.load_from, config.resume = None, False
    runner = build_runner(config, 'none')
    results = baselines(runner)
    train(runner)
    trained = tested(runner)
    results['trained'] = {name: round(float(trained[f'embedding/{name}']), 2) for name in METRICS}
    checkpoint = out / 'trained.pth'
    runner.save_checkpoint(str(out), checkpoint.name, save_optimizer=False,
                           save_param_scheduler=False)
    draw(config, str(checkpoint), out)
    draw_training(Path(runner.log_dir) / 'vis_data' / 'scalars.json', out,
                  results['untrained']['Recall@1'])
    write_results(results, out)
    print(f'\n{table(results)}\n\n{time.monotonic() - start:.0f} seconds. Look at:')
    files = [out / name for name in ('rankings.png', 'loss.png', 'recall.png', 'results.json',
                                     'gallery.safetensors')]
    print('\n'.join(f'  {file}' for file in files))
    return dict(files=[*files, checkpoint], results=results)


def baselines(runner: Any) -> dict[str, dict[str, float]]:
    """The metrics of raw pixels and of the encoder as it is before training."""
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    from ..evaluation import evaluate
    from ..retrievers import encode

    dataset = runner.test_dataloader.dataset
    pixels = raw_pixels(dataset)
    loader = DataLoader(dataset, batch_size=256, collate_fn=pseudo_collate)
    untrained = encode(runner.model, loader, progress='Encoding untrained').embeddings
    found = {}
    for name, vectors in (('pixels', pixels), ('untrained', untrained)):
        values = evaluate(vectors, dataset.labels, metrics=METRICS)
        found[name] = {metric: round(float(values[metric]), 2) for metric in METRICS}
        runner.logger.info(f'{ROWS[name]}: {found[name]}')
    return found


def raw_pixels(dataset: Any) -> Any:
    """The images themselves as vectors ``(N, D)`` float32, ink as 1; D are the 64 x 64 pixels less
    those without ink in any image, which change no inner product.
    """
    import numpy as np
    import torch

    images = np.stack([dataset.get_data_info(row)['img'].reshape(-1)
                       for row in range(len(dataset))])
    return torch.from_numpy(images[:, images.any(axis=0)]).float().div_(255)


def draw(config: Any, checkpoint: str, out: Path, queries: int = 10) -> None:
    """Dump the prototype, search it for queries spread over the set, and draw what was found."""
    from mmengine.dataset import pseudo_collate

    from ..gallery import Gallery
    from ..hooks import prototype_dataset, ranking_rows
    from ..retrievers import build_retriever
    from ..visualization import Pictures, draw_ranking_grid
    from .dump_prototype import dump

    model = build_retriever(config, checkpoint)
    dump(model, config, checkpoint, str(out / 'gallery.safetensors'))
    dataset = prototype_dataset(model)
    searcher = build_retriever(config, checkpoint, Gallery.load(out / 'gallery.safetensors'))
    rows = [int((number + 0.5) * len(dataset) / queries) for number in range(queries)]
    samples = searcher.test_step(pseudo_collate([dataset[row] for row in rows]))
    draw_ranking_grid(ranking_rows(samples, searcher.gallery, Pictures([dataset]), 10),
                      out / 'rankings.png', columns=10)


def draw_training(scalars: Path, out: Path, untrained: float) -> None:
    """Draw the loss over the iterations of a run, and the validation recall over its epochs."""
    import json

    from ..visualization import plot_curves

    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    loss = [(entry['step'], entry['loss']) for entry in entries if 'loss' in entry]
    recall = [(0, untrained)] + [(entry['step'], entry['embedding/Recall@1'])
                                 for entry in entries if 'embedding/Recall@1' in entry]
    plot_curves({'loss': loss}, out / 'loss.png', xlabel='iteration', ylabel='loss',
                title='ArcFace loss in training')
    plot_curves({'Recall@1': recall}, out / 'recall.png', xlabel='epoch',
                ylabel='Recall@1, percent', title='On the unseen classes')


def write_results(results: dict[str, dict[str, float]], out: Path) -> None:
    """Write ``results.json``."""
    from ..files import write_json
    write_json(out / 'results.json', results, indent=2)


def table(results: dict[str, dict[str, float]]) -> str:
    """The results as a table in Markdown."""
    lines = ['| on classes never seen, percent | ' + ' | '.join(METRICS) + ' |',
             '|---|' + '---|' * len(METRICS)]
    for name, words in ROWS.items():
        values = ' | '.join(f'{results[name][metric]:.2f}' for metric in METRICS)
        lines.append(f'| {words} (`{name}`) | {values} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
