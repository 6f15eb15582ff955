"""Find an index for a gallery within a recall, latency or memory budget, by trying."""
from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command_line import CommandParser, Outcome, Unmet, reports_errors

if TYPE_CHECKING:
    from ..index.tuning import Budget, Trial, Tuner

_FEWEST_ROWS = 100


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser(
        'tune_index', description=__doc__,
        epilog='Writes OUT/index.py (`index = dict(…)`, for model.index and build_index --config), '
        'OUT/trials.json (everything that was tried) and OUT/trade_off.png. Exit status 1: '
        'nothing meets the budget.')
    arguments.add_argument('gallery', help='a gallery file, or a saved tensor (N, D)')
    arguments.add_argument('--recall', type=float, metavar='SHARE',
                           help='of the exact results that must be found; 0.95 where no budget is '
                           'given')
    arguments.add_argument('--latency-ms', type=float, metavar='MS',
                           help='that one query alone may take')
    arguments.add_argument('--memory-mb', type=float, metavar='MB',
                           help='that the index may take, 10^6 bytes, without the ids')
    arguments.add_argument('--k', type=int, default=10, help='results a query (default: 10)')
    arguments.add_argument('--queries', metavar='FILE', help='embeddings to search for; by '
                           'default rows of the gallery, which are then left out of the indexes')
    arguments.add_argument('--num-queries', type=int, default=1000, metavar='N',
                           help='how many (default: 1000, at most a tenth of the gallery)')
    arguments.add_argument('--similarity', default='cosine_similarity', metavar='NAME',
                           help='cosine_similarity (default), inner_product or euclidean')
    arguments.add_argument('--factories', nargs='+', metavar='FACTORY',
                           help='only these (default: a choice by the size of the gallery)')
    arguments.add_argument('--train-size', type=int, metavar='N',
                           help='rows to train on at most')
    arguments.add_argument('--seed', type=int, default=0,
                           help='of the queries and the training samples (default: 0)')
    arguments.add_argument('--threads', type=int, metavar='N',
                           help='that search and build (default: what the libraries take)')
    arguments.add_argument('--time-limit', type=float, default=120, metavar='SECONDS',
                           help='after which nothing more is built or measured (default: 120)')
    arguments.add_argument('--out', default='work_dirs/tune_index', metavar='DIR',
                           help='(default: work_dirs/tune_index)')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    budget = checked_budget(arguments)
    if arguments.threads is not None:
        set_threads(arguments.threads)
    tuner = make_tuner(arguments)
    trials, left_out = try_all(tuner, arguments, budget)
    winner, nearest = budget.choose(trials)
    out = Path(arguments.out)
    files = write_results(out, trials, winner, budget, tuner, arguments)
    outcome = dict(files=files, tried=len(trials), left_out=left_out,
                   winner=as_dict(winner), nearest=as_dict(nearest))
    if winner is None:
        print(f'\nNothing meets the budget ({described(budget)}).'
              + ('' if nearest is None else ' Nearest:\n' + line(nearest))
              + f'\n{out}/trials.json and {out}/trade_off.png show what was tried.')
        raise Unmet(outcome)
    print(f'\nChosen within the budget ({described(budget)}):\n{line(winner)}\n\n'
          f'{fragment(winner)}\n{out}/index.py holds this; {out}/trials.json and '
          f'{out}/trade_off.png show what was tried.')
    return outcome


def checked_budget(arguments: argparse.Namespace) -> Budget:
    """The budget. Raises ValueError where it, or another argument, is out of range."""
    from ..checks import real_number, whole_number
    from ..index.tuning import Budget

    for option in ('recall', 'latency_ms', 'memory_mb', 'time_limit'):
        if (value := getattr(arguments, option)) is not None:
            real_number(f'--{option.replace("_", "-")}', value, above=0,
                        most=1 if option == 'recall' else math.inf)
    for option in ('k', 'num_queries', 'threads'):
        if (value := getattr(arguments, option)) is not None:
            whole_number(f'--{option.replace("_", "-")}', value)
    recall = arguments.recall
    if recall is None and arguments.latency_ms is None and arguments.memory_mb is None:
        recall = 0.95
    return Budget(recall, arguments.latency_ms, arguments.memory_mb)


def set_threads(count: int) -> None:
    """Let torch and faiss use so many threads."""
    import torch

    from ..index.faiss.factory import load_faiss
    torch.set_num_threads(count)
    load_faiss().omp_set_num_threads(count)


def make_tuner(arguments: argparse.Namespace) -> Tuner:
    """The gallery and the queries, and what exact search finds.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the gallery is too small to hold rows out, or the widths differ.
    """
    from ..gallery import Gallery
    from ..index.tuning import Tuner, held_out
    from ..registry import unknown_name
    from ..similarity import SIMILARITIES

    if arguments.similarity not in SIMILARITIES:
        raise ValueError(unknown_name('similarity', arguments.similarity, SIMILARITIES))
    gallery = Gallery.load(arguments.gallery)
    options: dict[str, Any] = dict(similarity=arguments.similarity, k=arguments.k,
                                   seed=arguments.seed, train_size=arguments.train_size)
    if arguments.queries is None:
        if len(gallery) < _FEWEST_ROWS:
            raise ValueError(f'The gallery has {len(gallery)} rows; to hold some of them out as '
                             f'queries wants at least {_FEWEST_ROWS}. Search it exactly, or give '
                             '--queries.')
        asked, kept = held_out(len(gallery), min(arguments.num_queries, len(gallery) // 10),
                               arguments.seed)
        return Tuner(gallery.embeddings[kept], gallery.embeddings[asked], **options)
    queries = Gallery.load(arguments.queries)
    if queries.dim != gallery.dim:
        raise ValueError(f'The queries have {queries.dim} columns, the gallery {gallery.dim}: both '
                         'must come from the same encoder.')
    asked, _ = held_out(len(queries), min(arguments.num_queries, len(queries)), arguments.seed)
    exclude = None
    if queries.identified and gallery.identified:
        names = [queries.ids[row] for row in asked.tolist()]
        exclude = [gallery.rows.get(name) for name in names]
    return Tuner(gallery.embeddings, queries.embeddings[asked], exclude=exclude, **options)


def try_all(tuner: Tuner, arguments: argparse.Namespace,
            budget: Budget) -> tuple[list[Trial], list[str]]:
    """Measure exact search and every candidate, and print a line for each; and the names of those
    for which no time was left.
    """
    import sys
    import time

    from ..index.tuning import candidates
    from ..progress import progress_bar

    print(f'{len(tuner.gallery)} x {tuner.gallery.shape[1]}, {len(tuner.queries)} queries, '
          f'recall@{tuner.k}, {arguments.similarity}\n')
    print(f'{"index":36} {"recall":>7} {"queries/s":>10} {"alone ms":>9} {"MB":>8} {"build s":>8}')
    tuner.deadline = time.perf_counter() + arguments.time_limit
    waiting = candidates(len(tuner.gallery), tuner.gallery.shape[1], arguments.similarity,
                         arguments.factories)
    trials, left_out = [], []
    with progress_bar('Trying', 1 + len(waiting), 'index') as bar:
        try:
            bar.set_postfix_str('exact')
            trials.append(tuner.exact())
            bar.write(line(trials[0]))
            for number, candidate in enumerate(waiting):
                bar.update()
                if tuner.seconds_left() < 0:
                    left_out = [one.name() for one in waiting[number:]]
                    bar.write(f'The time limit of {arguments.time_limit:g} s has passed: not tried '
                              f'were {", ".join(left_out)} (--time-limit).')
                    break
                bar.set_postfix_str(candidate.name())
                for one in tuner.trials(candidate, budget.recall):
                    trials.append(one)
                    bar.write(line(one))
                    sys.stdout.flush()
        except KeyboardInterrupt:
            out = Path(arguments.out)
            write_results(out, trials, None, budget, tuner, arguments)
            raise KeyboardInterrupt(f'{len(trials)} settings were tried: {out}/trials.json has '
                                    'them.') from None
    return trials, left_out


def line(one: Trial) -> str:
    """A trial as a line of the table."""
    settings = one.index.get('search_parameters') or {}
    name = one.name + ''.join(f' {key}={value:g}' for key, value in settings.items())
    if one.error is not None:
        return f'{name:36} failed: {one.error}'
    return (f'{name:36} {one.recall:7.4f} {one.queries_per_second:10.1f} {one.latency_ms:9.3f} '
            f'{one.memory_mb:8.2f} {one.build_seconds:8.1f}')


def described(budget: Budget) -> str:
    """The budget in words."""
    parts = [(budget.recall, 'recall at least {:g}'), (budget.latency_ms, '{:g} ms a query'),
             (budget.memory_mb, '{:g} MB')]
    return ', '.join(words.format(value) for value, words in parts if value is not None)


def fragment(winner: Trial) -> str:
    """The config of the index as Python."""
    return f'index = dict({", ".join(f"{key}={value!r}" for key, value in winner.index.items())})\n'


def write_results(out: Path, trials: list[Trial], winner: Trial | None, budget: Budget,
                  tuner: Tuner, arguments: argparse.Namespace) -> list[Path]:
    """Write the winner, everything that was tried, and the picture; the paths."""
    from dataclasses import asdict

    from ..files import write_json, write_text
    from ..visualization import plot_trade_off

    made = dict(gallery=str(arguments.gallery), rows=len(tuner.gallery),
                width=tuner.gallery.shape[1], queries=len(tuner.queries), k=tuner.k,
                similarity=arguments.similarity, budget=asdict(budget))
    files = [out / 'trials.json']
    write_json(files[0], {**made, 'winner': as_dict(winner), 'trials': list(map(as_dict, trials))})
    series: dict[str, list[tuple[float, float]]] = {}
    for one in trials[1:]:
        if one.error is None:
            series.setdefault(one.name, []).append((one.recall, one.queries_per_second))
    if series:
        plot_trade_off(series, out / 'trade_off.png', tuner.k, trials[0].queries_per_second,
                       budget.recall,
                       None if winner is None else (winner.recall, winner.queries_per_second),
                       f'{len(tuner.gallery):,} x {tuner.gallery.shape[1]}')
        files.append(out / 'trade_off.png')
    if winner is not None:
        note = (f'# Chosen by tune_index within: {described(budget)}. Seen over {made["rows"]} x '
                f'{made["width"]}:\n# recall@{tuner.k} {winner.recall:.4f}, '
                f'{winner.queries_per_second:.0f} queries a second, {winner.latency_ms:.3f} ms '
                f'alone, {winner.memory_mb:.2f} MB.\n')
        write_text(out / 'index.py', note + fragment(winner))
        files.append(out / 'index.py')
    else:
        (out / 'index.py').unlink(missing_ok=True)  # of another run, which met its budget
    return files


def as_dict(one: Trial | None) -> dict[str, Any] | None:
    """A trial by name; of a failed one, why."""
    from dataclasses import asdict

    if one is None:
        return None
    if one.error is not None:
        return dict(index=one.index, name=one.name, error=one.error)
    return {key: value for key, value in asdict(one).items() if key != 'error'}


if __name__ == '__main__':
    main()
