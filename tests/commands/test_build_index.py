from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.index import ExactIndex, FaissIndex, check_gallery, gallery_digest
from retrieval.retrievers import ImageToImageRetriever

from .conftest import run

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def gallery(tmp_path):
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 48)).astype('float32'))
    made = Gallery(vectors, ids=[f'picture {row}' for row in range(400)])
    made.save(tmp_path / 'gallery.safetensors')
    return made


def printed(out):
    """The config that the command printed."""
    names: dict = {}
    exec(out[out.index('index = dict('):], names)
    return names['index']


def test_an_index_is_built_and_a_retriever_opens_it(gallery, tmp_path):
    path = tmp_path / 'x.index'
    status, out, err = run('build_index', tmp_path / 'gallery.safetensors', path, '--factory',
                           'IVF16,Flat', '--search-parameters', 'nprobe=16', '--seed', 3)
    assert status == 0, err
    index = FaissIndex.load(path)
    assert index.factory == 'IVF16,Flat' and index.search_parameters == dict(nprobe=16)
    assert list(index.ids) == list(gallery.ids) and index.seed == 3
    check_gallery(index, gallery.embeddings, gallery.ids, path)
    assert printed(out) == dict(type='FaissIndex', path=str(path))
    queries = torch.randn(5, 3, 4, 4)
    models = [ImageToImageRetriever(torch.nn.Flatten(), gallery, topk=7, index=config).eval()
              for config in (None, printed(out), dict(printed(out), search_parameters=dict(
                  nprobe=15)))]
    exact, opened, other = ([sample.pred_label.tolist() for sample in model.predict(queries)]
                            for model in models)
    assert opened == exact
    assert models[2]._ready()[1].search_parameters == dict(nprobe=15) and len(other) == 5


def test_an_index_of_another_gallery_is_refused(gallery, tmp_path):
    path = tmp_path / 'x.index'
    run('build_index', tmp_path / 'gallery.safetensors', path, '--factory', 'HNSW8')
    config = dict(type='retrieval.FaissIndex', path=str(path))

    def prepare(prototype, similarity='cosine_similarity', **options):
        model = ImageToImageRetriever(torch.nn.Flatten(), prototype, index={**config, **options},
                                      similarity_fn=similarity)
        model.prepare_prototype()

    prepare(gallery)
    other = Gallery(gallery.embeddings + 1e-3, ids=gallery.ids)
    renamed = Gallery(gallery.embeddings, ids=[f'other {row}' for row in range(400)])
    for wrong in (other, renamed, Gallery(gallery.embeddings[:9])):
        with pytest.raises(ValueError, match=r'belongs to another gallery.*tools/build_index\.py'):
            prepare(wrong)
    with pytest.raises(ValueError, match='searches by cosine_similarity, the retriever by euclid'):
        prepare(gallery, 'euclidean')
    with pytest.raises(ValueError, match='factory'):
        prepare(gallery, factory='HNSW16')
    with pytest.raises(ValueError, match='seed cannot be given beside `path`.*search_parameters'):
        prepare(gallery, seed=1)
    with pytest.raises(FileNotFoundError, match='There is no file'):
        prepare(gallery, path=str(tmp_path / 'nowhere'))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match='damaged'):
        prepare(gallery)
    index = ExactIndex()
    index.add(gallery.embeddings, gallery.ids)
    index.save(tmp_path / 'unbound')
    with pytest.raises(ValueError, match='does not say over which'):
        prepare(gallery, type='retrieval.ExactIndex', path=str(tmp_path / 'unbound'))


def test_a_callable_similarity_is_the_retrievers(gallery, tmp_path):
    def manhattan(queries, rows):
        return -torch.cdist(queries, rows, p=1)

    index = ExactIndex(manhattan)
    index.add(gallery.embeddings, gallery.ids)
    index.gallery_digest = gallery_digest(gallery.embeddings, gallery.ids)
    index.save(tmp_path / 'x')
    model = ImageToImageRetriever(torch.nn.Flatten(), gallery, topk=4, similarity_fn=manhattan,
                                  index=dict(type='ExactIndex', path=str(tmp_path / 'x'))).eval()
    queries = torch.randn(2, 3, 4, 4)
    wanted = manhattan(queries.flatten(1), gallery.embeddings).topk(4).indices
    assert [s.pred_label.tolist() for s in model.predict(queries)] == wanted.tolist()


def test_other_types_configs_and_options(gallery, tmp_path):
    source = tmp_path / 'gallery.safetensors'
    status, out, err = run('build_index', source, tmp_path / 'exact', '--index', 'ExactIndex',
                           '--options', 'dtype=float16', '--similarity', 'inner_product')
    assert status == 0, err
    index = ExactIndex.load(tmp_path / 'exact')
    assert index.dtype == torch.float16 and index.similarity.name == 'inner_product'
    (tmp_path / 'fragment.py').write_text(
        "index = dict(type='retrieval.FaissIndex', factory='IVF8,SQ8', rescore=True,\n"
        '             search_parameters=dict(nprobe=2))\n')
    status, out, err = run('build_index', source, tmp_path / 'faiss', '--config',
                           tmp_path / 'fragment.py', '--rescore-factor', 6)
    assert status == 0, err
    index = FaissIndex.load(tmp_path / 'faiss')
    assert index.settings() == {**index.settings(), 'factory': 'IVF8,SQ8', 'rescore': True,
                                'rescore_factor': 6, 'search_parameters': dict(nprobe=2)}


def test_lists_on_disk(gallery, tmp_path):
    status, out, err = run('build_index', tmp_path / 'gallery.safetensors', tmp_path / 'big.index',
                           '--factory', 'IVF8,SQ8', '--on-disk', tmp_path / 'scratch')
    assert status == 0, err
    assert len(list(tmp_path.glob('big.index.*.lists'))) == 1
    model = ImageToImageRetriever(torch.nn.Flatten(), gallery, topk=3, index=printed(out)).eval()
    assert len(model.predict(torch.randn(1, 3, 4, 4))[0].pred_label) == 3


def test_as_a_tool_with_one_error(gallery, tmp_path):
    whole = subprocess.run(
        [sys.executable, TOOLS / 'build_index.py', tmp_path / 'gallery.safetensors',
         tmp_path / 'x', '--factory', 'IVF9999,Flat'], capture_output=True, text=True)
    assert whole.returncode == 2 and whole.stdout == ''
    assert 'needs at least 9999 rows to train on, got 400' in whole.stderr
    assert 'Traceback' not in whole.stderr and not (tmp_path / 'x').exists()


@pytest.mark.parametrize(('arguments', 'says'), [
    (['--factory', 'Flatt'], "cannot build the factory 'Flatt'"),
    (['--index', 'FaissIndx'], "Did you mean 'FaissIndex'"),
    (['--index', 'ExactIndex', '--factory', 'Flat'], 'ExactIndex takes no factory'),
    (['--search-parameters', 'nprobe=3'], 'has none'),
    (['--similarity', 'cos'], 'cosine_similarity'),
    (['--config', 'nowhere.py'], 'no config'),
])
def test_bad_input(gallery, tmp_path, arguments, says):
    status, _, err = run('build_index', tmp_path / 'gallery.safetensors', tmp_path / 'x',
                         *arguments)
    assert status == 2 and says in err and not (tmp_path / 'x').exists()


def test_a_missing_gallery(tmp_path):
    status, _, err = run('build_index', tmp_path / 'gallery.safetensors', tmp_path / 'x')
    assert status == 2 and 'no gallery' in err
