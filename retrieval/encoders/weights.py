"""Reading weights from local files, without running what else may be in them.

What differs between the weights of a model and those of a file, and what that is likely to mean.

Weights from local files into a model, with a report of what did not match.
"""
from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

KeyMapping = Mapping[str, str] | Sequence[Sequence[str]]

_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'state_dict_ema', 'model_ema')


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a checkpoint of torch, by name, on the CPU.

    Which of the two it is, its first bytes say, not its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or something that cannot be read safely.
    """
    path = Path(path)
    if not path.is_file():
        is_folder = ', which is a folder' if path.is_dir() else ''
        raise FileNotFoundError(f'There is no weight file {str(path)!r}{is_folder}.')
    with path.open('rb') as file:
        start = file.read(512)
    # safetensors: the header's length in eight bytes, then the header, which is JSON.
    if start[6:9] == b'\0\0{':
        return _read_safetensors(path)
    if start[:2] == b'PK' or start[:1] == b'\x80':
        return _unwrap(_unpickle(path), path)
    wanted = ('no safetensors file' if path.suffix == '.safetensors' else
              'no weight file that can be read safely')
    raise ValueError(f'{str(path)!r} is {wanted}: {_describe(start)}. A weight file is written by '
                     'safetensors, or by torch.save(model.state_dict(), path).')


def _describe(start: bytes) -> str:
    """What a file that is no weight file seems to be, by its first bytes."""
    text = start.lstrip().lower()
    if not start:
        return 'it is empty'
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'it is a web page, as a download that failed or wanted a login leaves it'
    if text.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS, in whose place `git lfs pull` puts the file'
    if all(byte in b'\t\n\r' or 32 <= byte < 127 for byte in start):
        return f'it is a text, which begins with {start[:40].decode()!r}'
    return 'its first bytes are of neither format'


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f'{str(path)!r} is no safetensors file, or only a part of one: {error}. '
                         'Fetch or write it again.') from error
    if not weights:
        raise ValueError(f'{str(path)!r} holds no named tensors, so it is no weight file.')
    return weights


def _unpickle(path: Path) -> object:
    try:
        with path.open('rb') as file:  # by its path torch would judge it by its suffix
            return torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged archive or pickle may raise anything
        # torch's own text advises to load without the restriction, which nobody should follow.
        named = re.search(r'Unsupported global: GLOBAL (\S+)', str(error))
        first = str(error).strip().split('\n')[0]
        reason = (f'it names {named[1]}, and objects other than tensors could run code' if named
                  else 'it is damaged, only a part, or something else'
                  + ('' if 'weights_only' in first or not first else f': {first}'))
        raise ValueError(
            f'{str(path)!r} is no weight file that can be read safely ({reason}). Save a dict of '
            'tensors, as torch.save(model.state_dict(), path) or as .safetensors.') from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS
                      if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {name: value for name, value in content.items()
               if isinstance(name, str) and isinstance(value, Tensor)
               } if isinstance(content, Mapping) else {}
    if not tensors:
        raise ValueError(f'{str(path)!r} holds no named tensors, so it is no weight file.')
    return tensors


def rename(weights: Mapping[str, Tensor], path: str | Path, prefix: str | None = None,
           key_mapping: KeyMapping | None = None) -> dict[str, Tensor]:
    """The weights under the names that a model has for them.

    Args:
        weights: tensors by their names in the file.
        path: the file, for messages.
        prefix: only names that begin with it are kept, and it is removed; None keeps all.
        key_mapping: pairs of a regular expression and what replaces each place where it is found
            (:func:`re.sub`), applied in turn, after ``prefix``: a dict or a list of pairs.

    Raises:
        TypeError: ``key_mapping`` is neither a dict nor a list of pairs of strings.
        ValueError: no name begins with ``prefix``, an expression is none or is found in no name,
            or two weights get the same name.
    """
    names = list(weights)
    if prefix:
        names = [name for name in names if name.startswith(prefix)]
        if not names:
            begins = sorted({f'{name.split(".")[0]}.' for name in weights})
            raise ValueError(f'No weight in {str(path)!r} begins with {prefix!r}. The names begin '
                             f'with {some(begins)}')
    target = {name: name[len(prefix or ''):] for name in names}
    for pattern, replacement in _pairs(key_mapping):
        try:
            changed = {name: re.sub(pattern, replacement, new) for name, new in target.items()}
        except (re.error, IndexError) as error:
            raise ValueError(f'key_mapping has {pattern!r} to {replacement!r}, which is no regular '
                             f'expression with its replacement: {error}.') from error
        if not any(re.search(pattern, new) for new in target.values()):
            raise ValueError(f'key_mapping has {pattern!r}, which is found in no name of '
                             f'{str(path)!r}, as {some(list(target.values()))}')
        target = changed
    _check_distinct(target, path)
    return {new: weights[name] for name, new in target.items()}


def _pairs(key_mapping: KeyMapping | None) -> list[tuple[str, str]]:
    if key_mapping is None:
        return []
    pairs = list(key_mapping.items() if isinstance(key_mapping, Mapping) else key_mapping)
    if isinstance(key_mapping, str) or not all(
            isinstance(pair, (tuple, list)) and len(pair) == 2
            and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise TypeError('key_mapping must be a dict or a list of pairs (regular expression, '
                        f"replacement), as {{r'^blocks': 'layers'}}, got {key_mapping!r}.")
    return [(pattern, replacement) for pattern, replacement in pairs]


def _check_distinct(target: Mapping[str, str], path: str | Path) -> None:
    taken: dict[str, str] = {}
    for name, new in target.items():
        if new in taken:
            raise ValueError(f'key_mapping gives {taken[new]!r} and {name!r} of {str(path)!r} the '
                             f'same name {new!r}.')
        taken[new] = name


def some(names: Sequence[str], how_many: int = 8) -> str:
    """A list for people: the first names, and how many there are; it ends the sentence."""
    listed = ', '.join(names[:how_many]) or 'none'
    return listed + (f', … ({len(names)} in all)' if len(names) > how_many else '') + '.'


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
