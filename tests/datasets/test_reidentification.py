import re

import pytest

from retrieval.datasets import ReidentificationDataset


class Names(ReidentificationDataset):
    """File names without files."""

    tree = 'names/'
    pattern = re.compile(r'(?P<identity>\d+)_c(?P<camera>\d)_(?P<shot>\d)\.png')
    example = '7_c1_0.png'
    metadata_keys = ('camera', 'shot')
    counts = {'train': (3, 2), 'query': (2, 2), 'gallery': (3, 3)}
    names = {'train': ['5_c1_0.png', '2_c2_1.png', '5_c2_2.png'],
             'query': ['1008_c1_0.png', '4_c1_0.png'],
             'gallery': ['4_c2_0.png', '11_c2_3.png', '3_c3_0.png']}

    def list_images(self, split):
        return 'x', [f'x/{name}' for name in self.names[split]]

    def __init__(self, *arguments, **kwargs):
        super().__init__(*arguments, check_files=False, **kwargs)


def test_labels_and_metadata():
    train = Names('x', on_count_mismatch='raise')
    assert train.labels.tolist() == [1, 0, 1] and train.label_names == ['0002', '0005']
    assert train.metadata == {'camera': [1, 2, 2], 'shot': [0, 1, 2]}
    query, gallery = Names('x', 'query'), Names('x', 'gallery')
    assert query.label_names == gallery.label_names == ['0003', '0004', '0011', '1008']
    assert query.labels.tolist() == [3, 1] and gallery.labels.tolist() == [1, 2, 0]
    assert query.sample_ids == ['x/1008_c1_0.png', 'x/4_c1_0.png']


def test_identities_are_counted_not_labels(monkeypatch):
    """The gallery has three of the four identities that share a numbering."""
    Names('x', 'gallery', on_count_mismatch='raise')
    monkeypatch.setitem(Names.counts, 'gallery', (3, 4))
    with pytest.raises(ValueError, match='3 images of 3 classes; officially there are 3 images of '
                                         '4 classes'):
        Names('x', 'gallery', on_count_mismatch='raise')


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="split of Names 'tests'"):
        Names('x', 'tests')
    with pytest.raises(ValueError, match="Unknown on_count_mismatch 'rise'.*Did you mean 'raise'"):
        Names('x', on_count_mismatch='rise')
    monkeypatch.setitem(Names.names, 'gallery', ['a.png'])
    with pytest.raises(ValueError, match=r"(?s)'x/a\.png'.*called as in 7_c1_0\.png.*names/"):
        Names('x', 'query')
    with pytest.raises(NotImplementedError, match='implements list_images'):
        ReidentificationDataset('x')
