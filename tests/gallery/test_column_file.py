"""Labels and other columns out of files of every kind."""
import argparse
import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from retrieval.gallery import Gallery, read_column

NAMES = ['cat', 'dog', 'cat']


def test_arrays_and_tensors(tmp_path):
    np.save(tmp_path / 'l.npy', NAMES)
    np.savez(tmp_path / 'one.npz', anything=[3, 1, 3])
    np.savez(tmp_path / 'l.npz', labels=NAMES, camera=[1, 2, 3])
    torch.save(torch.tensor([3, 1, 3]), tmp_path / 'l.pth')
    torch.save(NAMES, tmp_path / 'list.pth')
    torch.save({'label': torch.tensor([3, 1, 3]), 'embeddings': torch.eye(3)}, tmp_path / 'd.pth')
    torch.save(torch.tensor([3, 1, 3]), tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    for name in ('l.npy', 'l.npz', 'list.pth'):
        assert list(read_column(tmp_path / name)) == NAMES
    for name in ('one.npz', 'l.pth', 'd.pth', 'old.pt'):
        assert list(read_column(tmp_path / name)) == [3, 1, 3]
    assert list(read_column(f'{tmp_path}/l.npz:camera')) == [1, 2, 3]
    assert list(read_column(tmp_path / 'l.npz', 'cameras')) == [1, 2, 3]


@pytest.mark.parametrize('data', [
    b'cat\ndog\ncat\n', b'\xef\xbb\xbfcat\ndog\ncat', b'cat\r\ndog\r\ncat\r\n',
    b'cat \n dog\ncat\n\n', b'cat\rdog\rcat\r'])
def test_lines_of_text(tmp_path, data):
    (tmp_path / 'l.txt').write_bytes(data)
    assert read_column(tmp_path / 'l.txt') == NAMES


@pytest.mark.parametrize(('text', 'wanted'), [
    ('1\n2\n', [1, 2]), ('1_12\n11_2\n', ['1_12', '11_2']), ('0012\n12\n', ['0012', '12']),
    ('a\u2028b\nc\x0bd\n', ['a\u2028b', 'c\x0bd']), ('NA\nNone\n', ['NA', 'None'])])
def test_a_value_is_what_is_written(tmp_path, text, wanted):
    (tmp_path / 'l.txt').write_text(text, encoding='utf-8')
    assert read_column(tmp_path / 'l.txt') == wanted


def test_columns_of_tables(tmp_path):
    table = pd.DataFrame(dict(path=list('abc'), brand=NAMES, label=[7, 8, 9]))
    table.to_csv(tmp_path / 't.csv', index=False, encoding='utf-8-sig')
    table.to_csv(tmp_path / 't.tsv', index=False, sep='\t')
    table.to_csv(tmp_path / 'semicolon.csv', index=False, sep=';')
    for name in ('t.csv', 't.tsv', 'semicolon.csv'):
        assert read_column(f'{tmp_path}/{name}:brand') == NAMES
        assert read_column(tmp_path / name) == [7, 8, 9]
        assert read_column(tmp_path / name, 'ids') == list('abc')
    (tmp_path / 'plain.csv').write_text('cat\ndog\ncat\n')
    (tmp_path / 'headed.csv').write_text('label\ncat\ndog\ncat\n')
    assert read_column(tmp_path / 'plain.csv') == read_column(tmp_path / 'headed.csv') == NAMES


def test_columns_of_parquet(tmp_path):
    pytest.importorskip('pyarrow')
    pd.DataFrame(dict(brand=NAMES, camera=[1, 2, 1])).to_parquet(tmp_path / 't.parquet')
    assert list(read_column(f'{tmp_path}/t.parquet:brand')) == NAMES
    assert list(read_column(tmp_path / 't.parquet', 'cameras')) == [1, 2, 1]
    days = pd.to_datetime(['2024-05-31', '2023-01-02'])
    pd.DataFrame(dict(day=days)).to_parquet(tmp_path / 'days.parquet')
    assert [day[:10] for day in read_column(f'{tmp_path}/days.parquet:day')] == [
        '2024-05-31', '2023-01-02']


def test_columns_of_galleries(tmp_path):
    Gallery(np.eye(3), 'xyz', NAMES, metadata=dict(camera=[1, 2, 3])).save(
        tmp_path / 'g.safetensors')
    assert list(read_column(tmp_path / 'g.safetensors')) == NAMES
    assert list(read_column(tmp_path / 'g.safetensors', 'ids')) == list('xyz')
    assert list(read_column(tmp_path / 'g.safetensors', 'cameras')) == [1, 2, 3]
    Gallery(np.eye(3), 'xyz', metadata=dict(brand=NAMES)).save(tmp_path / 'one.safetensors')
    assert list(read_column(tmp_path / 'one.safetensors:brand')) == NAMES
    with pytest.raises(ValueError, match='brand'):  # what there is is named
        read_column(tmp_path / 'one.safetensors')


def test_ids_may_be_names_of_files_with_any_bytes(tmp_path):
    (tmp_path / 'ids.txt').write_bytes(b'caf\xe9.png\n\nb.png\n')
    (tmp_path / 'ids.csv').write_bytes(b'id,x\ncaf\xe9.png,1\nb.png,2\n')
    for name in ('ids.txt', 'ids.csv'):
        assert read_column(tmp_path / name, 'ids') == [os.fsdecode(b'caf\xe9.png'), 'b.png']


def refused(tmp_path):
    """Files that hold no labels, with a part of the message."""
    Image.new('L', (3, 3)).save(tmp_path / 'a.png')
    torch.save({'args': argparse.Namespace(x=1)}, tmp_path / 'n.pth')
    np.save(tmp_path / 'o.npy', np.array([{}, 1], dtype=object))
    np.savez(tmp_path / 'two.npz', a=[1], b=[2])
    (tmp_path / 't.csv').write_text('path,brand\na,1\n')
    (tmp_path / 'wide.csv').write_text('path,brand\na,1,2,3\n')
    (tmp_path / 'gap.txt').write_text('cat\n\ndog\n')
    (tmp_path / 'gap.csv').write_text('label,x\ncat,1\n,2\n')
    (tmp_path / 'latin.txt').write_bytes(b'cat\nK\xf6ln\n')
    (tmp_path / 'l16.txt').write_bytes('cat\n'.encode('utf-16'))
    os.mkfifo(tmp_path / 'pipe')
    return {'a.png': r'a picture \(PNG\)', 'n.pth': 'a file of torch.save',
            'o.npy': 'array of NumPy', 'two.npz': "several columns, 'a', 'b'",
            't.csv': "several columns, 'path', 'brand'", 't.csv:brnad': "Did you mean 'brand'",
            'wide.csv': 'more cells', 'gap.txt': 'line 2 has no',
            'gap.csv': 'row 2 has no value', 'latin.txt': 'line 2 is not in UTF-8',
            'l16.txt': 'UTF-16', 'pipe': 'a named pipe', '.': 'a folder'}


def test_other_files_are_named(tmp_path):
    for name, message in refused(tmp_path).items():
        with pytest.raises(ValueError, match=message) as raised:
            read_column(f'{tmp_path}/{name}')
        assert name.split(':')[0] in str(raised.value) and 'weights_only' not in str(raised.value)
    with pytest.raises(FileNotFoundError, match='no cameras at'):
        read_column(tmp_path / 'none.txt', 'cameras')
