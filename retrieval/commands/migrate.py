"""Encode a gallery anew with another model, while the old one answers.

The old gallery stays as it is. What is encoded is kept, and a migration that was stopped goes on.
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from .collection import milvus_index, standing
from .command_line import CommandParser, Outcome, add_config_options, reports_errors
from .folders import config_dataset, gallery_config

_TOGETHER = 256  # rows that are encoded, and then on the disk


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('migrate', description=__doc__, epilog='While it lasts, '
                                        'search OLD QUERY --beside NEW ranks the rows of both.')
    arguments.add_argument('old', help='the gallery in use: a file, a store, or a link to one')
    arguments.add_argument('new', help='the store of the new model, which is made, or gone on with')
    arguments.add_argument('--config', help='the new config, or a bundle')
    arguments.add_argument('--checkpoint', help='its checkpoint')
    arguments.add_argument('--encoder', metavar='NAME', help='in the place of both, as of search')
    arguments.add_argument('--trust', action='store_true', help="build whatever a bundle's or the "
                           "old gallery's config names")
    arguments.add_argument('--counts', metavar='FILE.json', help='how often each id was a result, '
                           'such as returned.json of serve; these are encoded first')
    arguments.add_argument('--rows', type=int, metavar='N', help='encode so many at the most now')
    arguments.add_argument('--switch', metavar='LINK', help='when all is encoded, let this name (a '
                           'symbolic link) lead to NEW, in one step; with the galleries exchanged, '
                           'compare_galleries --switch undoes it')
    arguments.add_argument('--fill-index', action='store_true', help="when all is encoded, put NEW "
                           "into the Milvus collection of the new config's index too, and lead its "
                           'name there in one step; the rows that it led to are kept, and '
                           '`retrieval collection CONFIG --undo` leads it back to them')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    import torch

    from ..checks import whole_number
    from ..files import write_atomically
    from ..gallery import Gallery, GalleryStore, switch
    from ..progress import progress_bar
    from ..retrievers import build_retriever
    from ..retrievers.model_change import in_order_of
    from ..runs.carried_config import carried
    from ..runs.config import test_pipeline
    from ..runs.named_model import named_model

    old = Gallery.load(arguments.old)
    if not old.identified:
        raise ValueError(f'{arguments.old!r} has no ids, so it is not known which pictures to '
                         'encode: dump it with ids.')
    config, checkpoint = named_model(arguments.config, arguments.checkpoint, arguments.encoder,
                                     options=arguments.cfg_options, trust=arguments.trust)
    index = milvus_index(config) if arguments.fill_index else None  # before hours of work
    model = build_retriever(config, checkpoint)
    if checkpoint is None and any(True for _ in model.parameters()):  # a preset
        checkpoint = f'{arguments.new.rstrip("/")}.pth'  # by which the new gallery is searched
        if not Path(checkpoint).exists():
            write_atomically(checkpoint, partial(torch.save, dict(state_dict=model.state_dict())))
    pipeline = test_pipeline(config)
    pictures = _pictures(old, arguments, pipeline)
    store = GalleryStore.open(arguments.new) if Path(arguments.new).exists() else None
    done = set() if store is None else set(store.load().ids) | set(store.load().skipped)
    left = [name for name in in_order_of(old.ids, _counts(arguments.counts)) if name not in done]
    if arguments.rows is not None:
        left = left[:whole_number('--rows', arguments.rows)]
    source = dict(settings=carried(config), checkpoint=checkpoint and str(
        Path(checkpoint).resolve()))
    reached = len(done & set(old.ids))
    with progress_bar('Encoding', len(left)) as bar:
        try:
            for start in range(0, len(left), _TOGETHER):
                ids = left[start:start + _TOGETHER]
                rows = _encoded(model, pictures, ids, old, source, bar)
                if store is None:
                    store = GalleryStore.create(arguments.new, rows)
                else:
                    store.append(rows)
                reached += len(ids)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f'{reached:,} of {len(old):,} are encoded and kept in {arguments.new}: the same '
                'call goes on.' if reached else '') from None
    if store is None:
        raise ValueError(f'{arguments.old!r} is empty: there is nothing to migrate.')
    print(f'{reached:,} of {len(old):,} ({reached / len(old):.0%}) encoded')
    new = store.load()
    _report(old, new)
    missing = len(old) - int((new.ids.find(old.ids) >= 0).sum()) - len(new.skipped)
    goals = [arguments.switch] * bool(arguments.switch) + [index] * bool(arguments.fill_index)
    if missing and goals:
        print(f'{missing:,} are left, so {" and ".join(map(str, goals))} was not switched: run '
              'this again')
    elif goals:
        new.verify()
    if index is not None:
        with closing(index):
            if not missing:
                _fill(index, new)
    if arguments.switch and not missing:
        before = switch(arguments.switch, arguments.new)
        print(f'{arguments.switch} leads to {arguments.new}; back: retrieval compare_galleries '
              f'{arguments.new} {before or arguments.old} --switch {arguments.switch}')
    switched = bool(goals) and not missing
    return dict(files=[arguments.new, *[arguments.switch] * (switched and bool(arguments.switch))],
                rows=len(new), left=missing, switched=switched, skipped=new.skipped)


def _fill(index: Any, new: Any) -> None:
    """Put a gallery into Milvus beside the rows that the name leads to, and switch."""
    from ..retrievers.prototype import fill_index

    index.keep = True
    fill_index(index, new)
    standing(index)


def _counts(path: str | None) -> dict[str, int]:
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding='utf-8'))
        return {str(name): int(count) for name, count in found.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f'{path!r} does not hold counts by id, such as {{"a.jpg": 3}}: {error}'
                         ) from error


def _pictures(old: Any, arguments: argparse.Namespace, pipeline: Any) -> Any:
    """The dataset of a gallery's pictures, for the new model."""
    from ..datasets import ImageList
    from ..datasets.base import build_pipeline

    found = None
    if old.source.get('settings'):
        asked = argparse.Namespace(encoder=None, config=None, checkpoint=None, cfg_options=None,
                                   trust=arguments.trust)
        found = config_dataset(gallery_config(old, arguments.old, asked))
    if found is None:
        return ImageList(list(old.ids), pipeline=pipeline, on_unreadable='skip')
    found.pipeline_cfg, found.pipeline = list(pipeline), build_pipeline(pipeline)
    found.on_unreadable = 'skip'
    return found


def _encoded(model: Any, pictures: Any, ids: list[str], old: Any, source: dict[str, Any],
             bar: Any) -> Any:
    """The rows of some ids with the old gallery's columns."""
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    from ..gallery import Gallery
    from ..retrievers import encode

    place = {name: row for row, name in enumerate(pictures.sample_ids)}
    unknown = [name for name in ids if name not in place]
    if unknown:
        raise FileNotFoundError(f'{len(unknown)} pictures of the gallery are not in its dataset '
                                f'any more, such as {unknown[0]!r}.')
    some = pictures.get_subset([place[name] for name in ids])
    found = encode(model, DataLoader(some, batch_size=32, collate_fn=pseudo_collate), bar)
    rows = old.subset(old.find(list(found.ids)))
    return Gallery(found.embeddings, found.ids, rows.labels, rows.label_names, rows.metadata,
                   model.fingerprint(some), source, found.skipped, model.similarity_name)


def _report(old: Any, new: Any) -> None:
    """Print what the rows that both models have encoded say of the change."""
    from ..evaluation import compare_galleries
    from ..retrievers.model_change import ModelChange

    both = old.subset([row for row in old.ids.find(list(new.ids)).tolist() if row >= 0])
    if len(both) < 2:
        return
    found = compare_galleries(both, new)
    print(f'first {found.k} results in common: {found.overlap:.1%}; another first result: '
          f'{found.changed_first:.1%}')
    for name, (before, after) in found.results.items():
        print(f'{name}: {before:.2f} -> {after:.2f} ({after - before:+.2f})')
    if len(both) >= 10:
        learned = ModelChange(old, new).map
        print(f'rows that are mapped ({learned.kind}) are found as when they are encoded: '
              f'{learned.agreement:.1%} of the first 10 in common')


if __name__ == '__main__':
    main()
