import copy

import pytest
import torch
from torch import nn

from retrieval.gallery import FingerprintError, Gallery
from retrieval.index import ExactIndex
from retrieval.registry import MODELS
from retrieval.retrievers import ImageToImageRetriever
from retrieval.structures import RetrievalDataSample

from .toy import Encoder, Images, collate, loader


def test_a_head_of_another_width_is_refused_when_the_model_is_built():
    def model(head, projection=8):
        return ImageToImageRetriever(
            dict(type='retrieval.ImageEncoder', backbone=Encoder(6), pooling=None, in_features=6,
                 projection=projection), torch.rand(3, 8), head=head)

    arcface = dict(type='PML.ArcFaceLoss', num_classes=3, embedding_size=8)
    assert model(dict(type='retrieval.MetricHead', loss=arcface)).head.embedding_size == 8
    with pytest.raises(ValueError, match='width 6.*MetricHead want 8.*projection=8'):
        model(dict(type='retrieval.MetricHead', loss=arcface), None)
    with pytest.raises(ValueError, match='width 8.*ClassificationHead want 9.*in_features'):
        model(dict(type='retrieval.ClassificationHead', num_classes=3, in_features=9))


def retriever(prototype=None, **kwargs):
    torch.manual_seed(0)
    encoder = kwargs.pop('image_encoder', None) or Encoder()
    return ImageToImageRetriever(encoder, loader() if prototype is None else prototype,
                                 **kwargs).eval()


def oracle(model, queries, gallery, leave_out=()):
    """Rows by falling cosine, one pair at a time, for images."""
    rows = []
    with torch.no_grad():
        q, g = (model.image_encoder(x).double() for x in (queries, gallery))
    for number, query in enumerate(q):
        scores = [(float(query @ row / query.norm() / row.norm()), -i) for i, row in enumerate(g)]
        ranked = sorted(scores, reverse=True)
        rows.append([(-i, s) for s, i in ranked if (number, -i) not in leave_out])
    return rows


def check(samples, wanted):
    for sample, row in zip(samples, wanted, strict=True):
        assert sample.pred_label.tolist() == [i for i, _ in row]
        torch.testing.assert_close(sample.pred_score, torch.tensor([s for _, s in row]),
                                   atol=1e-5, rtol=0)
        assert sample.pred_label.dtype == torch.int64
        assert sample.pred_score.dtype == torch.float32


def test_predict_ranks_the_gallery_by_cosine():
    images = Images()
    model = retriever(loader(images))
    queries = torch.randn(4, 3, 4, 4)
    check(model.predict(queries), oracle(model, queries, images.images))


@pytest.mark.parametrize('topk', [1, 3, 100])
def test_topk_keeps_the_best_aligned(topk):
    images = Images()
    model = retriever(loader(images), topk=topk)
    queries = torch.randn(4, 3, 4, 4)
    check(model.predict(queries), [row[:topk] for row in oracle(model, queries, images.images)])


def test_samples_are_filled_and_returned():
    model = retriever()
    given = [RetrievalDataSample().set_gt_label(1)]
    returned = model(torch.randn(1, 3, 4, 4), given, mode='predict')
    assert returned[0] is given[0] and given[0].gt_label.item() == 1
    assert given[0].embedding.shape == (5,)


def test_a_query_in_the_gallery_does_not_find_itself():
    images = Images()
    model = retriever(loader(images))
    batch = collate([images[2], images[5]])
    samples = model.test_step(batch)
    wanted = oracle(model, images.images[[2, 5]], images.images, {(0, 2), (1, 5)})
    check(samples, wanted)
    assert len(samples[0].pred_label) == len(images) - 1


def test_another_picture_of_the_same_number_is_no_self_match():
    model = retriever(loader(Images()))
    batch = collate([Images(prefix='other')[2]])
    assert len(model.test_step(batch)[0].pred_label) == 7


def test_a_bare_tensor_knows_no_self_match():
    model = retriever(torch.randn(6, 5))
    sample = RetrievalDataSample(metainfo=dict(sample_idx=2))
    assert len(model.predict(torch.randn(1, 3, 4, 4), [sample])[0].pred_label) == 6


def test_matching_is_dense_and_exact():
    gallery, queries = torch.randn(6, 5), torch.randn(2, 5)
    found = retriever(gallery, topk=4).matching(queries)
    dense = torch.cosine_similarity(queries[:, None], gallery[None], dim=-1)
    torch.testing.assert_close(found['score'], dense)
    best = dense.sort(descending=True)
    torch.testing.assert_close(found['pred_score'], best.values[:, :4])
    assert torch.equal(found['pred_label'], best.indices[:, :4])


def test_equal_scores_rank_by_row():
    found = retriever(torch.ones(9, 5), topk=4).matching(torch.ones(1, 5))
    assert found['pred_label'].tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize('name', ['inner_product', 'euclidean'])
def test_other_similarities(name):
    gallery, images = torch.randn(6, 5), torch.randn(2, 3, 4, 4)
    model = retriever(gallery, similarity_fn=name)
    queries = model.embed(images).detach()
    dense = queries @ gallery.T if name == 'inner_product' else -torch.cdist(queries, gallery)
    for sample, row in zip(model.predict(images), dense, strict=True):
        assert sample.pred_label.tolist() == row.argsort(descending=True).tolist()
    torch.testing.assert_close(model.similarity_fn(queries, gallery), dense, atol=1e-5, rtol=1e-5)


def test_a_callable_as_similarity():
    def manhattan(queries, gallery):
        return -torch.cdist(queries, gallery, p=1)
    gallery, images = torch.randn(6, 5), torch.randn(2, 3, 4, 4)
    model = retriever(gallery, similarity_fn=manhattan)
    assert model.similarity_fn is manhattan
    dense = manhattan(model.embed(images), gallery)
    assert model.predict(images)[1].pred_label.tolist() == dense[1].argsort(
        descending=True).tolist()


def test_the_gallery_follows_the_weights():
    model = retriever()
    before = model.gallery.embeddings
    with torch.no_grad():
        model.image_encoder.linear.weight.mul_(2)
    assert not model.prototype_inited
    torch.testing.assert_close(model.gallery.embeddings, before * 2)
    model.load_state_dict(retriever().state_dict())
    torch.testing.assert_close(model.gallery.embeddings, before)


def test_the_gallery_is_no_state_and_is_not_copied():
    model = retriever()
    model.prepare_prototype()
    names = list(model.state_dict())
    assert not [n for n in names if 'proto' in n or 'gallery' in n], names
    assert len(list(model.buffers())) == 0
    copied = copy.deepcopy(model)
    assert not copied.prototype_inited
    with torch.no_grad():
        copied.image_encoder.linear.weight.zero_().add_(1)
    of_the_copy = copied.gallery.embeddings
    assert model.prototype_inited, 'the copy overwrote the gallery of the original'
    assert not torch.equal(of_the_copy, model.gallery.embeddings)


def test_batch_augmentation_reaches_a_soft_label_head():
    head = dict(type='ClassificationHead', num_classes=3, in_features=5)
    model = retriever(head=head, train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
                      data_preprocessor=dict(num_classes=3))
    images = Images()
    batch = collate([images[row] for row in range(6)])
    data = model.data_preprocessor(batch, True)
    mixed = torch.stack([sample.gt_score for sample in data['data_samples']])
    torch.testing.assert_close(mixed.sum(1), torch.ones(6))
    assert not torch.equal(data['inputs'], images.images[:6])
    found = model(**data, mode='loss')['loss']
    logits = model.head(model.image_encoder(data['inputs']))
    wanted = -(mixed * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found, wanted)


def test_the_prototype_may_be_a_config(tmp_path):
    from retrieval.registry import DATASETS
    DATASETS.register_module(module=Images, name='ToyImages', force=True)
    model = retriever(dict(batch_size=2, num_workers=0, dataset=dict(type='ToyImages')))
    assert len(model.gallery) == 7


def test_dump_and_search_again(tmp_path):
    path = tmp_path / 'gallery.safetensors'
    model = retriever()
    model.dump_prototype(path, checkpoint='x.pth')
    again = retriever(str(path))
    again.load_state_dict(model.state_dict())
    queries = torch.randn(2, 3, 4, 4)
    for one, other in zip(model.predict(queries), again.predict(queries), strict=True):
        assert torch.equal(one.pred_label, other.pred_label)
        assert torch.equal(one.pred_score, other.pred_score)
    assert Gallery.load(path).source['checkpoint'] == 'x.pth'


def test_a_gallery_of_another_model_is_refused(tmp_path):
    path = tmp_path / 'gallery.safetensors'
    retriever().dump_prototype(path)
    other = retriever(str(path))
    with torch.no_grad():
        other.image_encoder.linear.weight[0, 0] += 1
    with pytest.raises(FingerprintError, match='weights.*check_fingerprint'):
        other.prepare_prototype()
    assert not other.prototype_inited
    other.check_fingerprint = False
    other.prepare_prototype()


def test_a_gallery_of_another_preprocessing_is_refused(tmp_path):
    path = tmp_path / 'gallery.safetensors'
    retriever().dump_prototype(path)
    other = retriever(str(path), data_preprocessor=dict(mean=[1, 1, 1], std=[2, 2, 2]))
    with pytest.raises(FingerprintError, match="preprocessor's settings"):
        other.prepare_prototype()
    other = retriever(str(path))
    other.search_in(pipeline=[dict(type='Another')])
    with pytest.raises(FingerprintError, match='test pipeline'):
        other.prepare_prototype()


def test_a_gallery_of_another_pooling_is_refused(tmp_path):
    """Average and maximum have no weights that could differ."""
    from retrieval.encoders import ImageEncoder
    encoders = [ImageEncoder(nn.Conv2d(3, 5, 1), dict(type=f'retrieval.{name}'), in_features=5)
                for name in ('GlobalAveragePooling', 'GlobalMaxPooling', 'GlobalAveragePooling')]
    for encoder in encoders[1:]:
        encoder.load_state_dict(encoders[0].state_dict())
    path = tmp_path / 'gallery.safetensors'
    retriever(image_encoder=encoders[0]).dump_prototype(path)
    with pytest.raises(FingerprintError, match="the pooling's settings differ"):
        retriever(str(path), image_encoder=encoders[1]).prepare_prototype()
    retriever(str(path), image_encoder=encoders[2]).prepare_prototype()


def test_a_store_and_a_link_may_be_the_prototype(tmp_path):
    from retrieval.gallery import GalleryStore, switch
    model = retriever()
    model.dump_prototype(tmp_path / 'one.gallery', dtype='float16')
    switch(tmp_path / 'current', tmp_path / 'one.gallery')
    store = GalleryStore.open(tmp_path / 'one.gallery')
    store.remove(['image2.png'])
    again = retriever(tmp_path / 'current')
    again.load_state_dict(model.state_dict())
    again.prepare_prototype()
    assert len(again.gallery) == 6 and again.gallery.similarity == 'cosine_similarity'
    sample, = again.predict(torch.randn(1, 3, 4, 4))
    assert len(sample.pred_label) == 6
    with pytest.raises(FileExistsError, match='already'):
        model.dump_prototype(tmp_path / 'one.gallery')


def test_an_index_may_be_the_prototype(tmp_path):
    gallery = retriever().gallery
    index = ExactIndex()
    index.add(gallery.embeddings, gallery.ids)
    model = retriever(index, topk=3)
    samples = [RetrievalDataSample(metainfo=dict(img_path='image2.png')) for _ in range(2)]
    wanted = retriever(topk=3).predict(torch.ones(2, 3, 4, 4), [
        RetrievalDataSample(metainfo=dict(img_path='image2.png')) for _ in range(2)])
    for one, other in zip(model.predict(torch.ones(2, 3, 4, 4), samples), wanted, strict=True):
        assert one.pred_label.tolist() == other.pred_label.tolist() and 2 not in one.pred_label
    assert list(model.gallery.ids) == list(gallery.ids) and model.gallery.dim == 5
    with torch.no_grad():  # the index stays what is searched
        model.image_encoder.linear.weight.neg_()
    assert len(model.predict(torch.ones(1, 3, 4, 4))[0].pred_label) == 3
    assert copy.deepcopy(model).prototype is index
    with pytest.raises(ValueError, match='give the gallery'):
        model.matching(torch.ones(1, 5))
    with pytest.raises(ValueError, match='save the index'):
        model.dump_prototype(tmp_path / 'g.safetensors')
    with pytest.raises(ValueError, match='is empty'):
        retriever(ExactIndex()).prepare_prototype()


def test_a_call_may_ask_for_another_number_of_results():
    model = retriever(topk=2)
    lengths = [len(model.predict(torch.ones(1, 3, 4, 4), topk=topk)[0].pred_label)
               for topk in (None, 1, 4, 100, -1)]
    assert lengths == [2, 1, 4, 7, 7] and model.topk == 2
    with pytest.raises(ValueError, match='topk.*at least 1'):
        model.predict(torch.ones(1, 3, 4, 4), topk=0)


def test_search_in_another_prototype_and_for_another_pipeline():
    model = retriever()
    made = model.gallery
    model.search_in(torch.ones(3, 5))
    assert len(model.gallery) == 3 and model.query_pipeline is None
    model.search_in(made, [dict(type='Toy')])
    assert model.gallery is made
    model.search_in(pipeline=[dict(type='Another')])
    assert model.prototype is made
    with pytest.raises(FingerprintError, match='test pipeline'):
        model.prepare_prototype()
    with pytest.raises(TypeError, match='an index'):
        model.search_in(3)


def test_an_evaluation_encodes_what_is_in_the_gallery_once():
    images = Images()
    model = retriever(loader(images))
    data = dict(inputs=[images[row]['inputs'] for row in range(7)],
                data_samples=[images[row]['data_samples'] for row in range(7)])
    gallery = model.begin_evaluation(images)
    assert model.image_encoder.seen == 7 and gallery is model.gallery
    model.test_step(data)
    assert model.image_encoder.seen == 7
    model.end_evaluation()
    model.test_step(data)
    assert model.image_encoder.seen == 14
    other = Images()
    other.pipeline_cfg = [dict(type='Another')]
    model.begin_evaluation(other)
    model.test_step(data)
    assert model.image_encoder.seen == 28


def test_an_encoder_may_return_a_tuple():
    class Tuple(Encoder):
        def forward(self, inputs):
            return inputs, super().forward(inputs)
    model = retriever(image_encoder=Tuple())
    assert isinstance(model(torch.randn(2, 3, 4, 4)), tuple)
    assert len(model.predict(torch.randn(2, 3, 4, 4))) == 2


def test_keyword_arguments_reach_the_head():
    class Head(nn.Module):
        def predict(self, feats, data_samples=None, scale=1.0, replace=False):
            self.got = (feats.shape, len(data_samples), scale)
            return feats * 0 + 1 if replace else None
    head = Head()
    model = retriever(head=head)
    samples = [RetrievalDataSample()]
    model.predict(torch.randn(1, 3, 4, 4), samples, scale=2.0)
    assert head.got == ((1, 5), 1, 2.0)
    model.predict(torch.randn(1, 3, 4, 4), samples, replace=True)
    assert samples[0].embedding.tolist() == [1] * 5
    with pytest.raises(TypeError, match='there is no head'):
        retriever().predict(torch.randn(1, 3, 4, 4), scale=2.0)


def test_the_loss_is_the_heads():
    class Head(nn.Module):
        def loss(self, feats, data_samples):
            return dict(loss=feats.sum() * len(data_samples))
    model = retriever(head=Head())
    inputs = torch.randn(2, 3, 4, 4)
    loss = model(inputs, [RetrievalDataSample()] * 2, mode='loss')['loss']
    torch.testing.assert_close(loss, model.image_encoder(inputs).sum() * 2)


def test_pretrained_loads_a_checkpoint(tmp_path):
    source = retriever(image_encoder=Encoder())
    with torch.no_grad():
        source.image_encoder.linear.weight.fill_(0.5)
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(state_dict=source.state_dict(), meta={}), path)
    model = retriever(pretrained=str(path))
    assert bool((model.image_encoder.linear.weight == 0.5).all())
    with torch.no_grad():
        model.image_encoder.linear.weight.zero_()
    model.init_weights()
    assert bool((model.image_encoder.linear.weight == 0.5).all())
    with pytest.raises(FileNotFoundError, match=r'none\.pth'):
        retriever(pretrained=str(tmp_path / 'none.pth'))
    torch.save(dict(other=torch.zeros(1)), path)
    with pytest.raises(ValueError, match='not a checkpoint of this model.*another architecture'):
        retriever(pretrained=str(path))


def test_it_is_built_by_name():
    model = MODELS.build(dict(type='ImageToImageRetriever', image_encoder=Encoder(),
                              prototype=torch.randn(3, 5)))
    assert isinstance(model, ImageToImageRetriever)


@pytest.mark.parametrize('kwargs, error, words', [
    (dict(topk=0), ValueError, 'at least 1'), (dict(topk=-2), ValueError, 'at least 1'),
    (dict(topk=1.5), TypeError, 'integer'), (dict(topk=True), TypeError, 'integer'),
    (dict(similarity_fn='cosine'), ValueError, 'cosine_similarity'),
    (dict(similarity_fn=3), TypeError, 'callable'),
    (dict(prototype=[1, 2]), TypeError, 'DataLoader'),
    (dict(prototype=dict(batch_size=2)), ValueError, 'dataset'),
    (dict(prototype=torch.zeros(0, 5)), ValueError, 'empty'),
    (dict(prototype=torch.tensor([[float('nan')] * 5])), ValueError, 'not finite'),
    (dict(train_cfg=dict(augment=[])), ValueError, 'augments'),
])
def test_wrong_arguments(kwargs, error, words):
    with pytest.raises(error, match=words):
        retriever(**kwargs)


def test_wrong_calls():
    model = retriever()
    images = torch.randn(1, 3, 4, 4)
    with pytest.raises(ValueError, match="'features'.*tensor, predict, loss"):
        model(images, mode='features')
    with pytest.raises(ValueError, match='no head'):
        model(images, [RetrievalDataSample()], mode='loss')
    with pytest.raises(ValueError, match='width 4'):
        retriever(torch.randn(3, 4)).predict(images)
    with pytest.raises(ValueError, match='width 5'):
        model.matching(torch.randn(2, 4))
    with pytest.raises(ValueError, match='finite'):
        model.matching(torch.full((1, 5), float('nan')))
    with pytest.raises(ValueError, match='finite'):
        model.predict(images * float('nan'))
    with pytest.raises(FileNotFoundError, match='no gallery'):
        retriever('/nowhere/gallery.safetensors').prepare_prototype()
    with pytest.raises(ValueError, match='safetensors'):
        model.dump_prototype('gallery.bin')


def test_a_dump_of_the_vectors_alone_is_a_tensor(tmp_path):
    model = retriever()
    model.dump_prototype(tmp_path / 'a.pth')
    vectors = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert torch.equal(vectors, model.gallery.embeddings) and vectors.dtype == torch.float32
    model.dump_prototype(tmp_path / 'b.pt', dtype='float16')
    assert torch.load(tmp_path / 'b.pt', weights_only=True).dtype == torch.float16
    again = retriever(str(tmp_path / 'a.pth'))
    again.prepare_prototype()
    assert torch.equal(again.gallery.embeddings, vectors)
    for options in (dict(dtype='int8'), dict(config='a.py')):
        with pytest.raises(ValueError, match='a tensor alone'):
            model.dump_prototype(tmp_path / 'c.pth', **options)
    assert not (tmp_path / 'c.pth').exists()
