"""The file: what comes back, what is read when, and that no damage passes."""
import copy
import hashlib
import itertools
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from retrieval.gallery import Gallery
from retrieval.gallery.file import GALLERY_FILE
from retrieval.mapped_file import DamagedError

from ..processes import in_a_child
from .examples import contents, example


def test_everything_comes_back(tmp_path):
    gallery = example(7)
    gallery.save(tmp_path / 'g.safetensors')
    again = Gallery.load(tmp_path / 'g.safetensors')
    assert contents(again) == contents(gallery)
    again.verify()
    assert again.normalised is False and again.dtype == 'float32'
    again.embeddings[0, 0] = 9  # a private copy: the file stays
    assert contents(Gallery.load(tmp_path / 'g.safetensors')) == contents(gallery)


def test_the_file_is_plain_safetensors(tmp_path):
    gallery = example(7)
    gallery.save(tmp_path / 'g.safetensors')
    tensors = load_file(tmp_path / 'g.safetensors')
    assert torch.equal(tensors['embeddings'], gallery.embeddings)
    assert torch.equal(tensors['labels'], gallery.labels)
    assert bytes(tensors['label_names.bytes'].tolist()).decode() == 'catdogünïcode'


def test_a_file_of_version_2_from_before_is_read_and_written_the_same(tmp_path):
    """The file was written when the container and the gallery were other code."""
    path = Path(__file__).with_name('version-2.safetensors')
    old, gallery = Gallery.load(path), example(3, 'a')
    old.verify()
    wanted = {**contents(gallery), 'embeddings': old.embeddings.tolist()}
    assert contents(old) == wanted and old.dtype == 'int8'
    assert torch.allclose(old.embeddings, gallery.embeddings, atol=0.02)
    old.source['versions'] = {}
    old.save(tmp_path / 'again.safetensors')
    ours, theirs = load_file(tmp_path / 'again.safetensors'), load_file(path)
    assert list(ours) == list(theirs)
    for name in set(theirs) - {'manifest'}:  # which names the versions of libraries
        assert torch.equal(ours[name], theirs[name]), name


def test_the_same_gallery_is_the_same_file(tmp_path):
    for name in 'ab':
        example(7).save(tmp_path / name)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


@pytest.mark.parametrize('dtype, size', [('float32', 4), ('float16', 2), ('int8', 1)])
def test_half_and_quarter_sizes(tmp_path, dtype, size):
    rows = torch.nn.functional.normalize(torch.randn(40, 256))
    rows[7] = 0
    path = tmp_path / 'g.safetensors'
    Gallery(rows, ids=map(str, range(40))).save(path, dtype=dtype)
    again = Gallery.load(path)
    assert again.dtype == dtype and again.embeddings.dtype == torch.float32
    assert load_file(path)['embeddings'].element_size() == size
    bound = {'float32': 0, 'float16': 2**-11, 'int8': None}[dtype]
    for row, found in zip(rows.tolist(), again.embeddings.tolist(), strict=True):
        limit = max(map(abs, row)) / 127 / 2 * 1.001 if bound is None else bound * max(
            map(abs, row))
        assert max(abs(a - b) for a, b in zip(row, found, strict=True)) <= limit
    # saved again as it is stored, nothing is rounded twice
    again.save(tmp_path / 'again.safetensors')
    assert Gallery.load(tmp_path / 'again.safetensors').dtype == dtype
    assert torch.equal(Gallery.load(tmp_path / 'again.safetensors').embeddings, again.embeddings)
    again.save(tmp_path / 'wide.safetensors', dtype='float32')
    assert torch.equal(Gallery.load(tmp_path / 'wide.safetensors').embeddings, again.embeddings)


def test_values_that_float16_cannot_hold(tmp_path):
    rows = torch.ones(3, 4)
    rows[2, 1] = 1e5
    with pytest.raises(ValueError, match=r"Row 2 .*float16 ends at 65504.*'int8'"):
        Gallery(rows).save(tmp_path / 'g.safetensors', dtype='float16')
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match='float16'):
        Gallery(rows).save(tmp_path / 'g.safetensors', dtype='flaot16')


def test_the_manifest_says_what_it_is(tmp_path):
    gallery = Gallery(torch.nn.functional.normalize(torch.randn(9, 64)), ids=map(str, range(9)),
                      similarity='euclidean')
    for dtype in ('float32', 'float16', 'int8'):
        gallery.save(tmp_path / 'g.safetensors', dtype)
        manifest = Gallery.load(tmp_path / 'g.safetensors')._files[0].manifest
        assert (manifest['rows'], manifest['dim'], manifest['dtype']) == (9, 64, dtype)
        assert manifest['similarity'] == 'euclidean' and manifest['normalised'] is True
        assert set(manifest['source']['versions']) >= {'retrieval', 'torch', 'numpy'}
        assert set(manifest['fingerprint']) == {'weights', 'preprocessor', 'pipeline', 'pooling',
                                                'whitening'}


def outcome(path, expected):
    """'refused', 'equal' or 'wrong': what a reader of a damaged file would get."""
    try:
        opened = Gallery.load(path)
        opened.verify()
        found = contents(opened)
    except ValueError as error:
        assert path.name in str(error), error
        return 'refused'
    return 'equal' if found == expected else 'wrong'


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'int8'])
def test_no_flipped_byte_passes(tmp_path, dtype):
    """Every byte of a file, with one bit, another bit or all bits changed: always refused."""
    path = tmp_path / 'g.safetensors'
    example(5, seed=1).save(path, dtype)
    expected, data = contents(Gallery.load(path)), path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / 'damaged.safetensors'
    for place in range(len(data)):
        for change in (0xFF, 1 << int(rng.integers(8))):
            changed = bytearray(data)
            changed[place] ^= change
            damaged.write_bytes(changed)
            assert outcome(damaged, expected) == 'refused', (place, change)


def test_every_bit_of_the_header_counts(tmp_path):
    path = tmp_path / 'g.safetensors'
    Gallery(torch.ones(1, 1)).save(path)
    data = path.read_bytes()
    length = 8 + struct.unpack('<Q', data[:8])[0]
    for place in range(length):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(ValueError, match=r'g\.safetensors'):
                Gallery.load(path)


def test_no_cut_passes(tmp_path):
    path = tmp_path / 'g.safetensors'
    example(5).save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r'g\.safetensors.*(cut off|damaged)'):
            Gallery.load(path)
    path.write_bytes(data + b' ')
    with pytest.raises(DamagedError, match='1 bytes stand behind'):
        Gallery.load(path)


def test_damage_is_found_when_it_is_touched(tmp_path):
    path = tmp_path / 'g.safetensors'
    rows = torch.randn(5000, 128)  # 2.4 blocks
    Gallery(rows, ids=map(str, range(5000)), labels=range(5000)).save(path)
    array = Gallery.load(path)._files[0].arrays['embeddings']
    place = array.begin + 2**20 + 100
    with open(path, 'r+b') as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 4]))
    opened = Gallery.load(path)
    assert list(opened.ids)[-1] == '4999' and int(opened.labels[7]) == 7
    first = opened.vectors.decoded(0, 2000)
    np.testing.assert_array_equal(first, rows[:2000].numpy())
    assert opened.subset([0, 4999]).embeddings.shape == (2, 128)
    words = (rf"g\.safetensors' is damaged: bytes {array.begin + 2**20} to "
             rf"{array.begin + 2 * 2**20 - 1} .*'embeddings'")
    for touch in (lambda: opened.embeddings, lambda: opened.subset([2100]),
                  lambda: opened.vectors.decoded(2040, 2060), opened.verify):
        with pytest.raises(DamagedError, match=words):
            touch()


def forge(path, name, change):
    """Change a tensor's bytes and all checksums with it, as another writer would."""
    from retrieval import tensor_file as container
    opened = container.Container(path, GALLERY_FILE)
    arrays = {key: array[:].copy() for key, array in opened.arrays.items()}
    change(arrays[name])
    container.write_container(path, GALLERY_FILE, arrays, opened.manifest)


@pytest.mark.parametrize('name, dtype', [('embeddings', 'float32'), ('embeddings', 'float16'),
                                         ('embeddings.scale', 'int8')])
def test_values_that_are_not_finite_are_found(tmp_path, name, dtype):
    path = tmp_path / 'g.safetensors'
    example(5).save(path, dtype)
    forge(path, name, lambda array: array.reshape(5, -1)[3].fill(np.nan))
    opened = Gallery.load(path)
    with pytest.raises(DamagedError, match=rf"NaN or infinity in its tensor '{name}'.*row 3"):
        _ = opened.embeddings


def test_offsets_that_do_not_fit_are_found(tmp_path):
    path = tmp_path / 'g.safetensors'
    example(5).save(path)

    def change(offsets):
        offsets[2] = 1000
    forge(path, 'ids.offsets', change)
    opened = Gallery.load(path)
    with pytest.raises(ValueError, match='offsets of a string column'):
        _ = opened.ids[2]
    with pytest.raises(ValueError, match='offsets of a string column'):
        opened.verify()


def test_opening_reads_nothing_but_the_ends(tmp_path, monkeypatch):
    """Hashes are counted: opening a file of 8 blocks hashes none, a few rows hash one."""
    path = tmp_path / 'g.safetensors'
    Gallery(torch.randn(2**14, 128), ids=map(str, range(2**14))).save(path)
    hashed = []
    real = hashlib.sha256

    class Counting:
        def __init__(self):
            self.inner, self.digest = real(), None
            self.digest = self.inner.digest

        def update(self, data):
            hashed.append(len(memoryview(data).cast('B')) if not isinstance(data, bytes)
                          else len(data))
            self.inner.update(data)
    monkeypatch.setattr('retrieval.mapped_file.hashlib.sha256', Counting)
    opened = Gallery.load(path)
    assert sum(hashed) < 10_000
    hashed.clear()
    assert opened.subset([3, 5]).embeddings.shape == (2, 128)
    assert hashed.count(2**20) == 1
    hashed.clear()
    _ = opened.embeddings, opened.embeddings
    assert hashed.count(2**20) == 7


def test_copies_and_pickles_open_the_same_file(tmp_path):
    path = tmp_path / 'g.safetensors'
    example(5).save(path)
    opened = Gallery.load(path)
    for again in (copy.deepcopy(opened), pickle.loads(pickle.dumps(opened))):
        assert contents(again) == contents(opened)
    data = pickle.dumps(Gallery.load(path))
    example(5, seed=1).save(path)
    with pytest.raises(ValueError, match='not the file any more'):
        pickle.loads(data)


def test_a_replaced_file_does_not_change_an_open_gallery(tmp_path):
    path = tmp_path / 'g.safetensors'
    example(5).save(path)
    opened = Gallery.load(path)
    example(4, seed=1).save(path)
    assert contents(opened) == contents(example(5))
    assert len(Gallery.load(path)) == 4
    opened.save(path)  # over a file that others have open
    assert contents(Gallery.load(path)) == contents(example(5))


def test_a_newer_version_is_explained(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr('retrieval.gallery.file.GALLERY_FILE', replace(GALLERY_FILE, version=3))
        example().save(tmp_path / 'g.safetensors')
    with pytest.raises(ValueError, match='version 3 .*reads version 2. Install a newer'):
        Gallery.load(tmp_path / 'g.safetensors')


@pytest.mark.parametrize('dtype', ['float32', 'int8'])
def test_a_gallery_that_is_cut_short_while_it_is_open_is_an_error(tmp_path, dtype):
    path = tmp_path / 'g.safetensors'
    example(3000).save(path, dtype)
    fresh, used = Gallery.load(path), Gallery.load(path)
    kept = Gallery.load(path, copy=True)
    wanted = contents(used)
    os.truncate(path, 8192)

    def check():
        looks = (lambda of: of.embeddings, lambda of: of.verify(), lambda of: of.subset([2999]),
                 lambda of: list(of.ids), lambda of: of.ids[2000],
                 lambda of: of.save(tmp_path / 'other.safetensors'))
        for gallery, look in itertools.product((fresh, used), looks):
            with pytest.raises(DamagedError, match='cut off after 8192'):
                look(gallery)
        assert used.labels.tolist() == kept.labels.tolist()
        assert contents(kept) == wanted

    in_a_child(check)
