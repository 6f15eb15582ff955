"""Galleries in memory: what they refuse, their changes, and that they come back from a file."""
import numpy as np
import pytest
import torch

from retrieval.gallery import Fingerprint, FingerprintError, Gallery, UnknownIdError

from .examples import contents, example, rows_of


def test_subsets():
    gallery = example(6)
    chosen = gallery.subset([4, -6, 2])
    assert list(chosen.ids) == ['4', '0', '2'] and chosen.labels.tolist() == [1, 0, 2]
    assert torch.equal(chosen.embeddings, gallery.embeddings[[4, 0, 2]])
    assert chosen.describe(0) == gallery.describe(4) and chosen.similarity == 'cosine_similarity'
    mask = torch.tensor([True, False] * 3)
    assert list(gallery.subset(mask).ids) == ['0', '2', '4']
    assert gallery.subset(gallery.find(['5', '1'])).labels.tolist() == [2, 1]
    bare = Gallery(torch.randn(4, 2)).subset([3, 1])
    assert not bare.identified and list(bare.ids) == ['0', '1']


@pytest.mark.parametrize('rows, error, words', [
    ([], ValueError, 'No row'), ([9], IndexError, '6 rows'), ([0, -6], ValueError, 'twice'),
    ([True], ValueError, '6 rows'), ([0.5], ValueError, 'row numbers'), ([[1]], ValueError, 'row')])
def test_wrong_rows(rows, error, words):
    with pytest.raises(error, match=words):
        example(6).subset(rows)


def test_filter():
    gallery = example(12)
    assert list(gallery.filter(camera=1, label=['cat', 'dog']).ids) == ['1', '3', '7', '9']
    assert list(gallery.filter(city='Zürich 2').ids) == ['4', '5']
    assert list(gallery.filter(lambda row: row['score'] > 0.8 and row['id'] != '10').ids) == [
        '9', '11']
    assert list(gallery.filter(np.arange(12) > 9, camera=0).ids) == ['10']
    assert list(gallery.filter(id=['3', '99']).ids) == ['3']
    numbered = example(12, label_names=None)
    assert list(numbered.filter(label=2).ids) == ['2', '5', '8', '11']
    for wrong, words in ((dict(camrea=1), "'camrea'.*camera"), (dict(camera='x'), "camera: .*'x'"),
                         (dict(city='Bern'), 'No row'), (dict(keep=[True]), 'mask')):
        with pytest.raises(ValueError, match=words):
            gallery.filter(**wrong)


def test_split_and_chunks():
    gallery = example(7)
    parts = gallery.split('label')
    assert list(parts) == ['cat', 'dog', 'ünïcode']
    assert [list(part.ids) for part in parts.values()] == [['0', '3', '6'], ['1', '4'], ['2', '5']]
    assert {camera: len(part) for camera, part in gallery.split('camera').items()} == {0: 4, 1: 3}
    halves = gallery.split(['train'] * 3 + ['test'] * 4)
    assert list(halves['test'].ids) == ['3', '4', '5', '6']
    assert [len(part) for part in gallery.chunks(3)] == [3, 3, 1]
    assert rows_of(Gallery.merge(list(gallery.chunks(3)))) == rows_of(gallery)
    with pytest.raises(ValueError, match='2 values'):
        gallery.split([1, 2])
    with pytest.raises(ValueError, match='colour'):
        gallery.split('colour')


def test_merge_matches_labels_by_name():
    one = example(3, 'a', label_names=['cat', 'dog', 'cow'], labels=[0, 1, 2])
    two = example(4, 'b', seed=1, label_names=['emu', 'dog', 'ant', 'cat'], labels=[3, 1, 0, 2])
    merged = one.add(two)
    assert list(merged.ids) == ['a0', 'a1', 'a2', 'b0', 'b1', 'b2', 'b3']
    assert [merged.label_name(row) for row in range(7)] == [
        'cat', 'dog', 'cow', 'cat', 'dog', 'emu', 'ant']
    assert merged.label_names[:3] == ['cat', 'dog', 'cow']
    assert merged.skipped == {'abad.png': 'truncated', 'bbad.png': 'truncated'}
    expected = {**rows_of(one), **rows_of(two)}
    assert rows_of(merged) == expected
    plain = example(2, 'c', label_names=None).add(example(2, 'd', label_names=None))
    assert plain.labels.tolist() == [0, 1, 0, 1] and plain.label_names is None
    bare = Gallery(torch.ones(2, 2)).add(Gallery(torch.zeros(1, 2)))
    assert not bare.identified and list(bare.ids) == ['0', '1', '2']


def test_merged_dtypes(tmp_path):
    example(3, 'a').save(tmp_path / 'a.safetensors', 'int8')
    example(3, 'b').save(tmp_path / 'b.safetensors', 'int8')
    one, two = (Gallery.load(tmp_path / f'{name}.safetensors') for name in 'ab')
    merged = one.add(two)
    assert merged.dtype == 'int8' and rows_of(merged) == {**rows_of(one), **rows_of(two)}
    assert one.add(example(1, 'c')).dtype == 'float32'
    assert one.subset([1]).dtype == 'int8' and one.remove(['a1']).dtype == 'int8'


def test_update_and_remove():
    gallery, new = example(6), example(6, seed=5).subset([4, 1])
    updated = gallery.update(new)
    assert list(updated.ids) == list(gallery.ids)
    expected = rows_of(gallery)
    expected.update(rows_of(new))
    assert rows_of(updated) == expected
    removed = updated.remove(['0', '5'])
    assert list(removed.ids) == ['1', '2', '3', '4']
    assert rows_of(removed) == {name: row for name, row in expected.items() if name not in '05'}
    assert contents(gallery) == contents(example(6)), 'the gallery itself was changed'


@pytest.mark.parametrize('change, error, words', [
    (lambda g: g.remove(['x']), UnknownIdError, "'x'; nothing was changed.*like '0'"),
    (lambda g: g.remove(['x']), KeyError, "'x'"),
    (lambda g: g.remove('0'), TypeError, r"\['0'\]"),
    (lambda g: g.remove(['0', '0']), ValueError, 'more than once'),
    (lambda g: g.remove(map(str, range(6))), ValueError, 'cannot be empty'),
    (lambda g: g.update(example(1, 'n')), UnknownIdError, "'n0'"),
    (lambda g: g.add(example(2)), ValueError, "'0' occurs twice"),
    (lambda g: g.add(Gallery(torch.ones(1, 4))), ValueError, 'have ids'),
    (lambda g: g.add(Gallery(torch.ones(1, 5), ids=['n'])), ValueError, 'width 4 .* width 5'),
    (lambda g: g.add(example(1, 'n', labels=None, label_names=None)), ValueError, 'have labels'),
    (lambda g: g.add(example(1, 'n', label_names=None)), ValueError, 'have label names'),
    (lambda g: g.add(example(1, 'n', labels=[7])), ValueError, 'give each class a name'),
    (lambda g: g.add(example(1, 'n', labels=[1], label_names=['x'])), ValueError,
     'give each class a name'),
    (lambda g: g.add(example(1, 'n', metadata=dict(camera=[1]))), ValueError, "'city', 'score'"),
    (lambda g: g.add(example(1, 'n', metadata=dict(camera=['x'], city=['x'], score=[1.0]))),
     ValueError, "'camera' holds numbers"),
    (lambda g: g.add(example(1, 'n', fingerprint=Fingerprint('other'))), FingerprintError,
     "encoder's weights differ"),
    (lambda g: g.add(example(1, 'n', similarity='euclidean')), ValueError, 'euclidean'),
    (lambda g: Gallery.merge([]), ValueError, 'at least one'),
    (lambda g: Gallery(torch.ones(2, 2)).remove(['0']), ValueError, 'has no ids')])
def test_refused_changes(change, error, words):
    with pytest.raises(error, match=words):
        change(example(6))


def test_what_one_side_does_not_know_is_taken_from_the_other():
    merged = example(1, 'a', fingerprint=Fingerprint('w'), similarity=None).add(
        example(1, 'b', fingerprint=Fingerprint(pipeline='t')))
    assert merged.fingerprint == Fingerprint('w', pipeline='t')
    assert merged.similarity == 'cosine_similarity'


def with_metadata(**kwargs):
    torch.manual_seed(0)
    defaults = dict(
        ids=['a.png', 'ü.png', 'c/d.png'], labels=[2, 2**24 + 1, 2**53], metadata=dict(
            camera=[3, 1, 2], city=['Bern', 'Zürich', '']),
        fingerprint=Fingerprint('w', 'p', None), source=dict(checkpoint='x.pth'),
        skipped={'bad.png': 'truncated'})
    return Gallery(torch.randn(3, 4), **{**defaults, **kwargs})


def test_a_gallery_comes_back_as_it_was_written(tmp_path):
    gallery = with_metadata(label_names=None)
    path = tmp_path / 'sub' / 'gallery.safetensors'
    gallery.save(path)
    again = Gallery.load(path)
    assert torch.equal(again.embeddings, gallery.embeddings)
    assert list(again.ids) == ['a.png', 'ü.png', 'c/d.png'] and again.identified
    assert again.labels.tolist() == [2, 2**24 + 1, 2**53]
    assert list(again.metadata['city']) == ['Bern', 'Zürich', '']
    assert again.metadata['camera'].tolist() == [3, 1, 2]
    assert again.describe(1) == dict(camera=1, city='Zürich')
    assert again.fingerprint == Fingerprint('w', 'p', None)
    assert again.source['checkpoint'] == 'x.pth' and 'torch' in again.source['versions']
    assert again.skipped == {'bad.png': 'truncated'}
    assert again.rows == {'a.png': 0, 'ü.png': 1, 'c/d.png': 2}
    assert [p.name for p in path.parent.iterdir()] == ['gallery.safetensors']


def test_label_names(tmp_path):
    gallery = with_metadata(labels=[0, 1, 7], label_names=['cat', 'dog'])
    gallery.save(tmp_path / 'g.safetensors')
    again = Gallery.load(tmp_path / 'g.safetensors')
    assert [again.label_name(row) for row in range(3)] == ['cat', 'dog', '7']
    assert with_metadata(labels=None).label_name(0) is None


def test_a_bare_tensor_has_no_identity(tmp_path):
    gallery = Gallery(torch.randn(3, 4))
    assert not gallery.identified and list(gallery.ids) == ['0', '1', '2']
    gallery.save(tmp_path / 'g.safetensors')
    assert not Gallery.load(tmp_path / 'g.safetensors').identified


@pytest.mark.parametrize('embeddings, error', [
    (torch.zeros(0, 4), 'empty'), (torch.zeros(4, 0), 'empty'), (torch.zeros(4), r'\(N, D\)'),
    (torch.tensor([[0., 1.], [float('nan'), 0.]]), 'row 1'),
    (torch.tensor([[0., float('inf')]]), 'not finite')])
def test_embeddings_that_cannot_be_searched(embeddings, error):
    with pytest.raises(ValueError, match=error):
        Gallery(embeddings)


def test_other_wrong_arguments():
    with pytest.raises(TypeError, match='floating-point'):
        Gallery(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match='list'):
        Gallery([[0.0]])
    with pytest.raises(ValueError, match="'a' occurs twice"):
        with_metadata(ids=['a', 'b', 'a'])
    with pytest.raises(ValueError, match='labels has 2 entries for 3'):
        with_metadata(labels=[1, 2])
    with pytest.raises(ValueError, match="'city'"):
        with_metadata(metadata=dict(city=['x']))
    with pytest.raises(ValueError, match='whole numbers'):
        with_metadata(labels=[0.5, 1, 2])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / 'g.safetensors'
    with_metadata().save(path)
    data = path.read_bytes()
    for cut in (0, 4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match='g.safetensors'):
            Gallery.load(path)
    with pytest.raises(FileNotFoundError, match='dump_prototype'):
        Gallery.load(tmp_path / 'none.safetensors')


def test_labels_may_be_names():
    rows = np.eye(3, dtype=np.float32)
    named = Gallery(rows, labels=['dog', 'cat ', 'dog'])
    assert named.labels.tolist() == [1, 0, 1] and named.label_names == ['cat', 'dog']
    placed = Gallery(rows, labels=np.array(['b', 'a', 'b']), label_names=['b', 'x', 'a'])
    assert placed.labels.tolist() == [0, 2, 0] and placed.label_name(1) == 'a'
    assert [len(part) for part in named.split('label').values()] == [2, 1]
    for labels, names, message in (
            (['a', 'b', 'c'], ['a', 'b'], "'c' of row 2 is none of label_names"),
            (['a', None, 'c'], None, 'no value in row 1'),
            (['a', 1, 'c'], None, 'mix names and numbers'),
            ([0, 1, np.inf], None, 'inf in row 2')):
        with pytest.raises(ValueError, match=message):
            Gallery(rows, labels=labels, label_names=names)
