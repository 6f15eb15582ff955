"""Find the most similar images of a gallery: JSON, and a picture of the rankings."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = argparse.ArgumentParser('search', description=__doc__)
    arguments.add_argument('gallery', help='a gallery file or store that dump_prototype '
                           'wrote; or a folder of images, together with --config and --checkpoint')
    arguments.add_argument('query', nargs='+', help='images, or folders of images')
    arguments.add_argument('--config', help='the config (default: the one that the gallery names)')
    arguments.add_argument('--checkpoint',
                           help='the checkpoint (default: the one that the gallery names)')
    arguments.add_argument('--topk', type=int, default=10, help='results a query (default: 10)')
    arguments.add_argument('--out', default='work_dirs/search', metavar='DIR',
                           help='where results.json and rankings.png go '
                           '(default: work_dirs/search)')
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
    model, config = open_gallery(arguments)
    answers = search(model, test_pipeline(config), images, Path(arguments.out), arguments.topk,
                     'skip' if arguments.skip_unreadable else 'raise',
                     [gallery_dataset(model, config)])
    report(answers, arguments.out)


def open_gallery(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """The retriever over the gallery, and its config.

    Raises:
        FileNotFoundError: the gallery, or the config or checkpoint that it names, is missing.
        ValueError: the gallery is a folder, or names neither, and they were not given.
    """
    from retrieval.gallery import Gallery, is_gallery

    from .configuration import build_model, load_config

    prototype: Any = None
    source: dict[str, Any] = {}
    if is_gallery(arguments.gallery) or not Path(arguments.gallery).is_dir():
        prototype = Gallery.load(arguments.gallery)
        source = prototype.source
    beside = Path(arguments.gallery).resolve().parent  # of what a link leads to
    config_file = arguments.config or _named(source, 'config_file', beside)
    checkpoint = arguments.checkpoint or _named(source, 'checkpoint', beside)
    if config_file is None or checkpoint is None:
        raise ValueError(f'{arguments.gallery!r} does not say which '
                         f'{"config" if config_file is None else "checkpoint"} made it: give '
                         '--config and --checkpoint.')
    config = load_config(config_file, arguments.cfg_options)
    config.model.topk = arguments.topk
    config.model.check_fingerprint = not arguments.ignore_fingerprint
    if prototype is None:
        dataset = dict(type='retrieval.ImageList', images=arguments.gallery,
                       pipeline=test_pipeline(config),
                       on_unreadable='skip' if arguments.skip_unreadable else 'raise')
        prototype = dict(batch_size=32, num_workers=2, dataset=dataset)
    model = build_model(config, checkpoint, prototype)
    return model, config


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
    prototype = config.model.get('prototype')
    for loader in (config.get('test_dataloader'), config.get('val_dataloader'),
                   prototype if isinstance(prototype, dict) else None):
        pipeline = ((loader or {}).get('dataset') or {}).get('pipeline')
        if pipeline:
            return list(pipeline)
    raise ValueError('The config has no test_dataloader.dataset.pipeline, so it is not known how '
                     'to read the queries.')


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


def search(model: Any, pipeline: list[dict], images: list[Any], out: Path, topk: int,
           on_unreadable: str, datasets: list[Any]) -> list[dict[str, Any]]:
    """Search for images, and write ``results.json`` and ``rankings.png`` into ``out``."""
    import json

    from retrieval.gallery import write_text
    from retrieval.hooks import ranking_rows
    from retrieval.inference import ImageRetrievalInferencer
    from retrieval.visualization import Pictures, draw_ranking_grid

    inferencer = ImageRetrievalInferencer(model, pipeline)
    samples = inferencer.samples(images, on_unreadable)
    answers = [inferencer.answer(sample, topk) for sample in samples]
    text = json.dumps(answers, indent=1, ensure_ascii=False)
    write_text(out / 'results.json', text + '\n')
    drawn = [sample for sample in samples if not sample.get('unreadable', None)][:50]
    if drawn:
        rows = ranking_rows(drawn, model.gallery, Pictures(datasets), topk)
        draw_ranking_grid(rows, out / 'rankings.png', columns=topk)
    return answers


def report(answers: list[dict[str, Any]], out: str) -> None:
    """Print the best results of each query, and where the files are."""
    for answer in answers:
        if 'error' in answer:
            print(f'{answer["query"]}: not read: {answer["error"]}')
            continue
        best = ', '.join(f'{hit["id"]} ({hit["score"]:.3f})' for hit in answer['results'][:3])
        print(f'{answer["query"]}: {best}')
    print(f'{out}/results.json and {out}/rankings.png hold the rest.')


if __name__ == '__main__':
    main()
