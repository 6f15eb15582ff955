"""Compare the rankings of two galleries, and switch to the new one.

The two are such as those of a model and of the next one; the switch is made where the change is as
it should be.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('compare_galleries', description=__doc__)
    arguments.add_argument('old', help='the gallery in use: a file, a store, or a link to one')
    arguments.add_argument('new', help='the gallery of the new model, built beside it')
    arguments.add_argument('--queries', type=int, default=1000, metavar='N',
                           help='how many pictures that both hold are searched for (default: 1000)')
    arguments.add_argument('--query-galleries', nargs=2, metavar=('OLD', 'NEW'),
                           help='galleries of queries instead, as each model encodes them')
    arguments.add_argument('--topk', type=int, default=10, metavar='K',
                           help='how many results of each query are compared (default: 10)')
    arguments.add_argument('--similarity', help='of both (default: what each is meant for)')
    arguments.add_argument('--out', metavar='RESULT.json', help='where to write the results')
    arguments.add_argument('--switch', metavar='LINK', help='let this name (a symbolic link, to be '
                           'given as prototype or gallery) lead to NEW, in one step, after every '
                           'byte of NEW was checked')
    arguments.add_argument('--min-overlap', type=float, default=0, metavar='PERCENT',
                           help='do not switch where fewer of the first results are in common')
    arguments.add_argument('--max-loss', type=float, metavar='POINTS', help='do not switch where '
                           'a metric falls by more (Recall@1, Recall@10, MAP@R, in points of '
                           'percent; needs labels)')
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..evaluation import compare_galleries
    from ..files import write_json
    from ..gallery import Gallery, switch

    old, new = Gallery.load(arguments.old), Gallery.load(arguments.new)
    queries: Any = arguments.queries
    if arguments.query_galleries:
        queries = tuple(Gallery.load(path) for path in arguments.query_galleries)
    found = compare_galleries(old, new, queries, arguments.topk, arguments.similarity)
    print(found.report())
    if arguments.out:
        write_json(arguments.out, found.as_dict(), indent=2)
    if arguments.switch:
        check(found, arguments.min_overlap, arguments.max_loss)
        new.verify()
        before = switch(arguments.switch, arguments.new)
        print(f'{arguments.switch} leads to {arguments.new}'
              + (f'; before, to {before}' if before else ''))
    return dict(files=[path for path in (arguments.out, arguments.switch) if path],
                switched=bool(arguments.switch), **found.as_dict())


def check(found: Any, min_overlap: float, max_loss: float | None) -> None:
    """Raise ValueError where a comparison is not as it should be."""
    if 100 * found.overlap < min_overlap:
        raise ValueError(f'Not switched: {100 * found.overlap:.2f} % of the first results are in '
                         f'common, and --min-overlap asks for {min_overlap:g} %.')
    if max_loss is None:
        return
    if not found.results:
        raise ValueError('Not switched: --max-loss needs labels in both galleries.')
    for name, (before, after) in found.results.items():
        if before - after > max_loss:
            raise ValueError(f'Not switched: {name} falls from {before:.2f} to {after:.2f}, by '
                             f'more than --max-loss {max_loss:g}.')


if __name__ == '__main__':
    main()
