"""Indexes that faiss made, and their files."""
import faiss
import numpy as np
import pytest
import torch

from retrieval.inference import faiss_engine

from .loops import loop

ROWS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))


def of(factory='Flat', rows=ROWS):
    index = faiss.index_factory(4, factory)
    faiss_engine.add(index, rows)
    return index


def test_what_needs_it_is_trained_first():
    index = of('IVF2,Flat')
    assert index.is_trained and index.ntotal == 60
    faiss_engine.add(index, ROWS.numpy()[:5])
    assert index.ntotal == 65
    with pytest.raises(ValueError, match='faiss refuses 2 vectors of width 4 for a IndexIVFFlat'):
        of('IVF8,Flat', ROWS[:2])
    with pytest.raises(ValueError, match='columns'):
        faiss_engine.add(index, torch.zeros(2, 5))


@pytest.mark.parametrize('k', [3, 100])
def test_searches_in_pieces_with_a_row_left_out(k, monkeypatch):
    monkeypatch.setattr(faiss_engine, '_QUERIES', 4)
    index = of()
    for out, first in ((None, None), (torch.arange(9), 0), (torch.arange(30, 39), 30)):
        squares, rows = faiss_engine.search(index, ROWS[:9], k, out, None)
        expected, wanted = loop(ROWS[:9], k, ROWS, first)
        assert torch.equal(rows, wanted)
        torch.testing.assert_close(squares.double(), expected, atol=1e-5, rtol=1e-5)


def test_without_queries_and_where_too_few_are_found():
    distances, rows = faiss_engine.search(of(), torch.zeros(0, 4), 3, None, None)
    assert distances.shape == rows.shape == (0, 0) and rows.dtype == torch.int64
    lists = of('IVF8,Flat')  # of which one is looked at
    _, rows = faiss_engine.search(lists, ROWS[:5], 60, None, None)
    counts = (rows >= 0).sum(1)
    assert rows.shape[1] == counts.max() < 60


def test_a_gpu_is_taken_where_it_can_answer(monkeypatch):
    index, moved = of(), []
    monkeypatch.setattr(faiss, 'get_num_gpus', lambda: 2, raising=False)
    monkeypatch.setattr(faiss, 'index_cpu_to_gpus_list', lambda index, gpus: moved.append(gpus)
                        or index, raising=False)
    faiss_engine.search(index, ROWS[:2], 3, None, None)
    assert moved == []
    faiss_engine.search(index, ROWS[:2], 3, None, [1])
    assert moved == [[1]]
    monkeypatch.setattr(faiss_engine, '_MOST_ON_GPU', 2)
    faiss_engine.search(index, ROWS[:2], 3, None, [1])
    assert moved == [[1]]


def test_vectors_are_given_back():
    torch.testing.assert_close(faiss_engine.vectors(of(), torch.tensor([5, 2])), ROWS[[5, 2]])
    with pytest.raises(ValueError, match='IndexIVFPQFastScan cannot give its vectors back'):
        faiss_engine.vectors(of('IVF2,PQ2x4fs'), torch.tensor([0]))


def test_a_flat_index_and_its_rows():
    index = faiss_engine.flat(ROWS)
    assert type(index) is faiss.IndexFlatL2
    assert torch.equal(faiss_engine.rows_of_flat(index), ROWS)
    assert faiss_engine.rows_of_flat(faiss.IndexFlatL2(4)).shape == (0, 4)
    assert faiss_engine.rows_of_flat(faiss.IndexFlatIP(4)) is None


def test_a_file_is_one_of_faiss_with_columns_behind(tmp_path):
    path, columns = tmp_path / 'index', dict(labels=torch.arange(60), ids=torch.zeros(0))
    faiss_engine.write(of('IVF2,Flat'), path, columns)
    index, read = faiss_engine.read(path)
    assert index.ntotal == 60 and read.keys() == columns.keys()
    assert all(torch.equal(read[name], columns[name]) for name in columns)
    assert faiss.read_index(str(path)).ntotal == 60
    faiss.write_index(of(), str(tmp_path / 'theirs'))
    theirs, none = faiss_engine.read(tmp_path / 'theirs')
    np.testing.assert_array_equal(theirs.reconstruct_n(0, 60), ROWS)
    assert none == {}


def test_files_that_are_damaged_or_something_else(tmp_path):
    path = tmp_path / 'index'
    faiss_engine.write(of(), path, dict(labels=torch.arange(60)))
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) - 60] ^= 1  # in what stands behind the index
    theirs = tmp_path / 'theirs'
    faiss.write_index(of(), str(theirs))
    for content, says in ((flipped, 'is damaged'), (b'text', 'it seems to be'),
                          (theirs.read_bytes() + b'x', 'faiss reads'), (data[:99], 'no index')):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            faiss_engine.read(path)
    with pytest.raises(FileNotFoundError):
        faiss_engine.read(tmp_path / 'nowhere')
