import os

import numpy as np
import pytest
from PIL import Image

from retrieval.datasets import CSVDataset
from retrieval.registry import DATASETS

from .toys import save

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackInputs'}]
FULL = """path,label,split,is_query,is_gallery
t0.png,7,train,,
t1.png,3,train,,
t2.png,7,train,,
v0.png,12,validation,True,False
v1.png,5,validation,0,1
v2.png,12,validation,no,yes
v3.png,5,validation,TRUE,true
"""


@pytest.fixture
def table(tmp_path):
    """Writes a CSV beside images that it names, and returns its path."""
    def write(text, name='data.csv', make=True):
        path = tmp_path / name
        path.write_text(text)
        for line in text.splitlines()[1:] if make else []:
            image = tmp_path / line.split(',')[0]
            if image.suffix == '.png':
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.arange(100, dtype=np.uint8).reshape(10, 10)).save(image)
        return str(path)
    return write


def names(dataset):
    return [name.rsplit('/', 1)[1] for name in dataset.sample_ids]


def rows(text, header='path,label,split'):
    return header + '\n' + text.replace(' ', '\n') + '\n'


def test_splits_and_labels(table):
    path = table(FULL)
    train = DATASETS.build({'type': 'CSVDataset', 'ann_file': path, 'pipeline': PIPELINE})
    assert names(train) == ['t0.png', 't1.png', 't2.png']
    assert train.labels.tolist() == [1, 0, 1] and train.label_names == ['3', '7']
    assert train[2]['data_samples'].gt_label.tolist() == [1]
    query, gallery = (CSVDataset(path, split=split) for split in ('query', 'gallery'))
    assert names(query) == ['v0.png', 'v3.png'] and query.labels.tolist() == [1, 0]
    assert names(gallery) == ['v1.png', 'v2.png', 'v3.png'] and gallery.labels.tolist() == [0, 1, 0]
    assert query.label_names == gallery.label_names == ['5', '12']  # by number, not by letter
    for split in ('validation', 'val'):
        assert len(CSVDataset(path, split=split)) == 4


def test_without_flags_all_are_both(table):
    path = table(rows('a.png,x,train b.png,x,val c.png,y,val'))
    for split in ('query', 'gallery'):
        assert names(CSVDataset(path, split=split)) == ['b.png', 'c.png']
    assert CSVDataset(path, split='query').label_names == ['x', 'y']


def test_test_split_and_both(table):
    path = table(rows('a.png,1,train b.png,1,test'))
    assert names(CSVDataset(path, split='gallery')) == names(CSVDataset(path, split='test'))
    both = table(rows('a.png,1,test b.png,1,val'), 'both.csv')
    with pytest.raises(ValueError, match='evaluation_split'):
        CSVDataset(both, split='query')
    assert names(CSVDataset(both, split='query', evaluation_split='val')) == ['b.png']
    assert names(CSVDataset(both, split='test')) == ['a.png']
    with pytest.raises(ValueError, match='evaluation_split'):
        CSVDataset(both, split='query', evaluation_split='train')


def test_labels_share_a_mapping_where_query_and_gallery_differ(table):
    path = table('path,label,split,is_query,is_gallery\n'
                 'q.png,b,val,1,0\ng.png,a,val,0,1\nh.png,b,val,0,1\n')
    assert CSVDataset(path, split='query').labels.tolist() == [1]
    assert CSVDataset(path, split='gallery').labels.tolist() == [0, 1]


@pytest.mark.parametrize('labels, want', [
    (['3.0', '1.', '3'], ['1.', '3', '3.0']),  # what is written counts
    (['1_12', '11_2', '112'], ['112', '11_2', '1_12']),
    (['0012', '12', '１２', '+12', '-0'], ['+12', '-0', '0012', '12', '１２']),
    (['18446744073709551616', '2'], ['18446744073709551616', '2']),
    (['9007199254740993', '9007199254740992'], ['9007199254740992', '9007199254740993']),
    (['10', '9', 'x'], ['10', '9', 'x']),
    (['-1', '0'], ['-1', '0']),
    (['1e5', '12e3'], ['12e3', '1e5']),
    (['None', 'NA', 'null'], ['NA', 'None', 'null']),
    ([' dog', 'dog '], ['dog']),
    (['v1.5', 'v1.6'], ['v1.5', 'v1.6']),
])
def test_kinds_of_labels(table, labels, want):
    path = table(rows(''.join(f'{n}.png,{label},train\n' for n, label in enumerate(labels))
                      .replace(' ', '\t').rstrip('\n')))
    dataset = CSVDataset(path)
    assert dataset.label_names == want
    assert dataset.labels.dtype == np.int64 and set(dataset.labels) == set(range(len(want)))


def test_metadata_columns(table):
    path = table('path,label,split,sequence,category,other\na.png,1,train,cam 2,shoes,z\n')
    dataset = CSVDataset(path, pipeline=PIPELINE)
    assert dataset.metadata == {'sequence': ['cam 2'], 'category': ['shoes']}
    assert dataset[0]['data_samples'].sequence == 'cam 2'
    plain = CSVDataset(table(rows('a.png,1,train'), 'plain.csv'))
    assert plain.metadata == {}


def test_named_columns_become_metadata(table):
    """Their kind is that of the whole table, so that queries and gallery agree."""
    path = table('path,label,split,is_query,is_gallery,vendor,year,code,other\n'
                 'a.png,1,val,1,0, Fiat ,2020,7,z\nb.png,1,val,0,1,Seat,1999,007,z\n')
    kept = dict(metadata_keys=['vendor', 'year', 'code'], pipeline=PIPELINE)
    query, gallery = (CSVDataset(path, split=split, **kept) for split in ('query', 'gallery'))
    assert query.metadata == {'vendor': ['Fiat'], 'year': [2020], 'code': ['7']}
    assert gallery.metadata == {'vendor': ['Seat'], 'year': [1999], 'code': ['007']}
    assert query[0]['data_samples'].year == 2020
    assert CSVDataset(path, split='query', metadata_keys='year').metadata == {'year': [2020]}
    with pytest.raises(ValueError, match="no column 'vender'; there are .*'vendor'"):
        CSVDataset(path, split='query', metadata_keys=['vender'])
    with pytest.raises(ValueError, match="'gt_label', which an entry of a dataset has already"):
        CSVDataset(path, split='query', metadata_keys=['gt_label'])


def test_names_of_files_may_have_any_bytes_and_labels_are_utf_8(tmp_path):
    name = os.fsencode(tmp_path) + b'/caf\xe9.png'
    Image.new('L', (2, 2)).save(tmp_path / 'a.png')
    os.rename(tmp_path / 'a.png', name)
    (tmp_path / 'x.csv').write_bytes(b'path,label,split\ncaf\xe9.png,K\xc3\xb6ln,train\n')
    dataset = CSVDataset(str(tmp_path / 'x.csv'))
    assert dataset.sample_ids == [os.fsdecode(name)] and dataset.label_names == ['Köln']
    (tmp_path / 'x.csv').write_bytes(b'path,label,split\na.png,K\xf6ln,train\n')
    with pytest.raises(ValueError, match=r"not a CSV file in UTF-8: .*'label' .*in 1 row \(1;"):
        CSVDataset(str(tmp_path / 'x.csv'))


def test_boxes_are_cropped_and_part_of_the_identity(table):
    path = table('path,label,split,x_1,x_2,y_1,y_2\n'
                 'a.png,1,train,2,5,1,9\na.png,1,train,0,4.5,0,3\na.png,2,train,,,,\n')
    dataset = CSVDataset(path, pipeline=[{'type': 'LoadImage', 'color': 'gray'},
                                         {'type': 'PackInputs'}])
    assert names(dataset) == ['a.png#2,1,5,9', 'a.png#0,0,4.5,3', 'a.png']
    item = dataset[0]
    assert item['data_samples'].box == (2, 1, 5, 9)
    np.testing.assert_array_equal(item['inputs'][0].numpy(),
                                  np.arange(100).reshape(10, 10)[1:9, 2:5])
    assert dataset[2]['inputs'].shape == (1, 10, 10) and 'box' not in dataset[2]['data_samples']


def test_where_paths_start(tmp_path, table):
    path = table(rows('sub/a.png,1,train'))
    assert CSVDataset(path).sample_ids == [str(tmp_path / 'sub' / 'a.png')]
    assert CSVDataset('data.csv', data_root=str(tmp_path)).sample_ids == CSVDataset(path).sample_ids
    inner = table(rows('a.png,1,train'), 'inner.csv', make=False)
    assert CSVDataset(inner, data_root=str(tmp_path / 'sub')).sample_ids == [
        str(tmp_path / 'sub' / 'a.png')]
    absolute = table(rows(f'{tmp_path}/sub/a.png,1,train'), 'abs.csv', make=False)
    assert CSVDataset(absolute, data_root='/nowhere').sample_ids == [
        str(tmp_path / 'sub' / 'a.png')]


def test_spreadsheets(tmp_path, table):
    """A byte order mark, spaces after commas and columns in another order."""
    table(rows('a.png,1,train'))
    (tmp_path / 'x.csv').write_bytes('\ufefflabel, split, path\n1, train, a.png\n'.encode())
    assert CSVDataset(str(tmp_path / 'x.csv')).label_names == ['1']


@pytest.mark.parametrize('text, split, message', [
    ('path,label,is_query\na.png,1,1\n', 'train', "no column 'split'; there are 'path', 'label', "
     "'is_query'"),
    ('file,class\n', 'train', "no column 'path', 'label', 'split'"),
    ('path,label,split,x_1\na.png,1,train,3\n', 'train', "no column 'x_2', 'y_1', 'y_2'|"
     "no column 'y_1', 'x_2', 'y_2'"),
    (rows('a.png,1,train b.png,,train c.png,nan,train'), 'train', r'no label in 2 rows \(2, 3;'),
    (rows('a.png,1,train b.png,1.5,train'), 'train', r"fraction, '1.5', in 1 row \(2;"),
    (rows('a.png,x,train b.png,2.5e-1,train'), 'train', r"fraction, '2.5e-1'"),
    (rows('a.png,1,trian'), 'train', r"unknown split 'trian' in 1 row \(1;"),
    (rows('a.png,1,val'), 'train', "no row for split 'train'; .*validation 1"),
    (rows('a.png,1,train'), 'query', "no row for split 'query'; .*train 1"),
    ('path,label,split,is_query,is_gallery\na.png,1,val,False,1\n', 'query', "no row for split"),
    ('path,label,split,is_query,is_gallery\na.png,1,val,maybe,1\n', 'query',
     r"'is_query' must hold True or False, but 'maybe' stands in 1 row \(1;"),
    ('path,label,split,is_query,is_gallery\na.png,1,val,,1\n', 'query', "but '' stands"),
    ('path,label,split,x_1,x_2,y_1,y_2\na.png,1,train,5,2,1,4\n', 'train', 'x_1 < x_2.*1 row'),
    ('path,label,split,x_1,x_2,y_1,y_2\na.png,1,train,2,5,4,4\n', 'train', 'y_1 < y_2'),
    ('path,label,split,x_1,x_2,y_1,y_2\na.png,1,train,2,5,,4\n', 'train', 'must have numbers'),
    ('path,label,split,x_1,x_2,y_1,y_2\na.png,1,train,2,5,a,4\n', 'train', 'must have numbers'),
    (rows(',1,train'), 'train', "'path' is empty in 1 row"),
    ('', 'train', 'is not a CSV file'),
    ('path,label,split\na.png,1,train,4,5\n"b', 'train', 'is not a CSV file'),
    (rows('a.png,1,train,9'), 'train', 'more cells than its header'),
    (rows('a.png,1,train'), 'galery', "Did you mean 'gallery'"),
])
def test_bad_tables(table, text, split, message):
    with pytest.raises(ValueError, match=message):
        CSVDataset(table(text), split=split)


def test_other_splits_may_lack_labels(table):
    path = table(rows('a.png,1,train b.png,,test c.png,1.5,test'))
    assert CSVDataset(path).label_names == ['1']


def test_missing_files(tmp_path, table):
    with pytest.raises(FileNotFoundError, match=r"no CSV file '.*absent\.csv'"):
        CSVDataset('absent.csv', data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no image '.*a\.png', the first.*data_root"):
        CSVDataset(table(rows('a.png,1,train'), make=False))
    with pytest.raises(ValueError, match='needs `ann_file`'):
        CSVDataset('')


def test_the_same_row_twice_is_named(table):
    dataset = CSVDataset(table(rows('a.png,1,train a.png,1,train')))
    with pytest.raises(ValueError, match=r'a\.png.*more than once'):
        dataset.sample_ids  # noqa: B018


@pytest.mark.parametrize('path', ['../x.png', '/etc/hostname', 'deep/../../x.png'])
def test_inside_root(tmp_path, path):
    root = tmp_path / 'root'
    save(root / 'a.png')
    save(tmp_path / 'x.png')
    (root / 'list.csv').write_text(f'path,label,split\na.png,1,train\n{path},1,train\n')
    assert len(CSVDataset('list.csv', str(root))) == 2
    with pytest.raises(ValueError, match='not below data_root'):
        CSVDataset('list.csv', str(root), inside_root=True)
    (root / 'list.csv').write_text('path,label,split\na.png,1,train\ndeep/../a.png,1,train\n')
    assert len(CSVDataset(str(root / 'list.csv'), inside_root=True)) == 2
