"""Find the images of a gallery that pictures or words describe: JSON, and a picture of them."""
from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .command_line import CommandParser, Outcome, reports_errors
from .folders import (
    add_folder_options,
    add_parts_options,
    cache_name,
    check_exists,
    config_dataset,
    cut_given,
    folder_encoder,
    gallery_checkpoint,
    gallery_config,
    gallery_file,
    is_folder,
    list_unreadable,
    open_folder,
    open_vectors,
    with_local_rerank,
)

_VECTORS = ('.npy', '.npz', '.pth', '.pt', '.safetensors')


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('search', description=__doc__)
    arguments.add_argument('gallery', help='a gallery file or store that dump_prototype wrote, '
                           'a bundle with a gallery, an index file (images are searched in it with '
                           '--encoder, or --config and --checkpoint), or a folder of images. A '
                           'folder is encoded '
                           'with the default pretrained encoder, with --encoder, or with --config '
                           'and --checkpoint; what was encoded is kept in it, under .retrieval, '
                           'and only what changed is '
                           'encoded again')
    arguments.add_argument('query', nargs='+', help='images, or folders of images; words, where '
                           'the encoder has a text tower, such as --encoder siglip2-base; or files '
                           'of embeddings (.npy, .npz, .pth, .safetensors), for which no model is '
                           'needed')
    for sign, name in (('+', '--plus'), ('-', '--minus')):
        arguments.add_argument(name, action='append', default=[], metavar='[WEIGHT:]QUERY',
                               help='an image or words that are added to each query' if sign == '+'
                               else 'an image or words for what is not wanted, such as 0.5:snow')
    arguments.add_argument('--filter', metavar='FILTER', help='which rows may be found, by '
                           'metadata, `label` and `id`, such as "price<20 and brand in (a, b)"')
    arguments.add_argument('--topk', type=int, default=10, help='results a query (default: 10)')
    arguments.add_argument('--out', default='work_dirs/search', metavar='DIR',
                           help='where results.json and rankings.png go '
                           '(default: work_dirs/search)')
    arguments.add_argument('--calibration', metavar='FILE.json',
                           help='a calibration: results get a probability, and those below its '
                           'threshold are left out')
    arguments.add_argument('--cut', metavar='auto|SHARE', help='leave out what does not match, '
                           'without labels: each query has a threshold of its own, from the scores '
                           'that the gallery gives it. auto: where fewer than one result that does '
                           'not match is to be expected; a share such as 0.05: at most so many '
                           'of the queries without a match get a result')
    arguments.add_argument('--beside', metavar='NEW', help='the store of a migration that is not '
                           'done: its rows, and those that only the gallery has, in one ranking')
    arguments.add_argument('--ignore-fingerprint', action='store_true',
                           help='search a gallery that another model or pipeline made')
    add_parts_options(arguments)
    add_folder_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_args(argv)
    from ..answers import expand
    from ..checks import whole_number

    whole_number('--topk', arguments.topk)
    check_exists(arguments.gallery)
    added = [*arguments.plus, *arguments.minus]
    vectors = [Path(query).suffix.lower() in _VECTORS for query in arguments.query]
    if any(vectors):
        if not all(vectors) or added:
            raise ValueError('The queries are embeddings, or images and words, not both: search '
                             'twice.')
        for name, given in (('--parts', arguments.parts), ('--rerank', arguments.rerank),
                            ('--beside', arguments.beside)):
            if given:
                raise ValueError(f'{name} encodes or compares pictures, and the queries are '
                                 'embeddings: leave it out.')
        answers, datasets, ids = search_vectors(arguments)
        write(answers, Path(arguments.out), arguments.topk, datasets, ids)
        return report(answers, Path(arguments.out))
    words = list(filter(is_words, arguments.query))
    images = expand([query for query in arguments.query if query not in words])
    on_unreadable, out = 'raise' if arguments.strict else 'skip', Path(arguments.out)
    quick = None if words or added else search_without_torch(arguments)
    if quick is not None:
        answers = quick(list(map(os.path.abspath, images)), arguments.topk, on_unreadable)
        write(answers, out, arguments.topk, [], quick.gallery.ids)
        outcome = report(answers, out)
        refuse_unreadable(answers)
        return outcome
    if is_folder(arguments.gallery):
        # An image of the folder is to be known as a query, however the paths are written.
        arguments.gallery, *images = map(os.path.abspath, [arguments.gallery, *images])
        if words and folder_encoder(arguments).config is None:  # before the folder is encoded
            from ..encoders.presets import DEFAULT_NAME, no_words
            raise no_words(DEFAULT_NAME, words[0])
        inferencer = open_folder(arguments.gallery, arguments, topk=arguments.topk,
                                 calibration=arguments.calibration)
        datasets = [inferencer.gallery_dataset]
    else:
        inferencer, config = open_gallery(arguments)
        datasets = [config_dataset(config)]
    if arguments.beside is not None:
        inferencer = with_both(inferencer, arguments)
    if arguments.cut is not None:
        gallery = inferencer.model.gallery
        inferencer.calibration = cut_of(arguments, gallery, inferencer.model.similarity)
    if added:
        answers = inferencer.composed(*composed_queries([*images, *words], arguments),
                                      filter=arguments.filter)
    else:
        answers = inferencer.composed(*([dict(text=text)] for text in words),
                                      filter=arguments.filter)
        answers += inferencer(images, arguments.topk, on_unreadable,
                              filter=arguments.filter) if images else []
    write(answers, out, arguments.topk, datasets, inferencer.model.gallery.ids)
    outcome = report(answers, out)
    list_unreadable(inferencer.model.gallery)
    refuse_unreadable(answers)
    return outcome | dict(skipped=inferencer.model.gallery.skipped)


def is_words(query: str) -> bool:
    """True for a query that is neither a file nor seems to be the path of one.

    Example:
        >>> is_words('a red bicycle'), is_words('bicycle.jgp'), is_words('pictures/red')
        (True, False, False)
    """
    path = os.path.expanduser(query)
    return not (os.path.lexists(path) or os.sep in query
                or re.search(r'\w\.\w{2,5}$', query) is not None)


def composed_queries(queries: list[str], arguments: argparse.Namespace) -> list[list[Any]]:
    """The parts of each query, with those of ``--plus`` and ``--minus``.

    Raises:
        FileNotFoundError: what seems to be a file is not there.
    """
    from ..answers import expand
    from ..search.composed import QueryPart, weighted

    def part(given: str, sign: float = 1.0) -> QueryPart:
        weight, query = weighted(given, sign) if not os.path.exists(given) else (sign, given)
        if is_words(query):
            return QueryPart(text=query, weight=weight)
        image, = expand([query])[:1]
        return QueryPart(image=os.path.abspath(image), weight=weight)

    rest = [*map(part, arguments.plus), *(part(one, -1.0) for one in arguments.minus)]
    return [[QueryPart(text=one) if is_words(one) else QueryPart(image=one), *rest]
            for one in queries]


def open_gallery(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The inferencer over a gallery file or the gallery of a bundle, and its config.

    Raises:
        FileNotFoundError: the gallery, or the checkpoint that it names, is missing.
        ValueError: the gallery carries no config or names no checkpoint, and they were not given;
            or the config names what data may not have built.
    """
    from ..gallery import Gallery
    from ..index import index_type, open_index
    from ..retrievers import build_retriever
    from ..runs.bundle import Bundle, is_bundle
    from ..runs.config import test_pipeline
    from ..runs.named_model import with_options
    from ..search import ImageRetrievalInferencer

    own = arguments.encoder is None and arguments.config is None and arguments.checkpoint is None
    if own and is_bundle(arguments.gallery):
        bundle = Bundle.open(arguments.gallery, arguments.trust)
        config = with_options(bundle.config, arguments.cfg_options)
        if getattr(arguments, 'rerank', None):
            with_local_rerank(config)
        config.model.topk = arguments.topk
        return bundle.inferencer(config=config, calibration=arguments.calibration), config
    gallery: Any
    if index_type(arguments.gallery) is not None:
        gallery = open_index(arguments.gallery)
        unnamed = SimpleNamespace(source={})  # an index does not say which model made its rows
        config = gallery_config(unnamed, arguments.gallery, arguments)
        checkpoint = gallery_checkpoint(unnamed, arguments.gallery, arguments)
    else:
        arguments.gallery = gallery_file(arguments.gallery)
        gallery = Gallery.load(arguments.gallery)
        config = gallery_config(gallery, arguments.gallery, arguments)
        checkpoint = gallery_checkpoint(gallery, arguments.gallery, arguments)
    if getattr(arguments, 'parts', False):
        raise ValueError('--parts is for a folder, which is encoded by parts: the rows of '
                         f'{arguments.gallery!r} are made already.')
    if getattr(arguments, 'rerank', None):
        with_local_rerank(config)
    config.model.topk = arguments.topk
    config.model.check_fingerprint = not arguments.ignore_fingerprint
    model = build_retriever(config, checkpoint, gallery)
    return ImageRetrievalInferencer(model, test_pipeline(config),
                                    calibration=arguments.calibration), config


def with_both(old: Any, arguments: argparse.Namespace) -> Any:
    """The inferencer over a gallery of which a part is encoded by a new model.

    Args:
        old: over the whole gallery, by the old model.
        arguments: ``--beside`` names the new model's store.

    Raises:
        FileNotFoundError, ValueError: it cannot be searched, or has too few rows.
    """
    from ..gallery import Gallery
    from ..retrievers.changing_retriever import both_pipelines, changing_retriever
    from ..search import ImageRetrievalInferencer

    if not isinstance(old.model.gallery, Gallery):
        raise ValueError('--beside reads the embeddings of the gallery, and an index alone has '
                         'none: give the gallery.')
    given = {**vars(arguments), 'gallery': arguments.beside, 'calibration': None,
             'config': None, 'checkpoint': None, 'encoder': None, 'cfg_options': None}
    new, _ = open_gallery(argparse.Namespace(**given))
    model = changing_retriever(old.model.gallery, new.model.gallery, new.model, old.model)
    return ImageRetrievalInferencer(model, pipeline=both_pipelines(new.pipeline, old.pipeline),
                                    topk=arguments.topk, calibration=arguments.calibration)


def search_vectors(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], list[Any], Any]:
    """The answers for files of embeddings, the datasets of the gallery's pictures where they are
    known, and the gallery's ids. A query with an id does not find the row of that id.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: it holds no embeddings, or such of another width.
    """
    from ..answers import described
    from ..evaluation import MatchCalibration
    from ..gallery import Gallery
    from ..index import ExactIndex, index_type, open_index
    from ..retrievers.prototype import IndexGallery

    gallery: Any
    if index_type(arguments.gallery) is not None:
        index, datasets = open_index(arguments.gallery), []
        gallery, chosen = IndexGallery(index), arguments.filter
    else:
        gallery, dataset = open_vectors(arguments.gallery, arguments)
        datasets = [] if dataset is None else [dataset]
        index = ExactIndex(gallery.similarity or 'cosine_similarity')
        index.add(gallery.embeddings, gallery.ids)
        chosen = None if arguments.filter is None else gallery.where(arguments.filter)
    if arguments.cut is not None:
        calibration = cut_of(arguments, gallery, index.similarity)
    elif arguments.calibration is not None:
        calibration = MatchCalibration.load(arguments.calibration)
    else:
        calibration = None
    depth = max(arguments.topk, 0 if calibration is None else calibration.depth)
    answers = []
    for path in arguments.query:
        queries = Gallery.load(path)
        names = list(queries.ids) if queries.identified else [
            f'{path}:{row}' for row in range(len(queries))]
        found = index.search(queries.embeddings, min(depth, len(index)),
                             exclude=names if queries.identified else None, filter=chosen)
        for row, name in enumerate(names):
            scores = found.scores[row, :int(found.lengths[row])].tolist()
            own = None if calibration is None else calibration.of_query(scores)
            shown = scores[:arguments.topk]
            answers.append(described(name, found.indices[row, :len(shown)].tolist(), shown,
                                     gallery, own))
    return answers, datasets, gallery.ids


def cut_of(arguments: argparse.Namespace, gallery: Any, similarity: Any) -> Any:
    """The calibration of ``--cut`` for a gallery.

    Raises:
        ValueError: as of :func:`cut_given`; or the gallery has no embeddings, or too few.
    """
    from ..evaluation import calibrate_without_labels
    from ..gallery import Gallery

    criterion, target = cut_given(arguments)
    if not isinstance(gallery, Gallery):
        raise ValueError('--cut reads the embeddings of the gallery, and an index alone has none: '
                         'give the gallery, or a --calibration.')
    return calibrate_without_labels(gallery.embeddings, criterion, target, similarity=similarity)


def search_without_torch(arguments: argparse.Namespace) -> Any:
    """The search of a folder that an exported encoder has encoded as it is now; None for any other
    gallery, where something is to be encoded first, and where more is asked for than a search.
    """
    from ..exported_encoder import is_export

    named = arguments.encoder is not None and is_export(arguments.encoder)
    if not named or arguments.no_cache or arguments.calibration or arguments.cfg_options \
            or arguments.filter or arguments.cut or arguments.beside or arguments.parts \
            or arguments.rerank:
        return None
    from ..encoded_folder import cache_beside
    from ..export.folder_search import FolderSearch

    folder = os.path.abspath(arguments.gallery)
    cache = cache_beside(folder, cache_name(arguments.encoder))
    found = FolderSearch.open(folder, cache, arguments.encoder)
    if found is not None:
        print(f'{folder}: {len(found.gallery)} images as before; kept in {cache}')
    return found


def write(answers: list[dict[str, Any]], out: Path, topk: int, datasets: list[Any],
          ids: Sequence[str]) -> None:
    """Write ``results.json`` and ``rankings.png`` into ``out``.

    Args:
        datasets: where the pictures are looked for.
        ids: of the whole gallery.
    """
    from ..answers import ranking_rows
    from ..files import write_json
    from ..visualization import Pictures, draw_ranking_grid

    write_json(out / 'results.json', answers)
    readable = [answer for answer in answers if 'error' not in answer]
    rows = ranking_rows(readable[:50], Pictures(datasets), ids)
    if rows:
        draw_ranking_grid(rows, out / 'rankings.png', columns=topk)
    else:
        (out / 'rankings.png').unlink(missing_ok=True)  # that of an earlier search


def report(answers: list[dict[str, Any]], out: Path) -> Outcome:
    """Print the best results of each query, and where the files are."""
    for answer in answers:
        if 'error' in answer:
            print(f'{answer["query"]}: not read: {answer["error"]}')
            continue
        best = ', '.join(f'{hit["id"]} ({hit["score"]:.3f})' for hit in answer['results'][:3])
        print(f'{answer["query"]}: {best or "no match"}')
    files = [file for file in (out / 'results.json', out / 'rankings.png') if file.exists()]
    print(f'{" and ".join(map(str, files))} hold{"s" * (len(files) == 1)} the rest.')
    return dict(files=files, queries=answers)


def refuse_unreadable(answers: list[dict[str, Any]]) -> None:
    """Raises UnreadableImageError where not one of the queries could be read."""
    from ..image_files import UnreadableImageError

    if answers and all('error' in answer for answer in answers):
        raise UnreadableImageError('Nothing was searched for, since no query could be read: '
                                   f'{answers[0]["error"]}')


if __name__ == '__main__':
    main()
