"""Weights from local files, with a report of what did not match."""
from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'state_dict_ema', 'model_ema')


class WeightReport(NamedTuple):
    """What did not match when weights were loaded.

    Args:
        missing: names that the module has and the file has not; they keep their values.
        unexpected: names that the file has and the module has not, without those ignored.
    """

    missing: list[str]
    unexpected: list[str]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a checkpoint of torch, by name, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or something that cannot be read safely.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'There is no weight file {str(path)!r}.')
    if path.suffix == '.safetensors':
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{str(path)!r} is no safetensors file: {error}.') from error
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, UnicodeDecodeError) as error:
        reason = str(error).strip().split('\n')[0]
        raise ValueError(f'{str(path)!r} is no weight file that can be read safely ({reason}). '
                         'Save a dict of tensors, as torch.save(model.state_dict(), path) or as '
                         '.safetensors.') from error
    return _unwrap(content, path)


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS
                      if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)
               } if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f'{str(path)!r} holds no named tensors, so it is no weight file.')
    return tensors


def load_weights(module: nn.Module, path: str | Path,
                 ignore: Sequence[str] = ()) -> WeightReport:
    """Load a module's weights from a local file.

    A prefix that the names carry in the file (``module.``, ``backbone.``) is found and removed.

    Args:
        module: filled in place.
        path: ``.safetensors``, or a checkpoint of torch that loads with ``weights_only``.
        ignore: beginnings of names in the file that are left out without mention, such as those
            of a classifier that the module has not.

    Returns:
        What did not match; it is logged as a warning as well.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no name matches, or a shape differs: these are other weights.
    """
    weights = read_weights(path)
    own = module.state_dict()
    prefix = _prefix(weights, own)
    weights = {name[len(prefix):]: value for name, value in weights.items()
               if name.startswith(prefix)}
    _check_match(weights, own, path)
    missing, unexpected = module.load_state_dict(weights, strict=False)
    report = WeightReport(
        list(missing),
        [name for name in unexpected if not name.startswith(tuple(ignore) or ('\0',))])
    if report.missing or report.unexpected:
        print_log(f'{path}: {len(own) - len(report.missing)} of {len(own)} weights loaded. '
                  f'Missing: {_some(report.missing)}. Unexpected: {_some(report.unexpected)}.',
                  logger='current', level=logging.WARNING)
    return report


def _prefix(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """The beginning of the file's names without which most of them are the module's."""
    first = next(iter(own), '')
    prefixes = {name[:-len(first)] for name in weights if first and name.endswith(first)} | {''}

    def matches(prefix: str) -> int:
        return sum(prefix + name in weights for name in own)

    return max(sorted(prefixes, key=len), key=matches)


def _check_match(weights: Mapping[str, Tensor], own: Mapping[str, Tensor],
                 path: str | Path) -> None:
    common = [name for name in own if name in weights]
    if not common:
        raise ValueError(f'No weight in {str(path)!r} fits: it has {_some(list(weights))}, the '
                         f'model wants {_some(list(own))}. Is it of another architecture?')
    different = [f'{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}'
                 for name in common if weights[name].shape != own[name].shape]
    if different:
        raise ValueError(f'The weights in {str(path)!r} have other shapes than the model: '
                         f'{_some(different)}. Are they of another size of the architecture?')


def _some(names: Sequence[str], how_many: int = 8) -> str:
    """A list for people: the first names, and how many there are."""
    listed = ', '.join(names[:how_many]) or 'none'
    return listed + (f', … ({len(names)} in all)' if len(names) > how_many else '')
