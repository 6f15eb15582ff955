"""The configs that come with the package, by their names.

In a clone they are the folder ``configs``, in an installation ``retrieval/configs``. A name is the
path in there without the ending: ``arcface/resnet50-arcface_100e_inshop``.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Iterable
from pathlib import Path

from mmengine.config import Config

from ..registry import nearest_names

_SCOPE = 'retrieval::'


def shipped_folder() -> Path:
    """The folder of the shipped configs.

    Raises:
        FileNotFoundError: the installation has none.

    Example:
        >>> (shipped_folder() / '_base_' / 'default_runtime.py').is_file()
        True
    """
    package = Path(__file__).parents[1]
    for folder in (package / 'configs', package.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder
    raise FileNotFoundError(f'This installation in {str(package)!r} has no configs. Install the '
                            'package anew, or name a config by its path.')


def config_names() -> list[str]:
    """The names of the shipped configs, without the bases that they are made of.

    Example:
        >>> 'arcface/resnet50-arcface_100e_inshop' in config_names()
        True
    """
    folder = shipped_folder()
    return sorted(path.relative_to(folder).with_suffix('').as_posix()
                  for path in folder.rglob('*.py') if '_base_' not in path.parts)


def is_config_name(name: str) -> bool:
    """True for a name in one of the folders of shipped configs, though it be mistyped.

    Example:
        >>> is_config_name('arcface/mistyped'), is_config_name('somebody/model')
        (True, False)
    """
    folder = os.path.dirname(_plain(name))
    return bool(folder) and (shipped_folder() / folder).is_dir()


def find_config(given: str | os.PathLike[str]) -> str:
    """The path of a config: a file of one's own, else a shipped one by its name.

    Args:
        given: a path, or a name with or without its folder, ``configs/`` and ``.py``.

    Raises:
        FileNotFoundError: there is neither; the message has the nearest names.

    Example:
        >>> find_config('resnet50-arcface_100e_inshop') == str(
        ...     shipped_folder() / 'arcface' / 'resnet50-arcface_100e_inshop.py')
        True
    """
    path = os.path.expanduser(given)
    if os.path.exists(path):
        return path
    if not os.path.isabs(path):
        name = _plain(path)
        folder = shipped_folder()
        file = folder / f'{name}.py'
        if file.is_file() and folder.resolve() in file.resolve().parents:
            return str(file)
        named = [one for one in config_names() if one.rpartition('/')[2] == name]
        if len(named) == 1:
            return str(folder / f'{named[0]}.py')
    raise FileNotFoundError(missing(path))


def _plain(name: str) -> str:
    name = os.path.normpath(name.removeprefix(_SCOPE)).replace(os.sep, '/')
    return name.removeprefix('configs/').removesuffix('.py')


def missing(path: str) -> str:
    """The message for a config that is not there: the nearest files beside it, else the nearest
    names of shipped ones.

    Example:
        >>> missing('arcface/resnet50-arcface_100e_inshp').partition(' Did')[2][:30]
        " you mean 'arcface/resnet50-ar"
    """
    if os.path.isdir(path):
        return (f'{path!r} is a folder, and no config.'
                + _suggest(map(str, sorted(Path(path).glob('*.py'))[:3])))
    folder = Path(path).parent
    beside = sorted(map(str, folder.glob('*.py'))) if folder.is_dir() else []
    near = nearest_names(path, beside, alike=0.6)
    if not near:
        names = config_names()
        stems = {name.rpartition('/')[2]: name for name in names}
        near = nearest_names(_plain(path), names, alike=0.6) or [
            stems[stem] for stem in nearest_names(Path(_plain(path)).name, stems)]
    return (f'There is no config {path!r}.' + _suggest(near)
            + ' `retrieval configs` lists the shipped ones.')


def _suggest(near: Iterable[str]) -> str:
    names = ' or '.join(map(repr, near))
    return f' Did you mean {names}?' if names else ''


def with_bases(path: str | os.PathLike[str]) -> list[Path]:
    """A config's file and those that it inherits, at any depth, each once.

    Example:
        >>> [file.name for file in with_bases(find_config('resnet50-ms_20e_csv'))][:2]
        ['resnet50-ms_20e_csv.py', 'fine_tuning_resnet50.py']
    """
    found, waiting = [], [Path(path)]
    while waiting:
        file = waiting.pop(0).resolve()
        if file not in found:
            found.append(file)
            waiting += [Path(Config._get_cfg_path(base, str(file))[0])
                        for base in Config._get_base_files(str(file))]
    return found


def _mend_bases() -> None:
    """Let ``_base_ = 'retrieval::NAME'`` mean a shipped config. The engine looks for those of
    other packages with pkg_resources, which setuptools has dropped, and knows a list of packages.
    """
    of_engine = Config._get_cfg_path

    @functools.wraps(of_engine)
    def path_of_base(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(_SCOPE):
            return find_config(cfg_path), None
        return of_engine(cfg_path, filename)

    Config._get_cfg_path = staticmethod(path_of_base)


_mend_bases()
