"""Weights from local files into a model, without running what else may be in the files.

A file is read without unpickling code, its names are translated, and it is held against the model:
another architecture is refused with the likely cause, and what did not match is reported.
"""
from __future__ import annotations

import logging
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..files import kind_of_file
from ..foreign_files import refuse_oversized, refuse_special
from ..registry import unknown_name

KeyMapping = Mapping[str, str] | Sequence[Sequence[str]]

_WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'state_dict_ema', 'model_ema')
# The state of training, and MMEngine's weights that were not averaged
_NO_WEIGHTS = {'optimizer', 'optimizers', 'optimizer_states', 'optim', 'ema_state_dict', 'scaler',
               'hyper_parameters'}
_CLASSIFIERS = {'fc', 'head', 'heads', 'classifier', 'cls_head', 'W', 'proxies'}
_AVERAGES = ('ema', 'averaged', 'teacher', 'momentum')
# Settings that training scripts leave beside the weights. They are read as dicts and objects
# without code, also where their package is not installed.
_DICTS = ('easydict.EasyDict', 'yacs.config.CfgNode', 'addict.addict.Dict',
          'mmcv.utils.config.ConfigDict', 'pytorch_lightning.utilities.parsing.AttributeDict',
          'lightning_fabric.utilities.data.AttributeDict',
          'lightning.fabric.utilities.data.AttributeDict')
_OBJECTS = ('argparse.Namespace', 'types.SimpleNamespace', 'pathlib.Path', 'pathlib.PosixPath',
            'pathlib.WindowsPath', 'pathlib.PurePosixPath', 'datetime.datetime',
            'datetime.timedelta', 'typing.Any', 'omegaconf.base.ContainerMetadata',
            'omegaconf.base.Metadata', 'omegaconf.dictconfig.DictConfig',
            'omegaconf.listconfig.ListConfig', 'omegaconf.nodes.AnyNode',
            'pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint')


class _Ignored:
    """Takes the place of an object, whatever it is made of, and keeps nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    def __new__(cls, *args: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


_STAND_INS: list[Any] = [*((OrderedDict, name) for name in _DICTS),
                         *((_Ignored, name) for name in _OBJECTS)]


@dataclass(frozen=True)
class Checkpoint:
    """A local weight file, and how its names become those of a model.

    Components take it as their ``checkpoint``: a path alone, or a dict of these.

    Args:
        path: ``.safetensors``, or a checkpoint of torch that loads with ``weights_only``.
        prefix: only names that begin with it are taken, and it is removed (``teacher.``); it also
            names a level of a nested file. A beginning that the model's names carry in the file
            (``module.``, ``backbone.``, ``net.``, ``image_encoder.backbone.``) is found; the empty
            string says that there is none.
        key_mapping: pairs of a regular expression and what replaces each place where it is found
            (:func:`re.sub`), applied in turn, after ``prefix``: a dict or a list of pairs.
        strict: refuse a file that lacks a weight of the model (integer buffers do not count), that
            has one in another shape, or that has further numbered blocks, as a deeper model of the
            family has. Otherwise what fits is loaded, and the rest is listed.

    Example:
        >>> Checkpoint.of(dict(path='b0.safetensors', prefix='teacher.')).strict
        True
    """

    path: str | os.PathLike[str]
    prefix: str | None = None
    key_mapping: KeyMapping | None = None
    strict: bool = True

    @classmethod
    def of(cls, given: Any) -> Checkpoint:
        """From a path, a dict of the arguments, or as it is.

        Raises:
            ValueError: a dict without ``path``, or with another key.
            TypeError: it is none of these.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, (str, os.PathLike)):
            return cls(given)
        if not isinstance(given, Mapping):
            raise TypeError("checkpoint must be a path, or dict(path=…, prefix=…, key_mapping=…, "
                            f'strict=…), got {given!r}.')
        valid = [field.name for field in fields(cls)]
        for key in given:
            if key not in valid:
                raise ValueError(unknown_name('key of checkpoint', key, valid))
        if 'path' not in given:
            raise ValueError(f'checkpoint has no path, it has only {sorted(given)}: give '
                             'dict(path=…, …).')
        return cls(**given)

    def weights_for(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The file's weights under the names of a model, whose own are given by name.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no weight file, ``prefix`` or ``key_mapping`` match nothing, or
                several parts of the file fit equally well.
            TypeError: ``key_mapping`` is of another type.
        """
        renamed = _rename(read_weights(self.path), self.path, self.prefix, self.key_mapping)
        found = '' if self.prefix == '' else self._beginning(renamed, own)
        return {name[len(found):]: value for name, value in renamed.items()
                if name.startswith(found)}

    def _beginning(self, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
        best = _best_prefixes(given, own)
        if len(best) > 1:
            fits = {prefix: sum(prefix + name in given and given[prefix + name].shape == value.shape
                                for name, value in own.items()) for prefix in best}
            best = [prefix for prefix in best if fits[prefix] == max(fits.values())]
        if len(best) > 1:  # a retriever keeps its momentum encoder beside its own
            best = [prefix for prefix in best if prefix.startswith('image_encoder.')] or best
        if len(best) > 1:
            before = self.prefix or ''
            raise ValueError(
                f'{str(self.path)!r} holds several parts that fit equally well, whose names begin '
                f'with {_some([before + prefix for prefix in best])[:-1]}: choose one, as '
                f'checkpoint=dict(path=…, prefix={before + best[-1]!r}).')
        return best[0]

    def check(self, own: Mapping[str, Tensor], weights: Mapping[str, Tensor],
              report: WeightReport) -> None:
        """Refuse the weights of another architecture.

        Raises:
            ValueError: none fits, or ``strict`` and not all do; the message lists what is missing,
                unexpected and of another shape, and the likely cause.
        """
        if report.fitting == 0 or (self.strict and report.is_of_another_model(own)):
            raise ValueError(refusal(self.path, own, weights, report) + (
                ' To load what fits nevertheless, set strict=False: checkpoint=dict(path=…, '
                'strict=False).' if report.fitting else ''))


class WeightReport(NamedTuple):
    """How the weights of a file match those of a model, by the model's names.

    Args:
        missing: weights of the model that the file has not; they keep their values.
        unexpected: weights of the file that the model has not, without those ignored.
        different: weights that both have in different shapes; the model's keep their values.
        fitting: how many of the model's weights the file has in their shape.
    """

    missing: list[str]
    unexpected: list[str]
    different: list[str]
    fitting: int

    def is_of_another_model(self, own: Mapping[str, Tensor]) -> bool:
        """True where more differs than integer buffers and weights of other parts."""
        return bool(self.different or extra_blocks(self.unexpected, own)
                    or [name for name in self.missing if own[name].is_floating_point()])

    def log(self, path: str | os.PathLike[str], count: int) -> None:
        """Warn of what did not match, where there is something, of ``count`` weights."""
        if self.missing or self.unexpected or self.different:
            print_log(f'{path}: {self.fitting} of {count} weights loaded. '
                      f'Missing: {_some(self.missing)} Unexpected: {_some(self.unexpected)} '
                      f'Of another shape: {_some(self.different)}',
                      logger='current', level=logging.WARNING)


def load_weights(module: nn.Module, checkpoint: Any, ignore: Sequence[str] = ()) -> WeightReport:
    """Load a module's weights from a local file.

    Args:
        module: filled in place.
        checkpoint: a path, or what :class:`Checkpoint` takes.
        ignore: beginnings of names in the file that are left out without mention, such as those
            of a classifier that the module has not.

    Returns:
        How the weights match; what does not is logged as a warning as well.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no weight file; ``prefix`` or ``key_mapping`` match nothing; or
            these are other weights, and the message lists what is missing, unexpected and of
            another shape, and the likely cause.
        TypeError: ``key_mapping`` is of another type.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(2, 3).state_dict(), f'{folder}/layer.pth')
        ...     load_weights(nn.Linear(2, 3), f'{folder}/layer.pth').fitting
        2
    """
    chosen = Checkpoint.of(checkpoint)
    weights = chosen.weights_for(module.state_dict())
    make_room(module, weights)
    own = module.state_dict()
    report = compare(own, weights, ignore)
    chosen.check(own, weights, report)
    fill(module, own, weights, report)
    report.log(chosen.path, len(own))
    return report


def make_room(module: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Let parts with state of any length, such as a tokenizer, take the length that is given."""
    for name, part in module.named_modules():
        if hasattr(part, 'make_room'):
            part.make_room(given, f'{name}.' if name else '')


def fill(module: nn.Module, own: Mapping[str, Tensor], weights: Mapping[str, Tensor],
         report: WeightReport) -> None:
    """Put the weights that fit into a module, whose own are given by name."""
    different = set(report.different)
    module.load_state_dict({name: value for name, value in weights.items()
                            if name in own and name not in different}, strict=False)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a checkpoint of torch, by name, on the CPU.

    Which of the two it is, its first bytes say, not its name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no weights, or something that cannot be read safely.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({'state_dict': {'fc.weight': torch.zeros(2, 3)}}, f'{folder}/a.pth')
        ...     list(read_weights(f'{folder}/a.pth'))
        ['fc.weight']
    """
    path = Path(path)
    refuse_special(path)
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
    raise ValueError(f'{str(path)!r} is {wanted}: {_describe(start, path)}. A weight file is '
                     'written by safetensors, or by torch.save(model.state_dict(), path).')


def _describe(start: bytes, path: Path) -> str:
    """The likely kind of a file that is no weight file seems to be, by its first bytes."""
    text = start.lstrip().lower()
    if not start:
        return 'it is empty'
    if text.startswith((b'<!doctype', b'<html', b'<?xml', b'<head')):
        return 'it is a web page, as a download that failed or wanted a login leaves it'
    if text.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS, in whose place `git lfs pull` puts the file'
    if all(byte in b'\t\n\r' or 32 <= byte < 127 for byte in start):
        return f'it is a text, which begins with {start[:40].decode()!r}'
    return f'its first bytes are of neither format: it seems to be {kind_of_file(path)}'


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


def _stand_ins() -> AbstractContextManager[Any]:
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 6):  # such files are refused there
        return nullcontext()
    return torch.serialization.safe_globals(_STAND_INS)


def _unpickle(path: Path) -> object:
    refuse_oversized(path)
    try:
        with path.open('rb') as file, _stand_ins():
            # by its path torch would judge it by its suffix
            return torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged archive or pickle may raise anything
        # torch's own text advises to load without the restriction, which nobody should follow.
        named = re.search(r'Unsupported global: GLOBAL (\S+)', str(error))
        first = str(error).strip().split('\n')[0]
        reason = (f'it names {named[1]}, and objects other than tensors could run code' if named
                  else f'it seems to be {kind_of_file(path)}, and is damaged, only a part, or '
                  'something else'
                  + ('' if 'weights_only' in first or not first else f': {first}'))
        raise ValueError(
            f'{str(path)!r} is no weight file that can be read safely ({reason}). Save a dict of '
            'tensors, as torch.save(model.state_dict(), path) or as .safetensors.') from error


def _unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name; those of a deeper level begin with its key.

    A level that is known to hold the weights is entered, unless there are two (as ``model`` and
    ``model_ema``).
    """
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inner) != 1:
            break
        content = inner[0]
    tensors = dict(_flattened(content, '')) if isinstance(content, Mapping) else {}
    if not tensors:
        keys = [repr(key) for key in content] if isinstance(content, Mapping) else []
        raise ValueError(f'{str(path)!r} holds no named tensors, so it is no weight file'
                         + (f'; it holds {_some(keys)}' if keys else '.'))
    return tensors


def _flattened(content: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            yield before + name, value
        elif isinstance(name, str) and isinstance(value, Mapping) and name not in _NO_WEIGHTS:
            yield from _flattened(value, f'{before}{name}.')


def _rename(weights: Mapping[str, Tensor], path: str | os.PathLike[str], prefix: str | None = None,
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
            raise ValueError(f'No weight in {str(path)!r} begins with {prefix!r}. The names begin '
                             f'with {_some(_beginnings(weights))}')
        if all(name[len(prefix):].startswith('.') for name in names):
            prefix += '.'
    target = {name: name[len(prefix or ''):] for name in names}
    for pattern, replacement in _pairs(key_mapping):
        try:
            changed = {name: re.sub(pattern, replacement, new) for name, new in target.items()}
        except (re.error, IndexError) as error:
            raise ValueError(f'key_mapping has {pattern!r} to {replacement!r}, which is no regular '
                             f'expression with its replacement: {error}.') from error
        if not any(re.search(pattern, new) for new in target.values()):
            raise ValueError(f'key_mapping has {pattern!r}, which is found in no name of '
                             f'{str(path)!r}, as {_some(list(target.values()))}')
        target = changed
    _check_distinct(target, path)
    return {new: weights[name] for name, new in target.items()}


def _beginnings(names: Iterable[str]) -> list[str]:
    return sorted({f'{name.split(".")[0]}.' for name in names})


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


def _check_distinct(target: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    taken: dict[str, str] = {}
    for name, new in target.items():
        if new in taken:
            raise ValueError(f'key_mapping gives {taken[new]!r} and {name!r} of {str(path)!r} the '
                             f'same name {new!r}.')
        taken[new] = name


def _some(names: Sequence[str], how_many: int = 8) -> str:
    """A list for people: the first names, and how many there are; it ends the sentence."""
    listed = ', '.join(names[:how_many]) or 'none'
    return listed + (f', … ({len(names)} in all)' if len(names) > how_many else '') + '.'


def compare(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
            ignore: Iterable[str] = ()) -> WeightReport:
    """Hold a file's weights against a model's; names of the file that begin with one of
    ``ignore`` are not counted as unexpected.
    """
    ignored = tuple(ignore)
    different = [name for name, value in own.items()
                 if name in given and given[name].shape != value.shape]
    missing = [name for name in own if name not in given]
    return WeightReport(missing,
                    [name for name in given if name not in own and not name.startswith(ignored)],
                    different, len(own) - len(missing) - len(different))


def find_prefix(given: Iterable[str], own: Iterable[str]) -> str:
    """The beginning without which most of the given names are among the model's; the shortest
    where several do equally well.
    """
    return _best_prefixes(given, own)[0]


def _best_prefixes(given: Iterable[str], own: Iterable[str]) -> list[str]:
    """The beginnings without which most names are among the model's, the shortest first."""
    wanted = set(own)
    counts: Counter[str] = Counter()
    for name in given:
        parts = name.split('.')
        for at in range(len(parts)):
            if '.'.join(parts[at:]) in wanted:
                counts[''.join(f'{part}.' for part in parts[:at])] += 1
    most = max(counts.values(), default=0)
    return sorted((prefix for prefix in counts if counts[prefix] == most), key=len) or ['']


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


def refusal(path: str | os.PathLike[str], own: Mapping[str, Tensor], given: Mapping[str, Tensor],
            report: WeightReport, whose: str = 'this model') -> str:
    """One message: what is missing, unexpected and of another shape, and the likely cause."""
    shapes = [f'{name} {tuple(given[name].shape)} for {tuple(own[name].shape)}'
              for name in report.different]
    return (f'{str(path)!r} is not a checkpoint of {whose}: {report.fitting} of {len(own)} '
            f'weights fit. Missing: {_some(report.missing, 4)} '
            f'Unexpected: {_some(report.unexpected, 4)} '
            f'Of another shape (in the file, for the model): {_some(shapes, 4)} '
            f'Likely cause: {likely_cause(own, given, report)}')


def likely_cause(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                 report: WeightReport) -> str:
    """Why weights do not fit, as far as names and shapes tell."""
    return (_other_beginning(own, given, report) or _other_depth(own, given, report)
            or _other_shapes(own, given, report)
            or ('it is of another architecture, or its names, which begin with '
                f'{_some(_beginnings(given))[:-1]}, are those of another library, which '
                'key_mapping can translate.' if report.fitting == 0 else
                'it is of another variant of the architecture.'))


def _other_beginning(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                     report: WeightReport) -> str | None:
    prefix = find_prefix(given, own)
    if prefix and sum(prefix + name in given for name in own) > len(own) - len(report.missing):
        kind = ('an average of the weights' if any(word in prefix for word in _AVERAGES) else
                'a wrapper for several processes' if prefix.startswith('module.') else
                'a whole retriever' if prefix.startswith('image_encoder.') else 'a larger model')
        return (f'the names begin with {prefix!r} in the file, as those of {kind}; '
                f'remove it, by checkpoint=dict(path=…, prefix={prefix!r}) where a part of a '
                'config names the file.')
    part = find_prefix(own, given)
    if part and sum(part + name in own for name in given) > report.fitting:
        return (f'it holds the weights of {part.rstrip(".")!r} alone; give it to that part, as '
                'backbone=dict(type=…, checkpoint=…).')
    return None


def _other_depth(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                 report: WeightReport) -> str | None:
    more, fewer = extra_blocks(report.unexpected, own), extra_blocks(report.missing, given)
    if not more and not fewer:
        return None
    parts = ([f'has blocks that the model has not ({_some(more, 3)[:-1]})'] if more else []) + (
        [f'lacks blocks of the model ({_some(fewer, 3)[:-1]})'] if fewer else [])
    return f'another depth of the architecture: the file {" and ".join(parts)}.'


def _other_shapes(own: Mapping[str, Tensor], given: Mapping[str, Tensor],
                  report: WeightReport) -> str | None:
    different = report.different
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
