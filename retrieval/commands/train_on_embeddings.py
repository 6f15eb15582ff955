"""Train what stands behind a frozen encoder, on features that are extracted once.

Backbone and pooling stay as they are. Their features of the training and the validation set are
kept in the work dir and used again as long as they fit; on them the config's projection and head
are trained with its loss, optimiser and sampler. What was trained is put into OUT.pth, which,
with the config beside it, OUT.config.py, is for test, dump_prototype and search.

CONFIG may be a folder with one sub-folder a class: then the default pretrained encoder's features
are projected to 128 numbers.

With --marks, what is trained on is the right and wrong results that were marked on the page of
`serve`, over the same folder, gallery or config: a correction of the embeddings, as the page
trains it, which is put behind the encoder.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..runs.fitted_checkpoint import check_out, load_features, write_checkpoint
from .command_line import CommandParser, Outcome, add_config_options, reports_errors


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('train_on_embeddings', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('config', help='a config file, the name of a shipped one, or a folder '
                           'of class folders; with --marks also any folder, or a gallery')
    arguments.add_argument('checkpoint', nargs='?', help='weights to start from; its projection '
                           'and head are used too, where they fit (default: those that the config '
                           'gives its backbone)')
    arguments.add_argument('--out', required=True, metavar='OUT.pth',
                           help='the checkpoint to write')
    arguments.add_argument('--projection', type=int, metavar='D',
                           help="project to D numbers, in the place of the config's projection")
    arguments.add_argument('--hidden', type=int, metavar='H',
                           help='a hidden layer of H numbers before the projection')
    arguments.add_argument('--init', choices=['pca', 'random'], default='pca',
                           help='how a projection starts that no checkpoint has: at the principal '
                           'components of the features (default), or as the config says')
    arguments.add_argument('--epochs', type=int, help="train so long with AdamW and a cosine, in "
                           "the place of the config's schedule")
    arguments.add_argument('--lr', type=float, help='the learning rate of that (default: 0.001)')
    arguments.add_argument('--marks', metavar='marks.csv', help='train on results that were marked '
                           'right or wrong on the page of `serve`')
    arguments.add_argument('--work-dir', help='where features are kept '
                           '(default: work_dirs/ and the name of the config or folder)')
    arguments.add_argument('--anew', action='store_true',
                           help='extract the features, even if they are there')
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    import time

    arguments = parser().parse_args(argv)
    check_out(arguments.out)
    if arguments.marks is not None:
        from .marked import train_on_marks

        return train_on_marks(arguments)
    from ..encoders import start_at_components
    from ..runs import feature_training as training
    from ..runs.features import FeatureSets
    from ..runs.named_model import weights_of

    config = _config(arguments)
    training.check_trainable(config)
    training.set_projection(config, arguments.projection, arguments.hidden)
    training.set_schedule(config, arguments.epochs, arguments.lr)
    model, projected = _model(config, arguments.checkpoint and weights_of(arguments.checkpoint))
    if config.model.image_encoder.get('multi_scale'):
        print('The results here are of one size of the image; multi_scale acts in test and search.')
    sets = FeatureSets(model, config, config.work_dir, arguments.anew)
    if not projected and arguments.init == 'pca':
        start_at_components(model.image_encoder.projection, sets.training.embeddings)
    start = training.trained_weights(model.cpu().state_dict())
    before = training.evaluate(sets.config, start, projected)
    began = time.monotonic()
    trained = training.train(sets.config, start)
    took = time.monotonic() - began
    after = training.evaluate(sets.config, trained)
    _print_results(before, after)
    print(f'trained in {took:.1f} s')
    model.load_state_dict(training.trained_weights(trained), strict=False)
    return dict(files=write_checkpoint(model, config, arguments.out), before=before, after=after,
                training_seconds=took)


def _config(arguments: argparse.Namespace) -> Any:
    from ..config.options import merge_options
    from ..config.own_names import check_option_names
    from ..config.reading import expand_home
    from ..config.settings import check_settings
    from ..runs.config import complete, folder_config, load_config

    if not Path(arguments.config).is_dir():
        return load_config(arguments.config, arguments.cfg_options, arguments.work_dir)
    config = folder_config(arguments.config)
    options = arguments.cfg_options or {}
    check_option_names(config, options)
    merge_options(config, options)
    config.work_dir = arguments.work_dir or str(
        Path('work_dirs') / Path(arguments.config).resolve().name)
    check_settings(expand_home(complete(config)))
    return config


def _model(config: Any, checkpoint: str | None) -> tuple[Any, bool]:
    """The retriever, and whether its projection is a checkpoint's."""
    from ..retrievers import build_retriever

    model = build_retriever(config)
    if checkpoint is None:
        return model, False
    given, own = load_features(model, checkpoint), model.state_dict()
    wanted = [name for name in own if name.startswith('image_encoder.projection.')]
    return model, all(name in given and given[name].shape == own[name].shape for name in wanted)


def _print_results(before: dict[str, float], after: dict[str, float]) -> None:
    if not after:
        print('The config has no val or test set with an evaluator, so there are no results.')
        return
    results = {name: value for name, value in after.items() if '/num_' not in name}
    width = max(map(len, results))
    print(f'{"":{width}}  before   after')
    for name, value in results.items():
        print(f'{name:{width}}  {before.get(name, float("nan")):6.2f}  {value:6.2f}')


if __name__ == '__main__':
    main()
