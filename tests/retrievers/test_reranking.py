"""Re-ranking from the retriever's config."""
import copy
import json
import pickle

import pytest
import torch

from retrieval.gallery import Gallery
from retrieval.registry import MODELS, RERANKERS
from retrieval.rerank import rerank
from retrieval.retrievers import ImageToImageRetriever
from retrieval.structures import Neighbors, RetrievalDataSample

from ..commands.conftest import checkpoint, config, folder, run, work_dir  # noqa: F401
from ..commands.test_processes import on_two
from .toy import Encoder, Images, collate, loader

AUGMENTATION = dict(type='DatabaseAugmentation', top_n=2)
STEPS = {
    'average': [dict(type='AverageQueryExpansion', top_n=3)],
    'alpha': [dict(type='AlphaQueryExpansion', top_n=3, alpha=2.0)],
    'augmentation': [AUGMENTATION],
    'k-reciprocal': [dict(type='KReciprocal', k1=5, k2=2)],
    'diffusion': [dict(type='Diffusion', k=5, query_k=3)],
    'SuperGlobal': [dict(type='SuperGlobalReranking', top_m=6, top_k=2)],
    'list': [AUGMENTATION, dict(type='AlphaQueryExpansion', top_n=2),
             dict(type='KReciprocal', k1=5, k2=2)],
}


def retriever(images, **kwargs):
    torch.manual_seed(0)
    return ImageToImageRetriever(Encoder(), loader(images), **kwargs).eval()


@pytest.mark.parametrize('name', STEPS)
@pytest.mark.parametrize('topk', [-1, 4])
def test_a_config_gives_what_the_function_gives(name, topk):
    images = Images(20)
    model = retriever(images, rerank=STEPS[name], topk=topk)
    gallery = model.gallery
    rows = [2, 5, 19]
    samples = model.test_step(collate([images[row] for row in rows]))
    wanted = rerank(gallery.embeddings[rows], gallery.embeddings, STEPS[name],
                    None if topk == -1 else topk, own_rows=rows)
    for query, sample in enumerate(samples):
        assert sample.pred_label.tolist() == wanted.row(query)[1].tolist()
        torch.testing.assert_close(sample.pred_score, wanted.row(query)[0], atol=1e-5, rtol=0)
        assert rows[query] not in sample.pred_label.tolist()
        assert len(sample.pred_label) == (19 if topk == -1 else 4)
        torch.testing.assert_close(sample.embedding, gallery.embeddings[rows[query]])


@pytest.mark.parametrize('name', STEPS)
def test_queries_from_elsewhere(name):
    model = retriever(Images(20), rerank=STEPS[name])
    others = Images(4, seed=1, prefix='other')
    samples = model.test_step(collate([others[row] for row in range(4)]))
    embeddings = torch.stack([sample.embedding for sample in samples])
    wanted = rerank(embeddings, model.gallery.embeddings, STEPS[name])
    assert [sample.pred_label.tolist() for sample in samples] == wanted.indices.tolist()


@pytest.mark.parametrize('name', STEPS)
def test_the_batch_does_not_matter(name):
    images = Images(20)
    model = retriever(images, rerank=STEPS[name])
    together = model.test_step(collate([images[row] for row in range(20)]))
    for row, sample in enumerate(together):
        alone, = model.test_step(collate([images[row]]))
        assert alone.pred_label.tolist() == sample.pred_label.tolist()
        torch.testing.assert_close(alone.pred_score, sample.pred_score, atol=1e-5, rtol=0)


def test_what_is_kept_follows_the_weights_and_is_no_state():
    images = Images(20)
    model, plain = retriever(images, rerank=STEPS['list']), retriever(images)
    model.predict(torch.randn(2, 3, 4, 4))
    assert list(model.state_dict()) == list(plain.state_dict())
    model.to('cpu')
    copied = copy.deepcopy(model)
    assert len(pickle.dumps(copied.rerankers)) < 1000
    assert not copied.prototype_inited
    with torch.no_grad():
        copied.image_encoder.linear.weight.copy_(torch.randn(5, 48))
    query = torch.randn(2, 3, 4, 4)
    fresh = retriever(images, rerank=STEPS['list'])
    fresh.image_encoder.load_state_dict(copied.image_encoder.state_dict())
    for one, other in zip(copied.predict(query), fresh.predict(query), strict=True):
        assert one.pred_label.tolist() == other.pred_label.tolist()


def test_any_callable_can_be_a_step():
    @RERANKERS.register_module(name='Reversed', force=True)
    class Reversed:
        def __call__(self, queries, gallery, neighbors):
            assert queries.shape == (2, 5) and isinstance(gallery, Gallery)
            return Neighbors(-neighbors.scores.flip(1), neighbors.indices.flip(1))

    images = Images(8)
    query = torch.randn(2, 3, 4, 4)
    found = retriever(images, rerank=[dict(type='Reversed')]).predict(query)
    plain = retriever(images).predict(query)
    for one, other in zip(found, plain, strict=True):
        assert one.pred_label.tolist() == other.pred_label.tolist()[::-1]


def test_one_step_needs_no_list_and_configs_build_under_another_scope():
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='retrieval.ImageToImageRetriever', image_encoder=Encoder(),
                                  prototype=torch.randn(6, 5),
                                  rerank=dict(type='retrieval.KReciprocal', k1=3)))
    assert [type(step).__name__ for step in model.rerankers] == ['KReciprocal']


@pytest.mark.parametrize('steps, message', [
    ([dict(type='KReciprocl')], "Did you mean 'KReciprocal'"),
    ([dict(type='KReciprocal', k1=0)], 'k1 must be an integer of at least 1'),
    ([dict(type='KReciprocal', k3=1)], 'k3'),
    ('KReciprocal', 'rerank must be a list of rerankers'),
    ([7], 'A reranker must be a config with a type or a callable')])
def test_bad_configs(steps, message):
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        ImageToImageRetriever(Encoder(), torch.randn(6, 5), rerank=steps)


@pytest.mark.parametrize('name', ['alpha', 'k-reciprocal', 'diffusion', 'SuperGlobal'])
def test_a_similarity_that_does_not_fit_is_refused_when_the_model_is_built(name):
    wrong = 'inner_product' if name == 'k-reciprocal' else 'euclidean'
    with pytest.raises(ValueError, match=f"wants similarity_fn to be .* got '{wrong}'"):
        ImageToImageRetriever(Encoder(), torch.randn(6, 5), similarity_fn=wrong,
                              rerank=STEPS[name])


def test_a_step_that_returns_something_else_is_named():
    model = retriever(Images(8), rerank=[lambda queries, gallery, neighbors: None])
    with pytest.raises(TypeError, match='<lambda> must return Neighbors, got NoneType'):
        model.predict(torch.randn(1, 3, 4, 4))


def test_a_batch_without_images():
    model = retriever(Images(8), rerank=STEPS['list'])
    assert model.search(torch.empty(0, 5), []) == []


def test_a_gallery_of_the_query_alone():
    images = Images(1)
    model = retriever(images, rerank=STEPS['list'])
    sample, = model.test_step(collate([images[0]]))
    assert sample.pred_label.tolist() == []
    assert isinstance(sample, RetrievalDataSample)


@pytest.mark.slow
def test_a_run_from_a_config_on_one_process_and_on_two(
        config, checkpoint, folder, tmp_path):  # noqa: F811
    steps = ("model.rerank=[dict(type='DatabaseAugmentation',top_n=2,alpha=0),"
             "dict(type='AlphaQueryExpansion',top_n=2),dict(type='KReciprocal',k1=4,k2=2)]")
    odd = ['test_dataloader.dataset.indices=19', 'model.prototype.dataset.indices=19']
    path = tmp_path / 'reranked.py'
    path.write_text(f"_base_ = {str(config)!r}\n{steps.replace('model.rerank=', 'rerank = ')}\n"
                    "model = dict(rerank=rerank)\n")
    figures = {}
    for name, chosen in (('plain', config), ('one', path)):
        out = tmp_path / f'{name}.json'
        status, _, err = run('test', chosen, checkpoint, '--work-dir', tmp_path, '--out', out,
                             '--cfg-options', *odd)
        assert status == 0, err
        figures[name] = json.loads(out.read_text())
    on_two('test', path, checkpoint, '--work-dir', tmp_path, '--out', tmp_path / 'two.json',
           '--cfg-options', *odd)
    two = json.loads((tmp_path / 'two.json').read_text())
    assert {key: f'{value:.4f}' for key, value in figures['one'].items()} == {
        key: f'{value:.4f}' for key, value in two.items()}
    embedding = [key for key in two if key.startswith('embedding/')]
    assert embedding and all(figures['one'][key] == figures['plain'][key] for key in embedding)
    assert figures['one'] != figures['plain']
