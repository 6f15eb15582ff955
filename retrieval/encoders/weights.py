"""Weights from local files into a model, with a report of what did not match."""
from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log
from torch import Tensor, nn

from .mismatch import Mismatch, compare, extra_blocks, find_prefix, refusal
from .weight_files import KeyMapping, read_weights, rename, some


class WeightReport(NamedTuple):
    """What did not match when weights were loaded.

    Args:
        missing: names that the module has and the file has not; they keep their values.
        unexpected: names that the file has and the module has not, without those ignored.
        different: names that both have in different shapes; they keep their values.
    """

    missing: list[str]
    unexpected: list[str]
    different: list[str]


def load_weights(module: nn.Module, path: str | Path, ignore: Sequence[str] = (),
                 prefix: str | None = None, key_mapping: KeyMapping | None = None,
                 strict: bool = True) -> WeightReport:
    """Load a module's weights from a local file.

    Args:
        module: filled in place.
        path: ``.safetensors``, or a checkpoint of torch that loads with ``weights_only``.
        ignore: beginnings of names in the file that are left out without mention, such as those
            of a classifier that the module has not.
        prefix: only names that begin with it are taken, and it is removed; by default the
            beginning that the module's names carry in the file (``module.``, ``backbone.``,
            ``image_encoder.backbone.``) is found.
        key_mapping: pairs (regular expression, replacement), applied in turn to the names; a dict
            or a list.
        strict: refuse a file that lacks a weight of the module (integer buffers do not count),
            that has one in another shape, or that has further numbered blocks, as a deeper model
            of the family has. Otherwise what fits is loaded, and the rest is listed.

    Returns:
        What did not match; it is logged as a warning as well.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no weight file; ``prefix`` or ``key_mapping`` match nothing; or
            these are other weights, and the message lists what is missing, unexpected and of
            another shape, and the likely cause.
        TypeError: ``key_mapping`` is of another type.
    """
    own = module.state_dict()
    weights = select_weights(read_weights(path), own, path, prefix, key_mapping)
    mismatch = compare(own, weights, ignore)
    check_mismatch(own, weights, mismatch, path, strict)
    different = set(mismatch.different)
    module.load_state_dict({name: value for name, value in weights.items()
                            if name in own and name not in different}, strict=False)
    return report_mismatch(mismatch, len(own), path)


def load_checkpoint(module: nn.Module, checkpoint: str | Path | None,
                    prefix: str | None = None, key_mapping: KeyMapping | None = None,
                    strict: bool = True, ignore: Sequence[str] = ()) -> None:
    """Load what a component's config names as its checkpoint, which may be nothing.

    Raises:
        ValueError: there is no checkpoint for a prefix or key mapping; else as
            :func:`load_weights`.
    """
    if checkpoint is not None:
        load_weights(module, checkpoint, ignore, prefix, key_mapping, strict)
    else:
        check_unused(prefix, key_mapping)


def check_unused(prefix: str | None, key_mapping: KeyMapping | None) -> None:
    """Refuse settings of a checkpoint that is not there. Raises ValueError."""
    given = [name for name, value in (('checkpoint_prefix', prefix), ('key_mapping', key_mapping))
             if value is not None]
    if given:
        raise ValueError(f'{" and ".join(given)} translate the names of a local file: give its '
                         'path as checkpoint, or leave them out.')


def select_weights(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str | Path,
                   prefix: str | None = None,
                   key_mapping: KeyMapping | None = None) -> dict[str, Tensor]:
    """A file's weights under a module's names; without ``prefix`` the beginning that the names
    carry in the file is found and removed. See :func:`load_weights`.
    """
    renamed = rename(weights, path, prefix, key_mapping)
    found = '' if prefix is not None else find_prefix(renamed, own)
    return {name[len(found):]: value for name, value in renamed.items() if name.startswith(found)}


def check_mismatch(own: Mapping[str, Tensor], weights: Mapping[str, Tensor], mismatch: Mismatch,
                   path: str | Path, strict: bool) -> None:
    """Refuse the weights of another architecture; see :func:`load_weights`. Raises ValueError."""
    lacks = [name for name in mismatch.missing if own[name].is_floating_point()]
    wrong = mismatch.different or lacks or extra_blocks(mismatch.unexpected, own)
    if mismatch.fitting == 0 or (strict and wrong):
        raise ValueError(refusal(path, own, weights, mismatch) + (
            ' To load what fits nevertheless, set checkpoint_strict=False.'
            if mismatch.fitting else ''))


def report_mismatch(mismatch: Mismatch, count: int, path: str | Path) -> WeightReport:
    """Log what did not match, where there is something, and return it."""
    report = WeightReport(mismatch.missing, mismatch.unexpected, mismatch.different)
    if any(report):
        print_log(f'{path}: {mismatch.fitting} of {count} weights loaded. '
                  f'Missing: {some(report.missing)} Unexpected: {some(report.unexpected)} '
                  f'Of another shape: {some(report.different)}',
                  logger='current', level=logging.WARNING)
    return report
