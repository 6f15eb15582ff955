"""An encoder that was exported: a folder with an ONNX model, and all that a search needs of it.

It is read and run without torch: by ONNX Runtime, NumPy and Pillow. `docs/export.md` lists the
files of such a folder.
"""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .files import kind_of_file
from .foreign_files import open_regular

FORMAT, VERSION = 'retrieval-export', 1
MANIFEST, ONNX_FILE, SCRIPT = 'export.json', 'encoder.onnx', 'search.py'
_FACTS = {'runtime', 'sha256', 'pipeline', 'similarity', 'geometry'}
_MOST_JSON = 4_000_000  # bytes; a manifest has some thousands
_LONGEST = 32           # as ResizeEdge cuts longer strips
_FILTERS = {'auto': 'BILINEAR', 'bilinear': 'SAMPLE'}
_TYPES = {'tensor(uint8)': np.uint8, 'tensor(float)': np.float32}


class OnnxModel:
    """An ONNX file that takes images ``(B, C, H, W)``, uint8 or float32, and gives embeddings
    ``(B, D)``, run by ONNX Runtime.

    Args:
        file: the ``.onnx`` file.
        threads: that one batch is spread over; by default the environment variable
            ``OMP_NUM_THREADS``, else a thread a core.

    Attributes:
        dtype: of the images.
        shape: ``(C, H, W)``; None for an edge of any length.
        embedding_size: D, or None where the model does not say it.
        sha256: of the file, in hexadecimal.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX model, or takes or gives something else.

    Example:
        >>> OnnxModel('absent.onnx')
        Traceback (most recent call last):
        FileNotFoundError: There is no ONNX model 'absent.onnx': check the path.
    """

    def __init__(self, file: str | os.PathLike[str], threads: int | None = None) -> None:
        path = os.fspath(file)
        if not os.path.exists(path):
            raise FileNotFoundError(f'There is no ONNX model {path!r}: check the path.')
        runtime = _runtime()
        with open_regular(path) as opened:
            data = opened.read()
        self.sha256 = hashlib.sha256(data).hexdigest()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = int(threads or os.environ.get('OMP_NUM_THREADS') or 0)
        options.log_severity_level = 3  # errors alone
        try:
            self._session = runtime.InferenceSession(
                data, options, providers=runtime.get_available_providers())
        except Exception as error:  # whatever the runtime of the day raises
            raise ValueError(f'{path!r} is {kind_of_file(path)} that ONNX Runtime cannot open: '
                             f'{error}') from error
        self._check(path)

    def _check(self, path: str) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        images, embeddings = inputs[0], outputs[0]
        if len(inputs) != 1 or len(images.shape) != 4 or images.type not in _TYPES or len(
                embeddings.shape) != 2:
            raise ValueError(
                f'{path!r} takes {_described(inputs)} and gives {_described(outputs)}; an encoder '
                'takes images (B, C, H, W), uint8 or float, and gives embeddings (B, D).')
        self._input, self._output = images.name, embeddings.name
        self.dtype = _TYPES[images.type]
        self.shape = tuple(edge if isinstance(edge, int) else None for edge in images.shape[1:])
        width = embeddings.shape[1]
        self.embedding_size = width if isinstance(width, int) else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Embeddings ``(B, D)`` float32 of images ``(B, C, H, W)`` of :attr:`dtype`.

        Raises:
            TypeError: the images have another dtype.
            ValueError: they have another shape.
        """
        if images.dtype != self.dtype:
            raise TypeError(f'The ONNX model takes images of {np.dtype(self.dtype)}, got '
                            f'{images.dtype}.')
        if images.ndim != 4 or any(wanted not in (None, edge) for wanted, edge in
                                   zip(self.shape, images.shape[1:], strict=True)):
            wanted = ', '.join(str(edge or 'any') for edge in self.shape)
            raise ValueError(f'The ONNX model takes images (B, {wanted}), got '
                             f'{tuple(images.shape)}: let the pipeline make them so.')
        found = self._session.run([self._output], {self._input: images})[0]
        return np.asarray(found, np.float32)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError('An exported encoder is run by ONNX Runtime, which is not installed: '
                          "pip install 'retrieval[export]', or onnxruntime alone.") from error
    return onnxruntime


def _described(ends: Any) -> str:
    return ', '.join(f'{end.name} {end.type.removeprefix("tensor")}{end.shape}' for end in ends)


class ExportedEncoder:
    """The folder that ``retrieval export`` wrote, for ONNX; nothing of it is run but the model.

    Args:
        folder: with ``export.json`` and ``encoder.onnx``.
        threads: see :class:`OnnxModel`.

    Attributes:
        manifest: the content of ``export.json``.
        model: the :class:`OnnxModel`.
        pipeline: the config of the pipeline that images go through before it.

    Raises:
        FileNotFoundError: there is no such folder, or it has no manifest or no ONNX model.
        ValueError: it is of a later release, damaged, or holds an encoder of another format.
        ImportError: ONNX Runtime is not installed.

    Example:
        >>> is_export('no/such/folder')
        False
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int | None = None) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        if self.manifest['runtime'] != 'onnx':
            raise ValueError(f'{str(folder)!r} holds an encoder for {self.manifest["runtime"]}, '
                             'and this package runs those for ONNX: export it with --format onnx.')
        self.model = OnnxModel(self.file, threads)
        if self.model.sha256 != self.manifest['sha256']:
            raise ValueError(f'{str(self.file)!r} is not the file that was exported: its SHA-256 '
                             f'is not that in {MANIFEST}. Export the encoder again.')
        self.pipeline: list[dict[str, Any]] = _with_tuples(self.manifest['pipeline'])

    @property
    def config(self) -> dict[str, Any]:
        """The config of a retriever with this encoder."""
        model = dict(type='retrieval.ImageToImageRetriever', topk=10,
                     similarity_fn=self.manifest['similarity'] or 'cosine_similarity',
                     image_encoder=dict(type='retrieval.OnnxEncoder', file=str(self.file)))
        return dict(default_scope='retrieval', model=model,
                    test_dataloader=dict(dataset=dict(pipeline=self.pipeline)))

    @property
    def file(self) -> Path:
        """The ONNX model."""
        return self.folder / ONNX_FILE

    def pixels(self, image: np.ndarray) -> np.ndarray:
        """A decoded picture, ``(H, W, C)`` uint8, as the model takes it, ``(C, H, W)`` uint8.

        Pillow does what the pipeline does; pixels differ from the pipeline's by a grey value.

        Raises:
            ValueError: the pipeline has steps that Pillow has not.
        """
        steps = self.manifest['geometry']
        if steps is None:
            raise ValueError('The pipeline of this export has steps that Pillow has not: images '
                             'go through the pipeline.')
        return fitted(image, steps)


def is_export(path: str | os.PathLike[str]) -> bool:
    """True for the folder of an exported encoder, whatever runs it.

    Example:
        >>> is_export('no/such/folder')
        False
    """
    return os.path.isfile(os.path.join(path, MANIFEST))


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of an export's ``export.json``.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of something else or of a later release.

    Example:
        >>> read_manifest('absent')  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        FileNotFoundError: 'absent' holds no exported encoder: it has no export.json. ...
    """
    path = os.path.join(folder, MANIFEST)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{os.fspath(folder)!r} holds no exported encoder: it has no '
                                f'{MANIFEST}. `retrieval export` writes one.')
    with open_regular(path) as opened:
        text = opened.read(_MOST_JSON)
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path!r} cannot be read: export the encoder again.') from error
    if not isinstance(manifest, dict) or manifest.get('format') != FORMAT:
        raise ValueError(f'{path!r} is of something else than an exported encoder.')
    if manifest.get('version') != VERSION:
        raise ValueError(f'{path!r} is of version {manifest.get("version")!r}, and this release '
                         f'reads version {VERSION}.')
    missing = sorted(_FACTS - set(manifest))
    if missing:
        raise ValueError(f'{path!r} is damaged: it lacks {", ".join(missing)}. Export the encoder '
                         'again.')
    return manifest


def _with_tuples(value: Any) -> Any:
    """Sizes as tuples, as some transforms want them; JSON has lists only."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    numbers = all(isinstance(item, (int, float)) for item in value)
    return tuple(value) if numbers else [_with_tuples(item) for item in value]


# What a pipeline does to the shape of a picture, by Pillow alone ---------------------------------


def geometry_of(pipeline: list[dict[str, Any]]) -> list[list[Any]] | None:
    """The steps between loading and packing as Pillow does them; None where it cannot.

    Example:
        >>> geometry_of([dict(type='LoadImage'), dict(type='ResizeEdge', scale=256),
        ...              dict(type='CenterCrop', crop_size=224), dict(type='PackInputs')])
        [['resize_edge', 256, 'short', 'BILINEAR'], ['crop', 224, 224, 'CROP']]
    """
    steps: list[list[Any]] = []
    for position, given in enumerate(pipeline):
        step = {key: value for key, value in given.items() if key != 'type'}
        kind = str(given['type']).rpartition('.')[2]
        if kind == 'LoadImage' and position == 0 and set(step) <= {'color', 'decoder'}:
            continue
        if kind == 'PackInputs' and position == len(pipeline) - 1:
            continue
        if kind == 'ResizeEdge':
            made = ['resize_edge', step.pop('scale'), step.pop('edge', 'short'),
                    _FILTERS.get(step.pop('interpolation', 'auto'))]
        elif kind == 'Resize' and _pair(step.get('scale')):
            made = ['resize', *_pair(step.pop('scale')),
                    _FILTERS.get(step.pop('interpolation', 'bilinear'))]
        elif kind == 'CenterCrop' and _pair(step.get('crop_size')):
            made = ['crop', *_pair(step.pop('crop_size')), 'CROP']
        else:
            return None
        if step or made[-1] is None:
            return None
        steps.append(made)
    return steps


def _pair(size: Any) -> tuple[int, ...]:
    """A size as (width, height); empty for anything else."""
    given = (size, size) if isinstance(size, int) else tuple(size or ())
    return given if len(given) == 2 and all(isinstance(edge, int) for edge in given) else ()


def fitted(image: np.ndarray, steps: list[list[Any]]) -> np.ndarray:
    """A picture ``(H, W, C)`` uint8 after the steps of :func:`geometry_of`, ``(C, H, W)`` uint8.

    Example:
        >>> fitted(np.zeros((20, 40, 3), np.uint8), [['resize_edge', 10, 'short', 'BILINEAR'],
        ...                                          ['crop', 8, 8, 'CROP']]).shape
        (3, 8, 8)
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    for name, *size, method in steps:
        width, height = picture.size
        if name == 'crop':
            left, top = (max(0, round((edge - wanted) / 2))
                         for edge, wanted in zip(picture.size, size, strict=True))
            picture = picture.crop((left, top, min(width, left + size[0]),
                                    min(height, top + size[1])))
            continue
        if name == 'resize_edge':
            scale, edge = size
            length = dict(short=min(width, height), long=max(width, height), width=width,
                          height=height)[edge]
            picture = _middle(picture, _LONGEST * length)
            size = [max(1, round(one * scale / length)) for one in picture.size]
        picture = _resized(picture, (size[0], size[1]), method)
    array = np.asarray(picture)
    return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _middle(picture: Image.Image, longest: int) -> Image.Image:
    """The middle of a strip that is longer than that."""
    starts = [max(0, (edge - longest) // 2) for edge in picture.size]
    ends = [start + min(edge, longest) for start, edge in zip(starts, picture.size, strict=True)]
    return picture.crop((starts[0], starts[1], ends[0], ends[1])) if any(starts) else picture


def _resized(picture: Image.Image, size: tuple[int, int], method: str) -> Image.Image:
    if method != 'SAMPLE':
        return picture.resize(size, Image.Resampling[method])
    # of four neighbours, however much it shrinks, as OpenCV does
    across, down = (old / new for old, new in zip(picture.size, size, strict=True))
    return picture.transform(size, Image.Transform.AFFINE, (across, 0, 0, 0, down, 0),
                             Image.Resampling.BILINEAR)
