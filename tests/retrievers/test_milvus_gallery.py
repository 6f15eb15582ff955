"""A retriever whose gallery is searched in Milvus."""
import contextlib
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.runner import Runner

from retrieval.gallery import FingerprintError
from retrieval.index import MilvusIndex
from retrieval.retrievers import ImageToImageRetriever

from ..hooks import running
from ..processes import leave_group
from .toy import Encoder, Images, loader

pytest.importorskip('milvus_lite')


def retriever(index, **kwargs):
    torch.manual_seed(0)
    return ImageToImageRetriever(Encoder(), loader(), topk=4, index=index, **kwargs).eval()


def results(model, images):
    return [(sample.pred_label.tolist(), sample.pred_score) for sample in model.predict(images)]


@pytest.mark.parametrize('similarity', ['cosine_similarity', 'inner_product', 'euclidean'])
def test_it_finds_what_the_exact_index_finds(tmp_path, similarity):
    images = Images(seed=1).images
    wanted = results(retriever(None, similarity_fn=similarity), images)
    config = dict(type='retrieval.MilvusIndex', uri=str(tmp_path / 'a.db'))
    model = retriever(config, similarity_fn=similarity)
    for (rows, scores), (rows_wanted, scores_wanted) in zip(results(model, images), wanted,
                                                            strict=True):
        assert rows == rows_wanted
        torch.testing.assert_close(scores, scores_wanted, rtol=1e-4, atol=1e-5)
    assert model.holder.index.metadata_of(['image4.png']) == [dict(label=1, label_name='class 1')]
    model.holder.index.close()


def test_new_weights_replace_the_gallery(tmp_path):
    config = dict(type='retrieval.MilvusIndex', uri=str(tmp_path / 'a.db'), collection='toys')
    model = retriever(config)
    model.prepare_prototype()
    first = model.holder.index._store.own
    model.prepare_prototype()
    assert model.holder.index._store.own == first  # as it was, so nothing was written
    with torch.no_grad():
        model.image_encoder.linear.weight += torch.randn_like(model.image_encoder.linear.weight)
    images = Images(seed=1).images
    found = results(model, images)
    index = model.holder.index
    assert index._store.own != first
    assert index._store.connection.call('list_collections') == [index._store.own]
    exact = ImageToImageRetriever(model.image_encoder, loader(), topk=4).eval()
    assert [rows for rows, _ in found] == [rows for rows, _ in results(exact, images)]
    index.close()


def test_a_collection_of_another_model_is_refused(tmp_path):
    """Searched as it is, without the gallery that it was made from."""
    uri = str(tmp_path / 'a.db')
    model = retriever(dict(type='retrieval.MilvusIndex', uri=uri))
    model.prepare_prototype()
    images = Images(seed=1).images
    wanted = [rows for rows, _ in results(model, images)]
    model.holder.index.close()
    with contextlib.closing(MilvusIndex(uri)) as index:
        assert index.fingerprint.weights == model.fingerprint().weights
        alone = ImageToImageRetriever(model.image_encoder, index, topk=4).eval()
        assert [rows for rows, _ in results(alone, images)] == wanted
        other = ImageToImageRetriever(Encoder(), index, topk=4).eval()
        with pytest.raises(FingerprintError, match="the encoder's weights differ"):
            other.predict(images)
        other.check_fingerprint = False
        other.predict(images)


def test_a_server_that_is_down_is_seen_before_the_encoding():
    images = Images()
    model = ImageToImageRetriever(Encoder(), loader(images), index=dict(
        type='retrieval.MilvusIndex', uri='http://127.0.0.1:9', timeout=1, retries=0))
    with pytest.raises(ConnectionError, match='Is it running'):
        model.prepare_prototype()
    assert not any(images.reads)


@pytest.mark.slow
def test_evaluations_of_a_runner(tmp_path):
    """Each epoch's evaluation, and two tests after it, with the figures of the exact index."""
    figures = []
    for index in (dict(type='retrieval.ExactIndex'),
                  dict(type='retrieval.MilvusIndex', uri=str(tmp_path / 'a.db'))):
        config = running.config(tmp_path / index['type'], val=True, epochs=2)
        config['model']['index'] = index
        config['val_evaluator'] = config['test_evaluator']
        runner = Runner.from_cfg(Config(config))
        runner.train()
        figures.append([runner.test(), runner.test()])
    assert figures[0] == figures[1] and figures[0][0] == figures[0][1]
    held = runner.model.holder.index
    assert isinstance(held, MilvusIndex) and len(held) == 23
    held.close()


def process(number, world, path, uri):
    dist.init_process_group('gloo', init_method=f'file://{path}', rank=number, world_size=world)
    model = retriever(dict(type='retrieval.MilvusIndex', uri=uri, collection='filled'))
    images = Images(seed=1).images
    found, wanted = results(model, images), results(retriever(None), images)
    assert [rows for rows, _ in found] == [rows for rows, _ in wanted]
    index = model.holder.index
    held = index._store.connection.call('list_collections')
    assert [one for one in held if one.startswith('filled')] == [index._store.own]
    dist.barrier()
    if number == 0:
        with contextlib.closing(MilvusIndex(uri, 'products')) as other:
            other.add(torch.ones(1, 5), ['added'])
    dist.barrier()
    with pytest.raises(ValueError, match='overwrite=True'):  # of each, and none waits for ever
        retriever(dict(type='retrieval.MilvusIndex', uri=uri,
                       collection='products')).prepare_prototype()
    index.close()
    leave_group()


@pytest.mark.slow
def test_two_processes_fill_one_collection(tmp_path):
    if uri := os.environ.get('RETRIEVAL_TEST_MILVUS'):
        mp.spawn(process, args=(2, tmp_path / 'store', uri), nprocs=2)
        return
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    server, database, port = start_server_in_thread(str(tmp_path / 'server'))
    try:
        mp.spawn(process, args=(2, tmp_path / 'store', f'http://127.0.0.1:{port}'), nprocs=2)
    finally:
        server.stop(0).wait()
        database.close()
