"""Fit a whitening to the embeddings of the training set, and store it in a checkpoint.

The embeddings are extracted once, with the test pipeline, and kept in the work dir. OUT.pth and
the config beside it, OUT.config.py, are for test, dump_prototype and search.
"""
from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from typing import Any

from .command_line import (
    CommandParser,
    Outcome,
    add_config_options,
    add_data_option,
    reports_errors,
)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    arguments = CommandParser('fit_whitening', description=__doc__,
                              formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument('config', help='a config file, the name of a shipped one, or a bundle')
    arguments.add_argument('checkpoint', nargs='?',
                           help='the checkpoint file, or a bundle; none where CONFIG is a bundle')
    arguments.add_argument('out', metavar='OUT.pth', help='the checkpoint to write')
    arguments.add_argument('--method', default='pca', metavar='pca|learned|zca',
                           help='pca (default); learned from the pairs within classes; zca, which '
                           'changes the embeddings least')
    arguments.add_argument('--dim', type=int, help='the width of the whitened embeddings (default: '
                           "that of the config's whitening, else as wide as before)")
    arguments.add_argument('--shrinkage', type=float, default=0.0, metavar='SHARE',
                           help='mix the covariance with so much of the identity, in [0, 1): for '
                           'few images, or where small directions are noise (default: 0)')
    arguments.add_argument('--embeddings', metavar='FILE', help='fit to these instead: a gallery '
                           'of the unwhitened model, or an .npy or .npz file')
    arguments.add_argument('--work-dir', help='where embeddings are kept '
                           '(default: work_dirs/ and the name of the config)')
    arguments.add_argument('--anew', action='store_true',
                           help='extract the embeddings, even if they are there')
    add_data_option(arguments)
    add_config_options(arguments)
    return arguments


@reports_errors
def main(argv: Sequence[str]) -> Outcome:
    """Run the command."""
    arguments = parser().parse_intermixed_args(argv)
    from ..runs.fitted_checkpoint import check_out, write_checkpoint

    check_out(arguments.out)
    from ..encoders import fit_whitening
    from ..retrievers import build_retriever
    from ..runs.named_model import named_model

    config, checkpoint = named_model(
        arguments.config, arguments.checkpoint, options=arguments.cfg_options,
        work_dir=arguments.work_dir, data=arguments.data, trust=arguments.trust)
    encoder = config.model.image_encoder
    if not isinstance(encoder, dict):
        raise ValueError('A whitening has its place in an ImageEncoder, and this config has a '
                         'sequence of encoders.')
    slot = _slot(encoder.pop('whitening', None))
    plain = build_retriever(config, checkpoint)
    gallery = _embeddings(plain, config, arguments)
    dim = arguments.dim or slot.get('out_features') or gallery.dim
    fit = fit_whitening(gallery.embeddings, arguments.method,
                        labels=gallery.labels if arguments.method == 'learned' else None,
                        dim=dim, shrinkage=arguments.shrinkage)
    encoder['whitening'] = dict(slot, in_features=gallery.dim, out_features=dim)
    whole = build_retriever(copy.deepcopy(config), None)
    whole.load_state_dict(plain.state_dict(), strict=False)
    whole.image_encoder.whitening.set(fit)
    print(f'{arguments.method} whitening of {gallery.dim} to {dim}, fitted to {len(gallery)} '
          'embeddings')
    return dict(files=write_checkpoint(whole, config, arguments.out), method=arguments.method,
                dimensions=[gallery.dim, dim], embeddings=len(gallery))


def _slot(whitening: Any) -> dict[str, Any]:
    """The config's whitening as a dict; its type must be the one that can be fitted."""
    slot = dict(out_features=whitening) if isinstance(whitening, int) else dict(whitening or {})
    if str(slot.get('type', 'Whitening')).rsplit('.', 1)[-1] != 'Whitening':
        raise ValueError(f"The config's whitening is a {slot['type']}, and what is fitted here is "
                         "type='Whitening': leave the type out.")
    return slot


def _embeddings(model: Any, config: Any, arguments: argparse.Namespace) -> Any:
    """The embeddings that the whitening is fitted to, as a gallery.

    Raises:
        FingerprintError: a ``ValueError``; a given gallery is of another model.
        ValueError: there is no training set, or learned whitening has no labels.
    """
    from ..gallery import FingerprintError, Gallery
    from ..retrievers.extraction import extraction_loader
    from ..runs.config import test_pipeline
    from ..runs.features import extract

    if arguments.embeddings:
        gallery = Gallery.load(arguments.embeddings)
        different = gallery.fingerprint.differences(model.fingerprint())
        if different:
            raise FingerprintError(f'{arguments.embeddings!r} was not made by this model without '
                                   f'its whitening: {" and ".join(different)} differ.')
    elif not (loaded := config.test_dataloader if arguments.data else
              config.get('train_dataloader')):
        raise ValueError(f'The config {arguments.config!r} has no train_dataloader to fit to: give '
                         '--embeddings (or --data FOLDER, where it is a bundle).')
    else:
        loader = extraction_loader(loaded, test_pipeline(config))
        gallery, _ = extract(model, loader, config.work_dir, 'projection', arguments.anew)
    if arguments.method == 'learned' and gallery.labels is None:
        raise ValueError('Learned whitening wants the class of every embedding, and there are none '
                         "here: take --method pca.")
    return gallery


if __name__ == '__main__':
    main()
