"""Files of every kind that is read, flipped and cut: one clear error, or the same answer."""
from __future__ import annotations

import json
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrieval.datasets import Cars196, CSVDataset, GoogleLandmarksV2, RevisitedOxford
from retrieval.encoded_folder import EncodedFolder  # noqa: F401  (loaded before forks)
from retrieval.evaluation import MatchCalibration
from retrieval.exported_encoder import ExportedEncoder
from retrieval.gallery import Gallery, GalleryStore, import_gallery, read_column
from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.open import open_index
from retrieval.retrievers.checkpoint import read_state_dict
from retrieval.runs.bundle import load as load_bundle
from retrieval.runs.write_bundle import write_bundle
from retrieval.search import ImageRetrievalInferencer

from ..datasets.benchmarks.test_cars196 import ROWS
from ..datasets.landmark_miniatures import make_google_landmarks, make_revisited
from ..datasets.miniatures import make_cars196
from ..gallery.examples import contents, example
from ..runs.test_bundle import ASKED, CONFIG, PICTURES, STEPS
from ..search.pictures import PIPELINE, picture, retriever, write
from ..test_exported_encoder import write_export_of
from .attack import Tally, attack, clean_error, run_cases

VECTORS = np.random.default_rng(1).normal(size=(40, 8)).astype(np.float32)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        make: writes it below a folder; the file, or folder, that is read.
        answer: what is read of it, for comparison.
        checked: it carries checksums: another answer is wrong. What has none may, with a letter
            changed, say something else.
        weight: how often it is chosen.
        suffixes: of the files of a folder that are damaged; all where there are none.
    """

    make: Callable[[Path], Path]
    answer: Callable[[Path], Any]
    checked: bool = True
    weight: int = 10
    suffixes: tuple[str, ...] = ()


def _gallery(dtype: str, folder: Path) -> Path:
    example(30, 'row', seed=4).save(folder / 'g.safetensors', dtype)
    return folder / 'g.safetensors'


def _opened(path: Path) -> Any:
    gallery = Gallery.load(path)
    found = contents(gallery)
    gallery.verify()
    return found


def _store(folder: Path) -> Path:
    store = GalleryStore.create(folder / 's.gallery', example(9, 'a'))
    store.append(example(6, 'b', seed=1))
    store.remove(['a3', 'b2'])
    store.update(example(2, 'a', seed=2))
    return store.path


def _index(make: Callable[[], Any], folder: Path) -> Path:
    index = make()
    if index.capabilities.training:
        index.train(np.random.default_rng(2).normal(size=(3000, 8)).astype(np.float32))
    index.add(VECTORS, [f'#{row}' for row in range(40)])
    index.remove(['#3'])
    index.save(folder / 'index.safetensors')
    return folder / 'index.safetensors'


def _searched(path: Path) -> Any:
    index = open_index(path)
    found = index.search(VECTORS[:3], 5)
    return list(index.ids), found.ids, found.scores.tolist()


def _cache(folder: Path) -> Path:
    for seed in range(5):
        write(folder / 'photos' / f'{seed}.png', seed)
    ImageRetrievalInferencer(retriever(), folder / 'photos', folder / 'cache.safetensors',
                             pipeline=PIPELINE, progress=False)
    return folder / 'cache.safetensors'


def _cached(path: Path) -> Any:
    find = ImageRetrievalInferencer(retriever(), path.parent / 'photos', path, pipeline=PIPELINE,
                                    progress=False)
    return [(one['id'], round(one['score'], 5)) for one in find(picture(3))[0]['results']]


def _checkpoint(folder: Path) -> Path:
    torch.save(dict(state_dict=retriever().state_dict(), meta=dict(epoch=3)), folder / 'w.pth')
    return folder / 'w.pth'


def _weights(path: Path) -> Any:
    return {name: value.tolist() for name, value in read_state_dict(path).items()}


def _bundle(archive: bool, folder: Path) -> Path:
    from retrieval.retrievers import build_retriever
    torch.manual_seed(0)
    model = build_retriever(CONFIG, device='cpu')
    torch.save(dict(state_dict=model.state_dict()), folder / 'weights.pth')
    made = ImageRetrievalInferencer(model, PICTURES, pipeline=STEPS, progress=False).model.gallery
    Gallery(made.embeddings, list('abcdef'), [0, 0, 1, 1, 2, 2], fingerprint=made.fingerprint,
            similarity=made.similarity).save(folder / 'gallery.safetensors')
    MatchCalibration(0.5, method='platt', slope=9.).save(folder / 'calibration.json')
    out = folder / ('mine.zip' if archive else 'mine')
    write_bundle(out, CONFIG, folder / 'weights.pth', gallery=folder / 'gallery.safetensors',
                 calibration=folder / 'calibration.json')
    return out


def _asked(path: Path) -> Any:
    find = load_bundle(path, progress=False)
    return [[(one['id'], round(one['score'], 4)) for one in found['results']]
            for found in find(ASKED[:2])]


def _calibration(folder: Path) -> Path:
    MatchCalibration(0.5, method='platt', slope=9.).save(folder / 'c.json')
    return folder / 'c.json'


def _csv(folder: Path) -> Path:
    lines = [f'{row}.png,class {row % 3},{"train" if row % 2 else "validation"}'
             for row in range(12)]
    for row in range(12):
        write(folder / f'{row}.png', row)
    (folder / 'data.csv').write_text('\n'.join(['path,label,split', *lines]) + '\n')
    return folder / 'data.csv'


def _entries(dataset: Any) -> Any:
    return [repr({name: value for name, value in dataset.get_data_info(row).items()
                  if name != 'sample_idx'}) for row in range(len(dataset))]


def _text(name: str, text: str, folder: Path) -> Path:
    (folder / name).write_text(text)
    return folder / name


def _saved(name: str, folder: Path) -> Path:
    path = folder / name
    if name.endswith('.npy'):
        np.save(path, VECTORS)
    elif name.endswith('.npz'):
        np.savez(path, embeddings=VECTORS, ids=np.array([f'#{row}' for row in range(40)]))
    else:
        torch.save(torch.from_numpy(VECTORS), path)
    return path


def _imported(folder: Path) -> Path:
    np.save(folder / 'v.npy', VECTORS)
    lines = [f'#{row},{row % 4},{row / 2}' for row in range(40)]
    return _text('table.csv', '\n'.join(['id,label,weight', *lines]) + '\n', folder)


def _oxford(folder: Path) -> Path:
    make_revisited(folder)
    return folder / 'roxford5k' / 'gnd_roxford5k.pkl'


def _landmarks(folder: Path) -> Path:
    make_google_landmarks(folder)
    return folder / 'train.csv'


def _exported(path: Path) -> Any:
    encoder = ExportedEncoder(path, threads=1)
    return encoder.model(encoder.pixels(np.full((9, 9, 3), 7, np.uint8))[None]).tolist()


KINDS: dict[str, Kind] = {
    'gallery, float32': Kind(partial(_gallery, 'float32'), _opened),
    'gallery, float16': Kind(partial(_gallery, 'float16'), _opened),
    'gallery, int8': Kind(partial(_gallery, 'int8'), _opened),
    'store': Kind(_store, _opened, weight=20),
    'exact index': Kind(partial(_index, ExactIndex), _searched),
    'faiss flat': Kind(partial(_index, FaissIndex), _searched),
    'faiss graph': Kind(partial(_index, lambda: FaissIndex('HNSW8')), _searched),
    'faiss lists, rescored': Kind(partial(_index, lambda: FaissIndex(
        'IVF4,PQ4', rescore=True, rescore_dtype='float32')), _searched),
    'cache of a folder': Kind(_cache, _cached),
    'checkpoint': Kind(_checkpoint, _weights, checked=False),
    'bundle': Kind(partial(_bundle, False), _asked, weight=3),
    'bundle, zip': Kind(partial(_bundle, True), _asked, weight=3),
    'calibration': Kind(_calibration, lambda path: repr(MatchCalibration.load(path)),
                        checked=False),
    'csv dataset': Kind(_csv, lambda path: _entries(CSVDataset(str(path))), checked=False),
    'column, json': Kind(partial(_text, 'labels.json', json.dumps(['a', 'bb', 'ü'] * 9)),
                         lambda path: repr(read_column(path)), checked=False, weight=5),
    'column, text': Kind(partial(_text, 'labels.txt', 'a\nbb\nü\n' * 9),
                         lambda path: repr(read_column(path)), checked=False, weight=5),
    'vectors, npy': Kind(partial(_saved, 'v.npy'), _opened, checked=False, weight=5),
    'vectors, npz': Kind(partial(_saved, 'v.npz'), _opened, checked=False, weight=5),
    'vectors, pt': Kind(partial(_saved, 'v.pt'), _opened, checked=False, weight=5),
    'imported table': Kind(_imported, lambda path: contents(import_gallery(
        path.parent / 'v.npy', path)), checked=False, weight=5),
    'ground truth, pickle': Kind(_oxford, lambda path: _entries(RevisitedOxford(
        str(path.parents[1]))), checked=False),
    'ground truth, MATLAB': Kind(lambda folder: make_cars196(folder, ROWS) / 'cars_annos.mat',
                                 lambda path: _entries(Cars196(str(path.parent))), checked=False),
    'ground truth, csv': Kind(_landmarks, lambda path: _entries(GoogleLandmarksV2(
        str(path.parent), split='train')), checked=False, weight=5),
    'export': Kind(lambda folder: write_export_of(folder / 'export'),
                   _exported, checked=False, weight=5),
}


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, and what is left."""
    at = rng.randrange(max(1, len(data)))
    kind = rng.choice(['bit', 'bit', 'bit', 'byte', 'cut', 'cut', 'zeros', 'more', 'twice',
                       'empty'])
    if kind == 'bit' and data:
        return f'bit at {at}', data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
    if kind == 'byte' and data:
        return f'byte at {at}', data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
    if kind == 'cut':
        return f'cut at {at}', data[:at]
    if kind == 'zeros':
        return f'zeros at {at}', (data[:at] + bytes(64) + data[at + 64:])[:len(data)]
    if kind == 'more':
        return 'more behind', data + rng.randbytes(rng.randrange(1, 99))
    if kind == 'twice':
        return f'a block twice at {at}', data[:at] + data[at:at + 50] + data[at:]
    return 'empty', b''


class Damage:
    """Undamaged files of each kind, their answers, and the check of a damaged one."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.paths, self.wanted, self.files = {}, {}, {}
        for name in names:
            folder = root / name.replace(' ', '_').replace(',', '')
            folder.mkdir()
            path = self.paths[name] = KINDS[name].make(folder)
            self.wanted[name] = json.dumps(KINDS[name].answer(path), default=str)
            inside = [one for one in sorted(path.rglob('*')) if one.is_file() and one.name != 'lock'
                      ] if path.is_dir() else [path]
            self.files[name] = {str(one): one.read_bytes() for one in inside}

    def check(self, case: tuple[str, int]) -> str | None:
        """Damage a file of a kind, and read it."""
        name, seed = case
        rng, kind = random.Random(seed), KINDS[name]
        for path, data in self.files[name].items():  # as the case before may have left it
            Path(path).write_bytes(data)
        target = rng.choice(list(self.files[name]))
        done, data = damaged(self.files[name][target], rng)
        if rng.random() < 0.02:
            done = 'is gone'
            os.unlink(target)
        else:
            Path(target).write_bytes(data)
        what = f'{Path(target).name} ({done})'
        try:
            found = json.dumps(kind.answer(self.paths[name]), default=str)
        except Exception as error:
            return None if clean_error(error) or (isinstance(error, (ValueError, OSError)) and (
                Path(target).name in str(error))) else f'{what}: {type(error).__name__}: {error}'
        if kind.checked and found != self.wanted[name]:
            return f'{what}: another answer, {found[:200]}'
        return None


@attack('files flipped and cut', 6000, 0.12, 'files')
def files(tally: Tally) -> None:
    """Every kind of file."""
    weights = [kind.weight for kind in KINDS.values()]
    with tempfile.TemporaryDirectory(prefix='retrieval-attack-', dir=_memory()) as folder:
        names = tally.rng.choices(list(KINDS), weights, k=tally.least)
        damage = Damage(Path(folder), sorted(set(names)))
        run_cases(tally, damage.check, [(name, tally.rng.randrange(2 ** 32)) for name in names])
    tally.notes.append(f'{len(set(names))} kinds')


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return '/dev/shm' if os.access('/dev/shm', os.W_OK) else None
