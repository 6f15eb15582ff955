"""A bundle: an encoder with all that a search with it needs, as data, in the layout of a model on
the Hugging Face hub. `docs/bundles.md` lists its files.
"""
from __future__ import annotations

import json
import os
import re
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..foreign_files import DAMAGED_ARCHIVE, unpacked

FORMAT, VERSION = 'retrieval-bundle', 1
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'
GALLERY, CALIBRATION, INDEX = 'gallery.safetensors', 'calibration.json', 'index.safetensors'
FILES = (CONFIG, WEIGHTS, CARD, GALLERY, CALIBRATION, INDEX)
_MOST_JSON = 4_000_000  # bytes; a config has some thousands
_OF_FILES = ('.py', '.json', '.yaml', '.yml', '.zip', '.pth', '.pt', '.ckpt', '.bin',
             '.safetensors')  # mistyped paths of configs and checkpoints
_HUB_NAME = re.compile(r'[\w.-]+/[\w.-]+(@[\w./-]+)?')


@dataclass(frozen=True)
class Bundle:
    """An open bundle. Nothing in it is run: its config is data, from which only types of this
    package are built.

    Attributes:
        folder: where its files are; of an archive, a folder that lives as long as the process.
        manifest: the content of ``config.json``.
        name: what it was opened as.
        trust: build whatever its config names, and import what it wants imported.
    """

    folder: Path
    manifest: dict[str, Any]
    name: str
    trust: bool = False

    @classmethod
    def open(cls, source: str | os.PathLike[str], trust: bool = False) -> Bundle:
        """Open a folder, a ``.zip``, or a model on the Hugging Face hub.

        Args:
            source: a path, or ``owner/name`` or ``owner/name@revision`` on the hub, where there
                is no such path.
            trust: build whatever its config names; then it can run any code that is installed.

        Raises:
            FileNotFoundError: there is nothing of that name.
            ValueError: it is no bundle, or one of a later release.
            ConnectionError: the hub is not reached, and has it not in its cache.
            ImportError: for a name on the hub, ``huggingface_hub`` is missing.
        """
        name = os.fspath(source)
        folder = Path(name)
        if not folder.exists():
            if not is_hub_name(name):
                raise FileNotFoundError(f'There is no bundle {name!r}: give a folder or .zip that '
                                        '`retrieval bundle` wrote, or OWNER/NAME on the hub.')
            folder = _fetched(name)
        elif not folder.is_dir():
            if not is_bundle(folder):
                raise ValueError(f'{name!r} is no bundle: give a folder or .zip that `retrieval '
                                 'bundle` wrote.')
            folder = unpacked(folder, FILES)
        manifest = _read_manifest(folder, name)
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f'The bundle {name!r} is not whole: it has no {WEIGHTS}.')
        return cls(folder, manifest, name, trust)

    def file(self, name: str) -> Path | None:
        """The path of one of its files, None where it has no such file."""
        path = self.folder / name
        return path if path.is_file() else None

    @property
    def weights(self) -> Path:
        """The file of the encoder's weights."""
        return self.folder / WEIGHTS

    @property
    def config(self) -> Any:
        """The config, anew each time.

        Raises:
            ValueError: it names what data may not have built, and ``trust`` was not given.
        """
        from .carried_config import RefusedConfigError, carried_config

        try:
            return carried_config(json.dumps(self.manifest.get('retrieval')), self.trust)
        except RefusedConfigError as error:
            raise ValueError(
                f'The bundle {self.name!r} has {error.what}, and data may name only types of this '
                'package that read, fetch and write nothing. Where it is your own or of somebody '
                'whom you trust to run code here, give --trust (trust=True).') from error

    @property
    def pipeline(self) -> list[dict[str, Any]]:
        """The pipeline that images go through."""
        return _pipeline(self.config)

    def retriever(self, with_gallery: bool = False, device: Any = None, config: Any = None) -> Any:
        """The retriever, in evaluation mode.

        Args:
            with_gallery: it searches the bundle's gallery, by its index where there is one;
                otherwise it has no prototype.
            device: where it goes; by default a GPU where there is one.
            config: the bundle's with changes, such as other rerankers.

        Raises:
            ValueError: its weights or settings are not those that it was made with.
        """
        from ..gallery import Fingerprint
        from ..retrievers import build_retriever

        config = self.config if config is None else config
        prototype, index = self.file(GALLERY) if with_gallery else None, self.file(INDEX)
        if index is not None:
            config.model.index = dict(type='retrieval.FaissIndex', path=str(index)) \
                if prototype is not None else dict(type='retrieval.ExactIndex')
        model = build_retriever(config, self.weights, prototype, device)
        model.search_in(pipeline=_pipeline(config))
        made = Fingerprint.from_dict(self.manifest.get('fingerprint') or {})
        own = model.fingerprint()
        different = made.differences(own)
        if made.words and made.words != own.words:
            different.append('the text tower')
        if different:
            raise ValueError(f'The bundle {self.name!r} is damaged, or was changed since it was '
                             f'made: {" and ".join(different)} differ from its fingerprint.')
        return model

    def inferencer(self, prototype: Any = None, device: Any = None, config: Any = None,
                   **options: Any) -> Any:
        """The inferencer; see :func:`load` and :meth:`retriever`."""
        from ..search import ImageRetrievalInferencer

        if prototype is None and self.file(GALLERY) is None:
            raise ValueError(f'The bundle {self.name!r} holds no gallery: give what is to be '
                             'searched, such as a folder of images, as prototype= (on the command '
                             f'line: FOLDER … --encoder {self.name}).')
        if options.get('calibration') is None:
            options['calibration'] = self.file(CALIBRATION)
        model = self.retriever(prototype is None, device, config)
        if prototype is None:
            model.prepare_prototype()  # now, while the folder of an archive is there
        pipeline = _pipeline(self.config if config is None else config)
        return ImageRetrievalInferencer(model, prototype, pipeline=pipeline, **options)


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """True for the folder or the ``.zip`` of a bundle.

    Example:
        >>> is_bundle('no/such/folder')
        False
    """
    with suppress(OSError, ValueError, KeyError, *DAMAGED_ARCHIVE):
        if os.path.isdir(path):
            return _is_manifest(_read_json(Path(path) / CONFIG))
        if os.path.isfile(path) and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = archive.getinfo(CONFIG)
                return found.file_size <= _MOST_JSON and _is_manifest(
                    json.loads(archive.read(found)))
    return False


def is_hub_name(name: str) -> bool:
    """True for what may be a model on the hub: ``owner/name``, with ``@revision`` or without, where
    there is no such path, and which is not named as the shipped configs are.

    Example:
        >>> is_hub_name('somebody/glyphs@v2'), is_hub_name('configs/mine.py')
        (True, False)
    """
    if (_HUB_NAME.fullmatch(name) is None or os.path.exists(name)
            or name.lower().endswith(_OF_FILES)):
        return False
    from ..config.shipped import is_config_name
    return not is_config_name(name)


def load(source: str | os.PathLike[str], prototype: Any = None, *, trust: bool = False,
         device: Any = None, **options: Any) -> Any:
    """An inferencer from a bundle: a folder, a ``.zip``, or a model on the Hugging Face hub.

    Args:
        source: see :meth:`Bundle.open`.
        prototype: what is searched, as of :class:`retrieval.ImageRetrievalInferencer`; by default
            the bundle's own gallery.
        trust: build whatever the bundle's config names; then it can run any code that is
            installed here.
        device: where the model goes; by default a GPU where there is one.
        options: of the inferencer; ``calibration`` is by default the bundle's.

    Raises:
        FileNotFoundError, ValueError, ConnectionError, ImportError: see :meth:`Bundle.open`; or
            there is nothing to search: neither a gallery in the bundle nor a prototype.

    Example:
        >>> import numpy as np
        >>> from retrieval.runs.write_bundle import write_bundle
        >>> encoder = dict(type='ImageEncoder', backbone=dict(
        ...     type='TimmBackbone', model_name='test_resnet'))
        >>> steps = [dict(type='LoadImage'), dict(type='PackInputs')]
        >>> config = dict(model=dict(type='ImageToImageRetriever', image_encoder=encoder),
        ...               test_dataloader=dict(dataset=dict(pipeline=steps)))
        >>> _ = write_bundle('my_bundle', config)
        >>> pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
        >>> find = load('my_bundle', list(pictures), device='cpu', progress=False)
        >>> find(pictures[1] | 1)[0]['results'][0]['row']
        1
    """
    return Bundle.open(source, trust).inferencer(prototype, device, **options)


# Reading -----------------------------------------------------------------------------------------

def _pipeline(config: Any) -> list[dict[str, Any]]:
    from ..retrievers.build import config_pipeline

    found = config_pipeline(config)
    if found is None:
        raise ValueError('The bundle has no pipeline, so it is not known how to read pictures.')
    return found


def _read_manifest(folder: Path, name: str) -> dict[str, Any]:
    try:
        manifest = _read_json(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise ValueError(f'{name!r} is no bundle: it has no {CONFIG} that can be read. '
                         '`retrieval bundle` writes one.') from error
    if not _is_manifest(manifest):
        raise ValueError(f'{name!r} is no bundle of this package: its {CONFIG} is of something '
                         'else.')
    if manifest.get('version') != VERSION:
        raise ValueError(f'The bundle {name!r} is of version {manifest.get("version")!r}, and this '
                         f'release reads version {VERSION}: install a later one.')
    return manifest


def _read_json(path: Path) -> Any:
    from ..foreign_files import open_regular

    with open_regular(path) as file:
        text = file.read(_MOST_JSON + 1)
    if len(text) > _MOST_JSON:
        raise ValueError(f'{str(path)!r} is larger than any config.')
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f'{str(path)!r} is nested too deep.') from error


def _is_manifest(content: Any) -> bool:
    return isinstance(content, dict) and content.get('format') == FORMAT


def _fetched(name: str) -> Path:
    """The folder into which the hub's client has put a bundle.

    Raises:
        ImportError: the client is missing.
        ConnectionError: it could not fetch it.
    """
    from ..encoders.backbones.hub import hub

    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(f'There is no folder {name!r}, and to fetch a bundle of that name from '
                          'the hub wants: pip install huggingface_hub.') from error
    repository, _, revision = name.partition('@')
    try:
        with hub():
            return Path(snapshot_download(repository, revision=revision or None,
                                          allow_patterns=list(FILES)))
    except Exception as error:  # whatever the client of the day raises
        raise ConnectionError(
            f'There is no folder {name!r}, and no bundle of that name could be fetched from the '
            f'hub ({type(error).__name__}). Check the name; without a network give the folder or '
            '.zip of a bundle.') from error
