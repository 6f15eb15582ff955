"""Write a run, or how two runs compare, as one HTML file to look at, send and print."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line import (
    CommandParser,
    Outcome,
    add_config_options,
    add_data_option,
    reports_errors,
)
from .evaluate import add_evaluation_options, check_arguments, read_tasks, read_truth

if TYPE_CHECKING:
    from ..report import Run

_CONFIGS = ('.py', '.json', '.yaml', '.yml')
_FORMS = ('a work dir of training or testing, a config with its checkpoint, embeddings (.npy, a '
          'gallery or a bundle with one), or, with --data, a bundle')


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'report', description=__doc__, epilog='The options from --labels to --gallery-ids are of '
        'embeddings: a config says itself how it is evaluated. The config of a work dir is a '
        'program, and is run.')
    arguments.add_argument('runs', nargs='+', metavar='RUN', help=f'{_FORMS}; two of them are '
                           'compared query by query')
    arguments.add_argument('--out', metavar='FILE.html', help='where to write it (default: '
                           'report.html in the work dir, else in work_dirs/)')
    arguments.add_argument('--near', type=float, metavar='SIMILARITY', help='pairs at least so '
                           'similar are near-duplicates (default: 0.99 of cosines)')
    arguments.add_argument('--images', metavar='FOLDER', help='where the pictures are whose paths '
                           'the ids of embeddings are')
    add_evaluation_options(arguments)
    for side in ('', 'gallery-'):
        arguments.add_argument(f'--{side}ids', metavar='FILE', help='ids, best paths of pictures, '
                               'as --labels; a row with the id of a query is not ranked for it')
    arguments.add_argument('--compare-gallery', metavar='EMBEDDINGS',
                           help='the gallery of the second embeddings')
    add_data_option(arguments)
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..runs.named_model import is_bundle_name

    given = split_runs(arguments.runs)
    out = check_out(arguments.out) or default_out(given)
    if arguments.data is not None and not all(map(is_bundle_name, arguments.runs)):
        raise ValueError('--data gives a bundle its pictures; embeddings have theirs already, and '
                         'a config names its own.')
    kind = 'config' if arguments.data is not None else None
    embeddings = [paths[0] for paths in given if (kind or kind_of(paths)) == 'embeddings']
    arguments.compare = embeddings[1] if len(embeddings) > 1 else None
    check_arguments(arguments)
    galleries = [arguments.gallery, arguments.compare_gallery]
    runs = [run_of_embeddings(arguments, paths[0], galleries[len(given) - 1 and number])
            if (kind or kind_of(paths)) == 'embeddings' else run_of_config(arguments, paths)
            for number, paths in enumerate(given)]
    if len(runs) == 1:
        return report(runs[0], out, arguments.near)
    return compare(runs[0], runs[1], out)


def split_runs(paths: Sequence[str]) -> list[list[str]]:
    """The arguments of each run: a config stands together with its checkpoint.

    Raises:
        FileNotFoundError: nothing is at a path.
        ValueError: a config has no checkpoint, or there are more than two runs.

    Example:
        >>> split_runs(['.', '.'])
        [['.'], ['.']]
    """
    from ..runs.bundle import is_bundle

    left, found = list(paths), []
    for path in paths:
        if not os.path.exists(path):
            raise FileNotFoundError(f'There is nothing at {path!r}. A run is {_FORMS}.')
    while left:
        is_config = left[0].endswith(_CONFIGS)
        if is_config and (len(left) < 2 or left[1].endswith(_CONFIGS)
                          or not (os.path.isfile(left[1]) or is_bundle(left[1]))):
            raise ValueError(f'{left[0]!r} is a config: its checkpoint is to stand behind it.')
        found.append([left.pop(0) for _ in range(1 + is_config)])
    if len(found) > 2:
        raise ValueError(f'Two runs can be compared, got {len(found)}: '
                         f'{", ".join(" ".join(one) for one in found)}.')
    return found


def kind_of(paths: Sequence[str]) -> str:
    """``config``, ``work_dir`` or ``embeddings``."""
    from ..gallery import is_gallery

    if len(paths) == 2:
        return 'config'
    return 'work_dir' if os.path.isdir(paths[0]) and not is_gallery(paths[0]) else 'embeddings'


def check_out(path: str | None) -> str | None:
    """The path as it is. Raises ValueError unless it ends in ``.html``, or is None."""
    if path is not None and not path.endswith('.html'):
        raise ValueError(f'A report is written as HTML; got {path!r}. Give a name that ends in '
                         '.html.')
    return path


def default_out(given: Sequence[Sequence[str]]) -> str:
    """Where the report goes where nobody says it."""
    if len(given) == 1 and kind_of(given[0]) == 'work_dir':
        return str(Path(given[0][0]) / 'report.html')
    return str(Path('work_dirs') / ('report.html' if len(given) == 1 else 'comparison.html'))


def report(run: Run, out: str, near: float | None = None) -> Outcome:
    """Write the report of one run, and say where."""
    from ..report import summarize, write_report

    found = summarize(run, near)
    write_report(run, found, out)
    print(f'The report of {run.name}: {out}')
    return dict(files=[out], **found.as_dict())


def compare(first: Run, second: Run, out: str) -> Outcome:
    """Write the comparison of two runs, and print its main lines.

    Raises:
        ValueError: they have other levels, no metric in common, or no query.
    """
    from ..evaluation import rank_queries
    from ..report import compare_runs, write_comparison

    if first.level != second.level:
        raise ValueError(f'The runs have other ground truths, {", ".join(first.tasks)} and '
                         f'{", ".join(second.tasks)}: evaluate both by one protocol.')
    metrics = [name for name in first.metrics if name in second.metrics]
    if not metrics:
        raise ValueError(f'The runs have no metric in common: {", ".join(first.metrics)} and '
                         f'{", ".join(second.metrics)}.')
    before, after = (rank_queries(run.task, metrics, empty_queries=run.empty_queries)
                     for run in (first, second))
    compared = compare_runs(before, after, first.task.queries.ids, second.task.queries.ids)
    write_comparison((first, second), (before, after), compared, out)
    for one in compared.metrics:
        print(f'{one.name}: {one.first:.2f} -> {one.second:.2f} ({one.difference:+.2f}, p = '
              f'{one.p_value:.4f}); queries: {one.wins} better, {one.losses} worse, {one.ties} '
              'the same')
    print(f'The comparison: {out}')
    return dict(files=[out], runs=[first.name, second.name],
                metrics=[dict(one._asdict(), difference=one.difference)
                         for one in compared.metrics])


def run_of_embeddings(arguments: argparse.Namespace, path: str, gallery: str | None) -> Run:
    """The run of embeddings, with what the command line says of them."""
    from ..evaluation.evaluate import DEFAULT_METRICS
    from ..evaluation.protocols import resolve_protocol
    from ..gallery import read_column
    from ..report import Run

    protocol = None if arguments.protocol is None else resolve_protocol(arguments.protocol)
    tasks = read_tasks(arguments, path, gallery, read_truth(arguments.ground_truth))
    for side, file in (('queries', arguments.ids), ('gallery', arguments.gallery_ids)):
        if file is not None:
            names = read_column(file, 'ids')
            tasks = {level: replace(task, **{side: replace(getattr(task, side), ids=names)})
                     for level, task in tasks.items()}
    facts = {'embeddings': path, **({} if gallery is None else {'gallery': gallery}),
             **({} if protocol is None else {'protocol': protocol.name})}
    return Run(
        Path(path).name, tasks, protocol.metrics if protocol else
        arguments.metrics or DEFAULT_METRICS, protocol.average if protocol else
        arguments.average or 'micro', arguments.empty_queries, protocol.source if protocol else '',
        pictures_of([path, gallery], arguments.images), facts=facts)


def pictures_of(paths: Sequence[str | None], images: str | None) -> Any:
    """Where the pictures of embeddings are found: in a folder, else in the datasets that galleries
    carry as data, else where ids are paths.
    """
    from ..gallery import Gallery, is_gallery
    from ..report.page import FolderPictures
    from ..runs.carried_config import carried_config
    from ..visualization import Pictures
    from .folders import config_dataset

    if images is not None:
        if not os.path.isdir(images):
            raise FileNotFoundError(f'--images: there is no folder {images!r}.')
        return FolderPictures(images)
    datasets = []
    for path in paths:
        if path is None or path.endswith('.npy') or not is_gallery(path):
            continue
        gallery = Gallery.load(path)
        if gallery.source.get('settings'):
            try:
                datasets.append(config_dataset(carried_config(gallery.source['settings'])))
            except ValueError:  # of a type that data may not build
                continue
    return Pictures(datasets)


def run_of_config(arguments: argparse.Namespace, paths: Sequence[str]) -> Run:
    """Test what a work dir or a config and a checkpoint name.

    Raises:
        FileNotFoundError, ValueError: there is no config or checkpoint, or nothing to test.
    """
    from ..distributed import unwrapped
    from ..report import run_of_test, with_embedding_metrics
    from ..retrievers import check_encoder, read_state_dict
    from ..runs.config import build_runner, load_config
    from ..runs.named_model import named_model, weights_of

    refused = [name for name in ('labels', 'gallery', 'protocol', 'metrics', 'similarity', 'ids')
               if getattr(arguments, name)]
    if refused:
        raise ValueError(f'--{refused[0]} is of embeddings; {paths[0]!r} says itself how it is '
                         'evaluated. Change its config with --cfg-options.')
    folder = paths[0] if len(paths) == 1 and arguments.data is None else None
    config_file, checkpoint = paths if len(paths) == 2 else \
        (paths[0], None) if folder is None else found_in(folder)
    if arguments.data is not None:
        config, checkpoint = named_model(config_file, options=arguments.cfg_options,
                                         data=arguments.data, trust=arguments.trust)
    else:
        config = load_config(config_file, arguments.cfg_options,
                             None if folder is None else str(Path(folder) / 'report'))
    if not config.get('test_dataloader') or not config.get('test_evaluator'):
        raise ValueError(f'The config {config_file!r} has no test_dataloader or no test_evaluator, '
                         'so there is nothing to report.')
    checkpoint = checkpoint or config.get('load_from')
    if not checkpoint:
        raise FileNotFoundError(f'There is no checkpoint in {folder!r}: give CONFIG CHECKPOINT.')
    checkpoint = weights_of(checkpoint)
    config.load_from, config.resume = checkpoint, False
    runner = build_runner(with_embedding_metrics(config), 'none')
    check_encoder(unwrapped(runner.model), read_state_dict(checkpoint), checkpoint)
    name = Path(checkpoint).name if folder is None else \
        f'{Path(folder).resolve().name}, {Path(checkpoint).name}'
    return run_of_test(runner, checkpoint, name, folder)[0]


def found_in(folder: str) -> tuple[str, str | None]:
    """The config of a work dir, and its best checkpoint, else its last, or None.

    Raises:
        FileNotFoundError: there is no config.
    """
    from ..runs.last_checkpoint import last_checkpoint

    configs = sorted(Path(folder).glob('*.py'), key=os.path.getmtime)
    if not configs:
        raise FileNotFoundError(f'There is no config in {folder!r}, as train and test leave one in '
                                f'their work dir. A run is {_FORMS}.')
    best = sorted(Path(folder).glob('best_*.pth'), key=os.path.getmtime)
    return str(configs[-1]), str(best[-1]) if best else last_checkpoint(folder)[0]


if __name__ == '__main__':
    main()
