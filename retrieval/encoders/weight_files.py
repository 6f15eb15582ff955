"""Reading weights from local files, without running what else may be in them."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

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
