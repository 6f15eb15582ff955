"""Find the most similar images of a gallery: JSON, and a picture of the rankings."""
from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser('search', description=__doc__)
    arguments.add_argument('gallery', help='a gallery file that dump_prototype wrote, or a folder '
                           'of images. A folder is encoded with the default pretrained encoder, '
                           'or with --config and --checkpoint; what was encoded is kept in it, '
                           'under .retrieval, and only what changed is encoded again')
    arguments.add_argument('query', nargs='+', help='images, or folders of images')
    arguments.add_argument('--config', help='the config (default: the one that the gallery names)')
    arguments.add_argument('--checkpoint',
                           help='the checkpoint (default: the one that the gallery names)')
    arguments.add_argument('--topk', type=int, default=10, help='results a query (default: 10)')
    arguments.add_argument('--out', default='work_dirs/search', metavar='DIR',
                           help='where results.json and rankings.png go '
                           '(default: work_dirs/search)')
    arguments.add_argument('--calibration', metavar='FILE.json',
                           help='a calibration: results get a probability, and those below its '
                           'threshold are left out')
    arguments.add_argument('--no-cache', action='store_true',
                           help='encode a folder anew, and keep nothing')
    arguments.add_argument('--skip-unreadable', action='store_true',
                           help='report images that cannot be read instead of stopping')
    arguments.add_argument('--ignore-fingerprint', action='store_true',
                           help='search a gallery that another model or pipeline made')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    arguments = parser().parse_args(argv)
    if arguments.topk < 1:
        raise ValueError(f'--topk must be at least 1, got {arguments.topk}.')
    from retrieval.inference import expand

    images = expand(arguments.query)
    if Path(arguments.gallery).is_dir():
        # An image of the folder is to be known as a query, however the paths are written.
        arguments.gallery, *images = map(os.path.abspath, [arguments.gallery, *images])
        inferencer = open_folder(arguments)
        datasets = [inferencer.gallery_dataset]
    else:
        inferencer, config = open_gallery(arguments)
        datasets = [gallery_dataset(inferencer.model, config)]
    answers = search(inferencer, images, Path(arguments.out), arguments.topk,
                     'skip' if arguments.skip_unreadable else 'raise', datasets)
    report(answers, arguments.out)


def open_folder(arguments: argparse.Namespace) -> Any:
    """The inferencer over a folder of images.

    Raises:
        ValueError: only one of config and checkpoint was given, or the folder holds no image.
        ImportError: the default encoder's weights are not installed.
    """
    from retrieval.inference import ImageRetrievalInferencer, cache_beside

    from .configuration import build_model, load_config

    model, pipeline, name = None, None, 'default'
    if arguments.config is not None or arguments.checkpoint is not None:
        if arguments.config is None or arguments.checkpoint is None:
            raise ValueError('A folder is encoded with the model of --config and --checkpoint '
                             'together, or, with neither, with the default pretrained encoder.')
        config = load_config(arguments.config, arguments.cfg_options)
        model, pipeline = build_model(config, arguments.checkpoint), test_pipeline(config)
        name = f'{Path(arguments.config).stem}-{Path(arguments.checkpoint).stem}'
    elif arguments.cfg_options:
        raise ValueError('--cfg-options change a config: give --config and --checkpoint too.')
    cache = None if arguments.no_cache else cache_beside(arguments.gallery, name)
    inferencer = ImageRetrievalInferencer(
        model, arguments.gallery, cache, num_workers=2, pipeline=pipeline, topk=arguments.topk,
        calibration=arguments.calibration,
        on_unreadable='skip' if arguments.skip_unreadable else 'raise')
    if inferencer.cache_report is not None:
        done = inferencer.cache_report
        print(f'{arguments.gallery}: {done.kept} images as before, {done.new} new, {done.changed} '
              f'changed, {done.removed} gone; kept in {cache}')
    for image, reason in inferencer.model.gallery.skipped.items():
        print(f'skipped {image}: {reason}')
    return inferencer


def open_gallery(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The inferencer over a gallery file, and its config.

    Raises:
        FileNotFoundError: the gallery, or the config or checkpoint that it names, is missing.
        ValueError: the gallery names neither, and they were not given.
    """
    from retrieval.gallery import Gallery
    from retrieval.inference import ImageRetrievalInferencer

    from .configuration import build_model, load_config

    gallery = Gallery.load(arguments.gallery)
    beside = Path(arguments.gallery).parent
    config_file = arguments.config or _named(gallery.source, 'config_file', beside)
    checkpoint = arguments.checkpoint or _named(gallery.source, 'checkpoint', beside)
    if config_file is None or checkpoint is None:
        raise ValueError(f'{arguments.gallery!r} does not say which '
                         f'{"config" if config_file is None else "checkpoint"} made it: give '
                         '--config and --checkpoint.')
    config = load_config(config_file, arguments.cfg_options)
    config.model.topk = arguments.topk
    config.model.check_fingerprint = not arguments.ignore_fingerprint
    model = build_model(config, checkpoint, gallery)
    return ImageRetrievalInferencer(model, test_pipeline(config),
                                    calibration=arguments.calibration), config


def _named(source: dict[str, Any], key: str, folder: Path) -> str | None:
    """The file that a gallery names, as it is named or beside the gallery."""
    named = source.get(key)
    if not named:
        return None
    for path in (folder / named, Path(named), folder / Path(named).name):
        if path.is_file():
            return str(path)
    option = '--config' if key == 'config_file' else '--checkpoint'
    raise FileNotFoundError(f'The gallery names {named!r}, which is not there any more. Give it '
                            f'with {option}.')


def test_pipeline(config: Any) -> list[dict]:
    """The pipeline that queries go through: the test set's, else the prototype's.

    Raises:
        ValueError: the config has neither.
    """
    from retrieval.inference.building import config_pipeline

    pipeline = config_pipeline(config)
    if pipeline is None:
        raise ValueError('The config has no test_dataloader.dataset.pipeline, so it is not known '
                         'how to read the queries.')
    return pipeline


def gallery_dataset(model: Any, config: Any) -> Any:
    """The dataset whose pictures the gallery's ids name, where there is one."""
    from retrieval.hooks import prototype_dataset
    from retrieval.registry import DATASETS

    made_from = config.model.get('prototype')
    if isinstance(model.prototype, dict) or not isinstance(made_from, dict):
        return prototype_dataset(model)
    try:
        return DATASETS.build(made_from['dataset'])
    except OSError:  # its files are elsewhere by now; ids that are paths are drawn all the same
        return None


def search(inferencer: Any, images: list[Any], out: Path, topk: int, on_unreadable: str,
           datasets: list[Any]) -> list[dict[str, Any]]:
    """Search for images, and write ``results.json`` and ``rankings.png`` into ``out``."""
    import json

    from retrieval.gallery import write_text
    from retrieval.inference.answers import ranking_row
    from retrieval.visualization import Pictures, draw_ranking_grid

    answers = inferencer(images, topk, on_unreadable)
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    write_text(out / 'results.json', text + '\n')
    pictures = Pictures(datasets)
    rows = [ranking_row(answer, pictures) for answer in answers if 'error' not in answer][:50]
    if rows:
        draw_ranking_grid(rows, out / 'rankings.png', columns=topk)
    return answers


def report(answers: list[dict[str, Any]], out: str) -> None:
    """Print the best results of each query, and where the files are."""
    for answer in answers:
        if 'error' in answer:
            print(f'{answer["query"]}: not read: {answer["error"]}')
            continue
        best = ', '.join(f'{hit["id"]} ({hit["score"]:.3f})' for hit in answer['results'][:3])
        print(f'{answer["query"]}: {best or "no match"}')
    print(f'{out}/results.json and {out}/rankings.png hold the rest.')


if __name__ == '__main__':
    main()
