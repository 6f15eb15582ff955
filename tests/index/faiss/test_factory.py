"""Factory strings, and what an index of each wants and takes."""
from __future__ import annotations

import sys
import types
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import faiss
import numpy as np
import pytest

from retrieval.index.faiss import factory
from retrieval.index.faiss.factory import (
    build,
    chain,
    checked_parameters,
    knobs,
    load_faiss,
    plain_factory,
    reason,
    rows_needed,
    set_seed,
    skip_polysemous,
    trial,
)

from ..toys import blobs


def test_without_faiss(monkeypatch):
    assert load_faiss() is faiss
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(ImportError, match='pip install faiss-cpu'):
        load_faiss()


def test_the_reason_stands_alone():
    with pytest.raises(RuntimeError) as caught:
        faiss.index_factory(8, 'Flatt')
    assert '.cpp' in str(caught.value) and '.cpp' not in reason(caught.value)
    assert reason(caught.value).startswith('could not parse')
    assert reason(MemoryError()) == 'MemoryError'


@pytest.mark.parametrize(('given', 'plain'), [
    ('Flat', 'Flat'), (' IVF8,Flat ', 'IVF8,Flat'), ('IDMap,Flat', 'Flat'),
    ('IDMap2,IVF8,Flat', 'IVF8,Flat'), ('HNSW8,IDMap', 'HNSW8')])
def test_numbers_of_our_own_need_no_map(given, plain):
    assert plain_factory(given) == plain


@pytest.mark.parametrize(('given', 'error', 'says'), [
    (None, TypeError, 'must be a string'), ('', ValueError, 'is empty'),
    ('IDMap', ValueError, 'is empty'), ('IVF0,Flat', ValueError, 'IVF0: give a number above 0'),
    ('PQ0', ValueError, 'PQ0'), ('IVF99999999,Flat', ValueError, '99999999, above')])
def test_factories_that_are_none(given, error, says):
    with pytest.raises(error, match=says):
        plain_factory(given)


@pytest.mark.parametrize(('factory', 'similarity', 'metric'), [
    ('Flat', 'cosine_similarity', faiss.METRIC_INNER_PRODUCT),
    ('IVF4,Flat', 'cosine_similarity', faiss.METRIC_L2),
    ('IVF4,Flat', 'inner_product', faiss.METRIC_INNER_PRODUCT),
    ('HNSW8', 'euclidean', faiss.METRIC_L2), ('HNSW8_PQ8', 'cosine_similarity', faiss.METRIC_L2)])
def test_the_metric_of_a_similarity(factory, similarity, metric):
    index = build(factory, 16, similarity)
    assert index.d == 16 and chain(index)[-1].metric_type == metric


def test_what_faiss_does_not_build():
    with pytest.raises(ValueError, match="factory 'PQ8' for vectors of width 9 with euclidean"):
        build('PQ8', 9, 'euclidean')
    with pytest.raises(ValueError, match='another metric than inner_product'):
        build('HNSW8_PQ8', 16, 'inner_product')


def test_a_trial_finds_a_width():
    assert trial('PQ7', 'euclidean').d % 7 == 0
    with pytest.raises(ValueError, match="the factory 'Flatt' with euclidean: could not parse"):
        trial('Flatt', 'euclidean')


def test_the_parts_from_the_outermost_to_the_codes():
    index = build('PCA8,IVF4,PQ4x4,RFlat', 16, 'euclidean')  # owns its parts
    kinds = [type(part).__name__ for part in chain(index)]
    assert kinds[0] in ('IndexPreTransform', 'IndexRefine', 'IndexRefineFlat')
    assert set(kinds[:-1]) <= {'IndexPreTransform', 'IndexRefine', 'IndexRefineFlat'}
    assert kinds[-1] == 'IndexIVFPQ' and len(kinds) == 3


@pytest.mark.parametrize(('factory', 'need'), [
    ('Flat', 1), ('HNSW8', 1), ('IVF100,Flat', 100), ('PQ8', 256), ('PQ8x4', 16),
    ('OPQ8,IVF16,PQ8x4', 256), ('PCA12,Flat', 12), ('IVF8,RQ2x6', 64), ('HNSW8_PQ4', 256),
    ('IVF300,PQ4', 300), ('IMI2x3,Flat', 8)])
def test_rows_that_the_training_needs(factory, need):
    """By the definition of each part; faiss itself trains on so many without an error."""
    index = build(factory, 16, 'euclidean')
    assert rows_needed(index) == need
    skip_polysemous(index)
    if not index.is_trained and 'OPQ' not in factory:  # which takes seconds
        index.train(blobs(need))


def test_the_seed_reaches_every_clustering():
    index = build('IVF4,PQ4x4', 16, 'euclidean')
    set_seed(index, 2 ** 31 + 5)
    core = chain(index)[-1]
    assert core.cp.seed == 5 and core.pq.cp.seed == 5


def test_polysemous_training_is_left_out():
    for name in ('PQ4x4', 'HNSW8_PQ4'):
        index = build(name, 16, 'euclidean')
        skip_polysemous(index)
        core = chain(index)[-1]
        owner = faiss.downcast_index(core.storage) if name.startswith('HNSW') else core
        assert not owner.do_polysemous_training


@pytest.mark.parametrize(('factory', 'names'), [
    ('Flat', set()), ('HNSW8', {'efSearch', 'efConstruction'}), ('NSG8', {'search_L'}),
    ('IVF4,Flat', {'nprobe', 'max_codes'}), ('IVF4,PQ4x4', {'nprobe', 'max_codes', 'ht'}),
    ('PQ4x4', {'ht'}), ('PCA8,IVF4,Flat,RFlat', {'nprobe', 'max_codes', 'k_factor_rf'}),
    ('IVF4_HNSW8,Flat', {'nprobe', 'max_codes', 'quantizer_efSearch', 'quantizer_efConstruction'})])
def test_the_parameters_of_an_index(factory, names):
    index = build(factory, 16, 'euclidean')
    found = knobs(index)
    assert set(found) == names
    for knob in found.values():
        assert isinstance(knob.value, (int, float))
        setattr(knob.owner, knob.attribute, 3)
        assert knob.value == 3


def test_parameters_are_numbers_in_their_range():
    index = build('IVF4,Flat,RFlat', 16, 'euclidean')  # owns its parts
    valid = knobs(index)
    checked = checked_parameters(dict(nprobe=4.0, k_factor_rf=2.5, max_codes=0), valid, 'x')
    assert checked == dict(nprobe=4, k_factor_rf=2.5, max_codes=0)
    assert [type(value) for value in checked.values()] == [int, float, int]
    assert checked_parameters(None, valid, 'x') == {}


@pytest.mark.parametrize(('values', 'error', 'says'), [
    ([3], TypeError, r'must be a dict such as dict\(nprobe=32\)'),
    (dict(nprob=3), ValueError, "'nprob'. Did you mean 'nprobe'"),
    (dict(nprobe='3'), TypeError, 'must be a number'), (dict(nprobe=True), TypeError, 'a number'),
    (dict(nprobe=0), ValueError, 'whole number of at least 1'),
    (dict(nprobe=1.5), ValueError, 'whole number'), (dict(nprobe=np.inf), ValueError, 'whole')])
def test_parameters_that_are_none(values, error, says):
    index = build('IVF4,Flat', 16, 'euclidean')
    with pytest.raises(error, match=says):
        checked_parameters(values, knobs(index), 'IVF4,Flat')


def test_a_factory_without_parameters_says_so():
    with pytest.raises(ValueError, match="the factory 'Flat' has none"):
        checked_parameters(dict(nprobe=3), {}, 'Flat')


def test_rabitq_of_an_older_faiss_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(factory, 'load_faiss', lambda: types.SimpleNamespace(__version__='1.9.0'))
    with pytest.raises(ValueError, match="'IVF8,RaBitQ' wants faiss 1.11 or later, and 1.9.0 is"):
        factory.build('IVF8,RaBitQ', 8, 'euclidean')


def test_the_least_value_of_each_parameter():
    valid = knobs(build('IVF4,PQ4x4', 8, 'euclidean'))
    assert checked_parameters(dict(max_codes=0, ht=0, nprobe=1), valid, 'x') == dict(
        max_codes=0, ht=0, nprobe=1)
    for name, value in (('nprobe', 0), ('max_codes', -1), ('ht', -1), ('nprobe', 1.5)):
        with pytest.raises(ValueError, match='a whole number of at least [01]'):
            checked_parameters({name: value}, valid, 'x')
    assert knobs(build('PQ4x4,RFlat', 8, 'euclidean'))['k_factor_rf'].least == 1
    with pytest.raises(FrozenInstanceError):
        valid['nprobe'].least = 3


def test_a_number_in_a_factory_has_a_limit():
    assert plain_factory(f'IDMap,IVF{2 ** 24},Flat') == f'IVF{2 ** 24},Flat'
    for text, message in ((f'IVF{2 ** 24 + 1},Flat', 'above 16777216'), ('IDMap2', 'is empty'),
                          ('HNSW0', 'HNSW0: give a number above 0')):
        with pytest.raises(ValueError, match=message):
            plain_factory(text)


def test_the_reason_is_that_of_the_first_metric():
    with pytest.raises(ValueError, match=r'with cosine_similarity: \w+'):
        build('Nothing', 8, 'cosine_similarity')
    with pytest.raises(ValueError, match=r"'PQ7' for vectors of width 16 .*: \w+"):
        build('PQ7', 16, 'euclidean')


@pytest.mark.parametrize('text', ['PQ12x4', 'PQ7', 'OPQ11_44,PQ11', 'PQ13x4fs'])
def test_a_width_is_found_for_an_odd_factory(text):
    assert knobs(trial(text, 'euclidean')).keys() <= {'ht'}


def test_any_whole_number_is_a_seed(monkeypatch):
    part = SimpleNamespace(cp=SimpleNamespace(seed=0))
    monkeypatch.setattr(factory, 'chain', lambda index: [part])
    for seed, kept in ((5, 5), (2 ** 31 + 5, 5), (-1, 2 ** 31 - 1)):
        set_seed(None, seed)
        assert part.cp.seed == kept
