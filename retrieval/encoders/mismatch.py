"""What differs between the weights of a model and those of a file, and what that is likely to mean.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .weight_files import some

_CLASSIFIERS = {'fc', 'head', 'heads', 'classifier', 'cls_head', 'W', 'proxies'}
_AVERAGES = ('ema', 'averaged', 'teacher', 'momentum')


class Mismatch(NamedTuple):
    """What does not match, by the model's names.

    Args:
        missing: weights of the model that the file has not.
        unexpected: weights of the file that the model has not.
        different: weights that both have in different shapes.
        fitting: how many of the model's weights the file has in their shape.
    """

    missing: list[str]
    unexpected: list[str]
    different: list[str]
    fitting: int


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
            ignore: Iterable[str] = ()) -> Mismatch:
    """Hold a file's weights against a model's; names of the file that begin with one of
    ``ignore`` are not counted as unexpected.
    """
    ignored = tuple(ignore)
    different = [name for name, value in own.items()
                 if name in given and given[name].shape != value.shape]
    missing = [name for name in own if name not in given]
    return Mismatch(missing,
                    [name for name in given if name not in own and not name.startswith(ignored)],
                    different, len(own) - len(missing) - len(different))


def find_prefix(given: Iterable[str], own: Iterable[str]) -> str:
    """The beginning without which most of the given names are among the model's; the shortest
    where several do equally well.
    """
    wanted = set(own)
    counts: Counter[str] = Counter()
    for name in given:
        parts = name.split('.')
        for at in range(len(parts)):
            if '.'.join(parts[at:]) in wanted:
                counts[''.join(f'{part}.' for part in parts[:at])] += 1
    return min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default='')


def extra_blocks(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Numbered modules among ``names`` that ``known`` has not, where it has others of the row:
    ``layer3.6`` where it ends with ``layer3.5``.
    """
    rows = set()
    modules = set()
    for name in known:
        parts = name.split('.')[:-1]
        for at, part in enumerate(parts):
            modules.add('.'.join(parts[:at + 1]))
            if part.isdigit():
                rows.add('.'.join(parts[:at]))
    found: dict[str, None] = {}
    for name in names:
        parts = name.split('.')[:-1]
        new = next((at for at in range(len(parts))
                    if '.'.join(parts[:at + 1]) not in modules), None)
        if new is not None and parts[new].isdigit() and '.'.join(parts[:new]) in rows:
            found['.'.join(parts[:new + 1])] = None
    return list(found)


def refusal(path: str | Path, own: Mapping[str, Tensor], given: Mapping[str, Tensor],
            mismatch: Mismatch, whose: str = 'this model') -> str:
    """One message: what is missing, unexpected and of another shape, and the likely cause."""
    shapes = [f'{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}'
              for name in mismatch.different]
    return (f'{str(path)!r} is not a checkpoint of {whose}: {mismatch.fitting} of {len(own)} '
            f'weights fit. Missing: {some(mismatch.missing, 4)} '
            f'Unexpected: {some(mismatch.unexpected, 4)} '
            f'Of another shape (in the file, for the model): {some(shapes, 4)} '
            f'Likely cause: {likely_cause(own, given, mismatch)}')


def likely_cause(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                 mismatch: Mismatch) -> str:
    """Why weights do not fit, as far as names and shapes tell."""
    return (_other_beginning(own, given, mismatch) or _other_depth(own, given, mismatch)
            or _other_shapes(own, given, mismatch)
            or ('it is of another architecture, or its names are those of another library, which '
                'key_mapping can translate.' if mismatch.fitting == 0 else
                'it is of another variant of the architecture.'))


def _other_beginning(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                     mismatch: Mismatch) -> str | None:
    prefix = find_prefix(given, own)
    if prefix and sum(prefix + name in given for name in own) > len(own) - len(mismatch.missing):
        kind = ('an average of the weights' if any(word in prefix for word in _AVERAGES) else
                'a wrapper for several processes' if prefix.startswith('module.') else
                'a whole retriever' if prefix.startswith('image_encoder.') else 'a larger model')
        return (f'the names begin with {prefix!r} in the file, as those of {kind}; '
                f'remove it, by checkpoint_prefix={prefix!r} where a part of a config names the '
                'file.')
    part = find_prefix(own, given)
    if part and sum(part + name in own for name in given) > mismatch.fitting:
        return (f'it holds the weights of {part.rstrip(".")!r} alone; give it to that part, as '
                'backbone=dict(type=…, checkpoint=…).')
    return None


def _other_depth(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                 mismatch: Mismatch) -> str | None:
    more, fewer = extra_blocks(mismatch.unexpected, own), extra_blocks(mismatch.missing, given)
    if not more and not fewer:
        return None
    parts = ([f'has blocks that the model has not ({some(more, 3)[:-1]})'] if more else []) + (
        [f'lacks blocks of the model ({some(fewer, 3)[:-1]})'] if fewer else [])
    return f'another depth of the architecture: the file {" and ".join(parts)}.'


def _other_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                  mismatch: Mismatch) -> str | None:
    different = mismatch.different
    if not different:
        return None
    if all(_CLASSIFIERS & set(name.split('.')) for name in different):
        there, here = given[different[0]].shape, own[different[0]].shape
        sizes = [(a, b) for a, b in zip(there, here, strict=False) if a != b]
        return (f'another number of classes: {sizes[0][0]} there and {sizes[0][1]} here; set '
                'num_classes to that of the checkpoint.' if sizes else 'another classifier.')
    if all('pos' in name for name in different):
        return 'another image size or patch size: set img_size (image_size) to that of the file.'
    if all('projection' in name for name in different):
        return 'another width of the projection.'
    return 'another width of the architecture, or another backbone of the family.'
