import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from retrieval.gallery import Gallery, import_gallery

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
CSV = 'sku,brand,price,stock\nA1,Fiat,9.50,3\nA2,Seat,,12\nA3,Fiat,20,7\n'


@pytest.fixture()
def table(tmp_path):
    (tmp_path / 'items.csv').write_text(CSV)
    return tmp_path / 'items.csv'


def save(kind, path):
    if kind == 'npy':
        np.save(path, ROWS)
    elif kind == 'npz':
        np.savez(path, embeddings=ROWS)
    elif kind == 'pth':
        torch.save(torch.from_numpy(ROWS), path)
    elif kind == 'safetensors':
        save_file({'image_embeds': torch.from_numpy(ROWS)}, path)
    else:
        pd.DataFrame({'vector': list(ROWS)}).to_parquet(path)


@pytest.mark.parametrize('kind', ['npy', 'npz', 'pth', 'safetensors', 'parquet'])
def test_embeddings_of_each_kind_with_a_table(tmp_path, table, kind):
    path = tmp_path / f'emb.{kind}'
    save(kind, path)
    gallery = import_gallery(path, table, 'sku', 'brand', numbers=['price'])
    assert list(gallery.ids) == ['A1', 'A2', 'A3']
    assert [gallery.label_name(row) for row in range(3)] == ['Fiat', 'Seat', 'Fiat']
    assert set(gallery.metadata) == {'price', 'stock'}
    assert gallery.metadata['stock'].tolist() == [3, 12, 7]  # written as whole numbers
    np.testing.assert_array_equal(gallery.metadata['price'], [9.5, np.nan, 20])
    np.testing.assert_array_equal(gallery.embeddings, ROWS)
    gallery.save(tmp_path / 'out.safetensors')
    assert Gallery.load(tmp_path / 'out.safetensors').describe(0) == dict(price=9.5, stock=3)


def test_a_price_is_what_is_written_unless_it_is_to_be_a_number(tmp_path, table):
    np.save(tmp_path / 'emb.npy', ROWS)
    assert list(import_gallery(tmp_path / 'emb.npy', table).metadata['price']) == \
        ['9.50', '', '20']


def test_a_parquet_file_with_everything(tmp_path):
    pd.DataFrame({'id': ['x', 'y', 'z'], 'embedding': list(ROWS), 'price': [1.5, 2, 3],
                  'class': [7, 7, 8]}).to_parquet(tmp_path / 'all.parquet')
    gallery = import_gallery(tmp_path / 'all.parquet', id='id', label='class')
    assert list(gallery.ids) == ['x', 'y', 'z'] and gallery.labels.tolist() == [7, 7, 8]
    assert gallery.metadata['price'].tolist() == [1.5, 2, 3]


def test_an_archive_with_ids_labels_and_more(tmp_path):
    np.savez(tmp_path / 'all.npz', features=ROWS, ids=np.array(list('xyz')),
             labels=np.array([1, 2, 1]), camera=np.array([4, 5, 6]))
    gallery = import_gallery(tmp_path / 'all.npz')
    assert list(gallery.ids) == ['x', 'y', 'z'] and gallery.labels.tolist() == [1, 2, 1]
    assert {name: values.tolist() for name, values in gallery.metadata.items()} == \
        {'camera': [4, 5, 6]}


def test_what_does_not_fit_is_refused(tmp_path, table):
    np.save(tmp_path / 'two.npy', ROWS[:2])
    np.save(tmp_path / 'emb.npy', ROWS)
    with pytest.raises(ValueError, match='3.*2'):
        import_gallery(tmp_path / 'two.npy', table)
    with pytest.raises(ValueError, match="Did you mean 'brand'"):
        import_gallery(tmp_path / 'emb.npy', table, label='brnd')
    with pytest.raises(ValueError, match="holds 'Fiat'"):
        import_gallery(tmp_path / 'emb.npy', table, numbers=['brand'])
    with pytest.raises(ValueError, match='occurs twice'):
        import_gallery(tmp_path / 'emb.npy', table, id='brand')
    with pytest.raises(FileNotFoundError):
        import_gallery(tmp_path / 'none.npy')
    torch.save({'a': torch.ones(3, 2), 'b': torch.ones(3, 2)}, tmp_path / 'two.pth')
    with pytest.raises(ValueError, match="'a', 'b'"):
        import_gallery(tmp_path / 'two.pth')
    assert import_gallery(tmp_path / 'two.pth', embedding='b').dim == 2


def test_columns_of_an_archive_keep_their_type(tmp_path):
    np.savez(tmp_path / 'all.npz', features=ROWS, price=np.array([1.1, 2, 3], np.float32),
             brand=np.array(['a', 'bc', '']))
    gallery = import_gallery(tmp_path / 'all.npz')
    assert gallery.metadata['price'].dtype in (np.float32, torch.float32)
    assert list(gallery.metadata['brand']) == ['a', 'bc', '']
