"""Writing an export: the encoder of a retriever, checked on pictures before it gets its name."""
from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..evaluation import compare_galleries
from ..exported_encoder import (
    FORMAT,
    MANIFEST,
    ONNX_FILE,
    SCRIPT,
    VERSION,
    ExportedEncoder,
    fitted,
    geometry_of,
)
from ..files import write_json
from ..gallery import Gallery
from ..progress import progress_bar
from ..retrievers import build_retriever
from ..retrievers.encode import label_names_of
from ..retrievers.prototype import pipeline_of, settings_hash
from .formats import Encode, PixelEncoder, check_formats, open_encoder, stacked, write_encoder

LEAST_COSINE = 0.9999  # between the embeddings of torch and of an export in fp32
MOST_PICTURES = 2000
_CALIBRATED, _SHARE = 256, 4  # for int8 every fourth picture, at the most so many
_BY_PILLOW = 64
_METRICS = ('Recall@1', 'mAP')
_BATCH = 32


@dataclass(frozen=True)
class Parity:
    """How an exported encoder differs from the encoder in torch, on pictures.

    Args:
        pictures: how many.
        least_cosine, mean_cosine: between the two embeddings of a picture.
        changed_first: the share of the pictures whose first result among the others is another.
        overlap: the share of the first 10 results in common.
        metrics: where the pictures have classes: in percent, in torch and exported.
        by_pillow: the least cosine where Pillow alone makes the images, as the search script does;
            None where it cannot.
    """

    pictures: int
    least_cosine: float
    mean_cosine: float
    changed_first: float
    overlap: float
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    by_pillow: float | None = None

    def report(self) -> str:
        """In words, a line each."""
        lines = [f'cosine to torch on {self.pictures} pictures: least {self.least_cosine:.6f}, '
                 f'mean {self.mean_cosine:.6f}',
                 f'first result is another: {100 * self.changed_first:.2f} %',
                 f'first 10 results in common: {100 * self.overlap:.2f} %']
        lines += [f'{name}: {before:.2f} -> {after:.2f} ({after - before:+.2f})'
                  for name, (before, after) in self.metrics.items()]
        if self.by_pillow is not None:
            lines.append(f'least cosine with images made by Pillow: {self.by_pillow:.6f}')
        return '\n'.join(lines)


def write_export(out: str | os.PathLike[str], model: Any, pipeline: Sequence[dict[str, Any]],
                 dataset: Any, format: str = 'onnx', precision: str = 'fp32') -> Parity:
    """Export the encoder of a retriever, and measure on pictures what that changes.

    Args:
        out: a folder that is not there yet.
        model: a retriever. Its data preprocessor becomes a part of the export, its pipeline not.
        pipeline: config of the pipeline, which makes images of one size.
        dataset: of the pictures, through that pipeline; at the most 2,000 of them are taken, spread
            over it. For ``'int8'`` a quarter of them sets the ranges of the activations, and the
            others are measured.
        format: ``'onnx'``, ``'openvino'`` or ``'torchscript'``.
        precision: ``'fp32'``, ``'fp16'`` (of the weights) or ``'int8'``.

    Returns:
        What was measured.

    Raises:
        FileExistsError: ``out`` is there.
        ValueError: the encoder cannot be exported, the pictures come out in several sizes, or an
            export in fp32 has another embedding of a picture. Nothing is written then.
        ImportError: what writes or runs the format is not installed.
    """
    check_formats(format, precision)
    out = check_target(out)
    pipeline = [dict(step) for step in pipeline]
    module = PixelEncoder(model)
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_PICTURES)).round()
                     .astype(np.int64))
    calibrated = rows[::_SHARE][:_CALIBRATED] if precision == 'int8' else rows[:0]
    measured = np.setdiff1d(rows, calibrated)
    if len(measured) < 2:
        raise ValueError(f'An export is measured on pictures, and there are {len(rows)}: give a '
                         'folder of some hundred, best in folders of classes.')
    first = next(_batches(dataset, measured[:2]))[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as temporary:
        folder = Path(temporary, out.name)
        folder.mkdir()
        file = write_encoder(
            module, first if len(first) > 1 else torch.cat([first, first]), folder, format,
            precision, lambda: (batch.numpy() for _, batch in _batches(dataset, calibrated)))
        geometry = geometry_of(pipeline) if format == 'onnx' else None
        parity, width = _measure(module, open_encoder(file), dataset, measured, geometry,
                                 model.similarity_name)
        if precision == 'fp32' and parity.least_cosine < LEAST_COSINE:
            raise ValueError(f'Nothing was written, since the exported encoder is another one: the '
                             f'least cosine to the embedding of torch is {parity.least_cosine:.6f}'
                             f', below {LEAST_COSINE}.')
        manifest = dict(
            format=FORMAT, version=VERSION, runtime=format, precision=precision, file=file.name,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(), image=list(first.shape[1:]),
            embedding_size=width, pipeline=pipeline, similarity=model.similarity_name,
            geometry=geometry, parity=asdict(parity), made_from=model.fingerprint().as_dict())
        write_json(folder / MANIFEST, manifest)
        if file.name == ONNX_FILE:
            complete_folder(folder, manifest)
        os.replace(folder, out)
    return parity


def check_target(out: str | os.PathLike[str]) -> Path:
    """The path of a folder to be. Raises FileExistsError where there is something already."""
    path = Path(out)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f'{str(path)!r} is there already: give another name, or remove it.')
    return path


def _batches(dataset: Any, rows: np.ndarray) -> Iterator[tuple[list[Any], torch.Tensor]]:
    """The samples of rows that can be read, and their images ``(B, C, H, W)`` uint8."""
    for start in range(0, len(rows), _BATCH):
        items = [dataset[row] for row in rows[start:start + _BATCH].tolist()]
        items = [item for item in items if not item['data_samples'].get('unreadable', None)]
        if items:
            yield ([item['data_samples'] for item in items],
                   stacked([item['inputs'] for item in items]))


def complete_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Add what belongs to an ONNX model: by what a gallery of it is known, and the search script.

    Args:
        folder: with the model and the manifest.
        manifest: is completed, and written anew.
    """
    export = ExportedEncoder(folder)
    model = build_retriever(export.config, device='cpu')
    model.search_in(pipeline=export.pipeline)
    manifest.update(fingerprint=model.fingerprint().as_dict(),
                    settings=settings_hash(model.image_encoder))
    write_json(folder / MANIFEST, manifest)
    if manifest['geometry'] is not None:
        shutil.copyfile(Path(__file__).with_name('search_script.py'), folder / SCRIPT)


def _measure(module: PixelEncoder, encode: Encode, dataset: Any, rows: np.ndarray,
             geometry: list[list[Any]] | None, similarity: str | None) -> tuple[Parity, int]:
    """The parity on some rows of a dataset, and the width of the embeddings."""
    before, after, samples = [], [], []
    with progress_bar('Comparing', len(rows)) as bar:
        for those, images in _batches(dataset, rows):
            with torch.no_grad():
                before.append(module(images).numpy())
            after.append(encode(images.numpy()))
            samples += those
            bar.update(len(those))
    if not samples:
        raise ValueError('Not one of the pictures could be read.')
    ids = [str(sample.get('sample_id', sample.get('img_path', row)))
           for row, sample in enumerate(samples)]
    labels = [sample.get('gt_label', None) for sample in samples]
    known = all(label is not None and label.numel() == 1 for label in labels)
    columns: dict[str, Any] = dict(labels=[int(label) for label in labels],
                                   label_names=label_names_of(dataset)) if known else {}
    old, new = (Gallery(np.concatenate(vectors), ids, similarity=similarity, **columns)
                for vectors in (before, after))
    try:
        found = compare_galleries(old, new, len(ids), metrics=_METRICS)
    except ValueError:  # no class has two pictures
        columns.clear()
        old, new = (Gallery(side.embeddings, ids, similarity=similarity) for side in (old, new))
        found = compare_galleries(old, new, len(ids))
    cosine = _cosines(old.embeddings.numpy(), new.embeddings.numpy())
    parity = Parity(
        len(ids), float(cosine.min()), float(cosine.mean()), found.changed_first, found.overlap,
        {name: (float(one), float(two)) for name, (one, two) in found.results.items()},
        None if geometry is None or not hasattr(dataset, 'get_data_info')
        else _by_pillow(old, encode, dataset, rows, geometry))
    return parity, old.dim


def _by_pillow(reference: Gallery, encode: Encode, dataset: Any, rows: np.ndarray,
               geometry: list[list[Any]]) -> float:
    """The least cosine between torch, with the pipeline, and the export, with Pillow."""
    from ..datasets import LoadImage
    from ..structures import sample_id_of

    load = LoadImage(**{key: value for key, value in dict(pipeline_of(dataset)[0]).items()
                        if key != 'type'})
    least = 1.0
    for row in rows[:: max(1, len(rows) // _BY_PILLOW)].tolist():
        info = dataset.get_data_info(row)
        if str(sample_id_of(info)) not in reference.rows:  # it could not be read
            continue
        place = reference.rows[str(sample_id_of(info))]
        pixels = fitted(load.transform(dict(info))['img'], geometry)[None]
        own = reference.embeddings[place:place + 1].numpy()
        least = min(least, float(_cosines(own, encode(pixels))[0]))
    return least


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / lengths
