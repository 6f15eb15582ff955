"""Files of a FaissIndex: damage, lists on disk, merged shards, the gallery they belong to."""
from __future__ import annotations

import itertools
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from retrieval.index import ExactIndex, FaissIndex
from retrieval.index.faiss.store import FORMAT
from retrieval.mapped_file import DamagedError
from retrieval.tensor_file import Container, write_container

from ...processes import in_a_child
from ..toys import blobs, filled, ids, same


@pytest.fixture
def no_faiss_reader(monkeypatch):
    """faiss must not be handed bytes whose checksum was not compared."""
    def refuse(*arguments):
        raise AssertionError('faiss read a damaged file')
    monkeypatch.setattr('retrieval.index.faiss.store.read_engine', refuse)


def test_every_byte_region_is_covered(tmp_path, no_faiss_reader):
    path = tmp_path / 'index'
    filled(rescore=True).save(path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], 'little')
    header = json.loads(whole[8:8 + length])
    places = [*range(8), *range(8, 8 + length, 7)]
    for name, entry in header.items():
        if name != '__metadata__':
            begin, end = (8 + length + at for at in entry['data_offsets'])
            places += [begin, (begin + end) // 2, end - 1]
    assert {'faiss', 'ids.bytes', 'ids.offsets', 'slots', 'vectors', 'checksums',
            'manifest'} <= set(header)
    for at in places:
        for bit in (1, 128):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match='damaged|holds|version'):
                FaissIndex.load(path)
    for cut in (0, 7, 8, 8 + length, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match='damaged|holds'):
            FaissIndex.load(path)
    path.write_bytes(whole + b'more')
    with pytest.raises(ValueError, match='damaged'):
        FaissIndex.load(path)


def test_other_formats_are_refused(tmp_path):
    exact = ExactIndex()
    exact.add(blobs(3), ids(3))
    exact.save(tmp_path / 'exact')
    with pytest.raises(ValueError, match="holds 'retrieval.ExactIndex', not 'retrieval.FaissInd"):
        FaissIndex.load(tmp_path / 'exact')
    filled().save(tmp_path / 'faiss')
    with pytest.raises(ValueError, match="holds 'retrieval.FaissIndex'"):
        ExactIndex.load(tmp_path / 'faiss')
    with pytest.raises(ValueError, match="holds the factory 'IVF8,PQ4x4', not 'HNSW32'"):
        FaissIndex.load(tmp_path / 'faiss', factory='HNSW32')
    opened = Container(tmp_path / 'faiss', FORMAT)
    arrays = {name: array[:] for name, array in opened.arrays.items()}
    write_container(tmp_path / 'later', replace(FORMAT, version=3), arrays, opened.manifest)
    with pytest.raises(ValueError, match='has version 3.*Install a newer release'):
        FaissIndex.load(tmp_path / 'later')
    arrays['faiss'] = arrays['faiss'][:50]  # as another release of faiss might write it
    write_container(tmp_path / 'strange', FORMAT, arrays, opened.manifest)
    with pytest.raises(ValueError, match='this faiss .* cannot read it') as caught:
        FaissIndex.load(tmp_path / 'strange')
    assert '.cpp' not in str(caught.value)


def test_settings_survive(tmp_path):
    index = filled('IVF8,PQ4x4', train_size=200, seed=4, rescore=True, rescore_factor=7,
                   rescore_dtype='float32', max_removed=0.2)
    index.gallery_digest = 'abc'
    index.save(tmp_path / 'index')
    loaded = FaissIndex.load(tmp_path / 'index', search_parameters=dict(nprobe=3))
    assert loaded.settings() == {**index.settings(), 'search_parameters': dict(nprobe=3)}
    assert loaded.gallery_digest == 'abc' and loaded.store.engine.core.nprobe == 3
    loaded.add(blobs(1), ['new'])
    assert loaded.gallery_digest is None and 'new' in loaded


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    index = filled()
    index.save(tmp_path / 'index')
    before = (tmp_path / 'index').read_bytes()

    def fail(*arguments, **options):
        raise OSError('No space left on device')

    monkeypatch.setattr('retrieval.tensor_file.write_all', fail)
    with pytest.raises(OSError, match='No space'):
        index.save(tmp_path / 'index')
    assert os.listdir(tmp_path) == ['index'] and (tmp_path / 'index').read_bytes() == before


@pytest.mark.parametrize(('factory', 'disk'), [
    ('IVF8,PQ4x4', True), ('PCA8,IVF8,SQ8', True),
    *((factory, False) for factory in ('IVF8,PQ4x4', 'PCA8,IVF8,SQ8', 'Flat', 'HNSW16', 'SQ8',
                                       'IVF8,PQ4x4fs', 'IVF8,PQ4x4,RFlat'))])
def test_shards_merge_into_what_one_index_would_be(factory, disk, tmp_path):
    settings = dict(search_parameters=dict(nprobe=8) if 'IVF' in factory else dict(),
                    rescore=factory == 'IVF8,PQ4x4')
    vectors = blobs(600)
    trained = FaissIndex(factory, **settings)
    trained.train(vectors)
    trained.save(tmp_path / 'trained')
    whole, parts = trained.empty_copy(), []
    whole.add(vectors, ids(600))
    for number, (start, stop) in enumerate(((0, 200), (200, 210), (210, 210), (210, 600))):
        shard = FaissIndex.load(tmp_path / 'trained')
        shard.add(vectors[start:stop], ids(stop - start, start))
        if number == 0:
            shard.remove(ids(30))
        shard.save(tmp_path / f'shard{number}')
        parts.append(tmp_path / f'shard{number}')
    whole.remove(ids(30))
    merged = FaissIndex.merge(parts, on_disk=tmp_path / 'work' if disk else None)
    assert list(merged.ids) == list(whole.ids) and merged.removed == 0
    if factory in ('HNSW16', 'IVF8,PQ4x4fs'):  # a graph, or codes of codes
        hits = [len(set(a) & set(b)) for a, b in zip(
            merged.search(blobs(9, 5), 20).ids, whole.search(blobs(9, 5), 20).ids, strict=True)]
        assert np.mean(hits) > 19
    else:
        assert same(merged, whole)
    alone = FaissIndex.merge(parts[-1:], on_disk=tmp_path / 'other' if disk else None)
    assert list(alone.ids) == ids(390, 210)
    merged.add(blobs(5, 8), list('abcde'))
    merged.remove(['#300'])
    merged.save(tmp_path / 'merged')
    assert same(FaissIndex.load(tmp_path / 'merged'), merged)


def test_what_cannot_be_merged(tmp_path):
    one, other = filled(seed=0), filled(seed=1)
    with pytest.raises(ValueError, match='Part 1 was trained apart'):
        FaissIndex.merge([one, other])
    with pytest.raises(ValueError, match="factory 'Flat'"):
        FaissIndex.merge([one, filled('Flat')])
    with pytest.raises(ValueError, match="Already in the index: '#0'"):
        FaissIndex.merge([one, one])
    with pytest.raises(ValueError, match='nothing to merge'):
        FaissIndex.merge([])
    with pytest.raises(TypeError, match='sequence of indexes'):
        FaissIndex.merge('file')
    with pytest.raises(ValueError, match='not trained yet'):
        FaissIndex('IVF8,Flat').empty_copy()


def test_files_that_are_cut_short_while_an_index_is_open(tmp_path):
    """An index file is read when it is loaded; lists on disk stay mapped."""
    index = filled('IVF8,Flat', 3000, rescore=True)
    index.save(tmp_path / 'memory')
    listed = filled('IVF8,Flat', 3000, on_disk=tmp_path / 'work')
    listed.save(tmp_path / 'disk')
    loaded, opened = FaissIndex.load(tmp_path / 'memory'), FaissIndex.load(tmp_path / 'disk')
    working = FaissIndex.load(tmp_path / 'disk', on_disk=tmp_path / 'other')
    os.truncate(tmp_path / 'memory', 4096)
    for folder, pattern in ((tmp_path, 'disk.*.lists'), (tmp_path / 'other', '*.lists')):
        os.truncate(next(folder.glob(pattern)), 4096)

    def check():
        assert same(loaded, index) and list(loaded.ids) == ids(3000)
        loaded.save(tmp_path / 'again')
        uses = (lambda of: of.search(blobs(2, 5), 3), lambda of: of.range_search(blobs(2), 0.5),
                lambda of: of.save(tmp_path / 'copy'), lambda of: of.add(blobs(1), ['x']),
                lambda of: of.remove(ids(1)))
        for cut, use in itertools.product((opened, working), uses):
            with pytest.raises(DamagedError, match='cut off after 4096'):
                use(cut)

    in_a_child(check)
