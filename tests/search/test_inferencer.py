"""Searching with images from anywhere, in prototypes of every kind."""
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

from retrieval.datasets import ImageFolder, ImageList
from retrieval.evaluation import MatchCalibration, calibrate
from retrieval.gallery import FingerprintError, Gallery
from retrieval.index import ExactIndex
from retrieval.retrievers import BaseRetriever, encode
from retrieval.search import ImageRetrievalInferencer

from .pictures import PIPELINE, Pixels, picture, retriever, write


@pytest.fixture
def folder(tmp_path):
    """Nine pictures in three classes."""
    for seed in range(9):
        write(tmp_path / 'gallery' / 'abc'[seed % 3] / f'{seed}.png', seed)
    return tmp_path / 'gallery'


def paths(folder):
    return [str(path) for path in sorted(folder.rglob('*.png'))]


def expected(query, images):
    """Rows by falling cosine, by a plain loop over the pixels."""
    model = Pixels()
    pipeline = ImageList(query + images, pipeline=PIPELINE)
    vectors = [model(pipeline[row]['inputs'][None].float())[0].double()
               for row in range(len(pipeline))]
    answers = []
    for one in vectors[:len(query)]:
        cosines = [float(one @ other / one.norm() / other.norm())
                   for other in vectors[len(query):]]
        answers.append(sorted(enumerate(cosines), key=lambda pair: -pair[1]))
    return answers


def prototypes(folder):
    dataset = ImageFolder(str(folder), pipeline=PIPELINE)
    config = dict(type='retrieval.ImageFolder', data_root=str(folder), pipeline=PIPELINE)
    gallery = encode(retriever(), DataLoader(dataset, 4, collate_fn=pseudo_collate))
    gallery.fingerprint = retriever().fingerprint(dataset)
    gallery.save(folder.parent / 'gallery.safetensors')
    index = ExactIndex()
    index.add(gallery.embeddings, gallery.ids)
    torch.save(gallery.embeddings, folder.parent / 'tensor.pth')
    return {
        'folder': folder, 'folder as text': str(folder), 'list': paths(folder),
        'pictures': [Image.open(path) for path in paths(folder)], 'dataset': dataset,
        'arrays': [np.asarray(Image.open(path)) for path in paths(folder)], 'config': config,
        'dataloader': DataLoader(dataset, 2, collate_fn=pseudo_collate),
        'dataloader config': dict(batch_size=3, dataset=config), 'gallery': gallery,
        'gallery file': folder.parent / 'gallery.safetensors',
        'tensor file': str(folder.parent / 'tensor.pth'), 'tensor': gallery.embeddings,
        'array of vectors': gallery.embeddings.numpy(), 'index': index}


KINDS = ['folder', 'folder as text', 'list', 'pictures', 'dataset', 'arrays', 'config',
         'dataloader', 'dataloader config', 'gallery', 'gallery file', 'tensor file', 'tensor',
         'array of vectors', 'index']


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_prototype_gives_the_same_results(folder, kind):
    inferencer = ImageRetrievalInferencer(retriever(), prototypes(folder)[kind],
                                          pipeline=PIPELINE, batch_size=4)
    query = [picture(100), picture(101)]
    answers = inferencer(query, topk=4)
    for answer, wanted in zip(answers, expected(query, paths(folder)), strict=True):
        assert [hit['row'] for hit in answer['results']] == [row for row, _ in wanted[:4]]
        assert [hit['rank'] for hit in answer['results']] == [1, 2, 3, 4]
        assert [hit['score'] for hit in answer['results']] == pytest.approx(
            [score for _, score in wanted[:4]], abs=1e-5)
        for hit in answer['results']:
            name = paths(folder)[hit['row']]
            if kind in ('folder', 'list', 'dataset', 'config', 'gallery', 'gallery file', 'index'):
                assert hit['id'] == hit['path'] == name
            if kind in ('folder', 'dataset', 'config', 'dataloader', 'gallery', 'gallery file'):
                assert hit['label'] == name.split('/')[-2]
            if kind in ('list', 'index', 'tensor'):
                assert hit['label'] is None
            if kind in ('tensor', 'arrays'):
                assert hit['path'] is None


def test_queries_of_every_kind(folder):
    inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE)
    copy = write(folder.parent / 'copy.png', 3)
    for query in (copy, Image.open(copy), picture(3), [copy], [picture(3)]):
        hit = inferencer(query)[0]['results'][0]
        assert hit['path'].endswith('3.png') and hit['score'] == pytest.approx(1, abs=1e-5)
    assert len(inferencer(folder)) == 9
    own = inferencer(paths(folder)[0], topk=9)[0]['results']
    assert len(own) == 8 and paths(folder)[0] not in [hit['id'] for hit in own]


def test_a_folder_with_loose_images_has_no_classes(folder):
    write(folder / 'loose.png', 50)
    inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE)
    assert len(inferencer.model.gallery) == 10 and inferencer.model.gallery.labels is None


def test_the_older_call_searches_the_models_own_prototype(folder):
    config = dict(batch_size=2, dataset=dict(type='retrieval.ImageFolder', data_root=str(folder),
                                             pipeline=PIPELINE))
    model = retriever(config)
    inferencer = ImageRetrievalInferencer(model, PIPELINE, batch_size=3)
    assert inferencer.batch_size == 3
    assert inferencer(picture(2))[0]['results'][0]['label'] == 'c'
    assert len(inferencer(picture(2))[0]['results']) == 5, "the retriever's own number"
    assert len(inferencer(picture(2), topk=7)[0]['results']) == 7 and model.topk == 5
    fewer = ImageRetrievalInferencer(model, PIPELINE, topk=2)
    assert len(fewer(picture(2))[0]['results']) == len(fewer.samples(picture(2))[0].pred_label) == 2
    assert len(fewer(picture(2), topk=6)[0]['results']) == 6 and model.topk == 5
    assert ImageRetrievalInferencer(model)(picture(2))[0]['results'][0]['label'] == 'c', \
        'the pipeline is that of the prototype'


def test_a_config_with_a_checkpoint(folder, tmp_path):
    pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=(32, 32)),
                dict(type='PackInputs')]
    config = dict(
        default_scope='retrieval', test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        model=dict(type='ImageToImageRetriever', topk=2, prototype=dict(dataset=dict(
            type='ImageFolder', data_root=str(folder), pipeline=pipeline)), image_encoder=dict(
                type='ImageEncoder', backbone=dict(type='TimmBackbone', model_name='test_resnet'))))
    (tmp_path / 'config.py').write_text('\n'.join(f'{k} = {v!r}' for k, v in config.items()))
    torch.manual_seed(1)
    first = ImageRetrievalInferencer(tmp_path / 'config.py')
    torch.save(first.model.state_dict(), tmp_path / 'checkpoint.pth')
    answer = first(picture(70))
    torch.manual_seed(2)
    for given in (tmp_path / 'config.py', Config(config), config):
        again = ImageRetrievalInferencer(given, checkpoint=tmp_path / 'checkpoint.pth')
        assert again(picture(70)) == answer and len(answer[0]['results']) == 2
        other = ImageRetrievalInferencer(given, folder, checkpoint=tmp_path / 'checkpoint.pth')
        assert other(picture(70)) == answer


def test_an_encoder_alone(folder):
    inferencer = ImageRetrievalInferencer(Pixels(), folder, pipeline=PIPELINE)
    query = [picture(100)]
    assert [hit['row'] for hit in inferencer(query, 3)[0]['results']] == [
        row for row, _ in expected(query, paths(folder))[0][:3]]


def test_the_default_encoder_tells_shapes_apart(tmp_path):
    """Discs and stripes in many colours, searched with new ones."""
    def draw(kind, seed):
        rng = np.random.default_rng(seed)
        image = np.full((160, 160, 3), rng.integers(0, 256, 3), np.uint8)
        y, x = np.mgrid[:160, :160]
        cx, cy, size = rng.integers(60, 100), rng.integers(60, 100), rng.integers(30, 55)
        ink = ((x - cx) ** 2 + (y - cy) ** 2 < size ** 2) if kind == 'disc' else (
            (x + cx) // (size // 3) % 2 == 0)
        image[ink] = 255 - image[0, 0]
        return Image.fromarray(image)
    for kind in ('disc', 'stripes'):
        (tmp_path / 'shapes' / kind).mkdir(parents=True)
        for seed in range(6):
            draw(kind, seed).save(tmp_path / 'shapes' / kind / f'{seed}.png')
    inferencer = ImageRetrievalInferencer(prototype=tmp_path / 'shapes')
    answers = inferencer([draw(kind, 20 + seed) for seed in range(4)
                          for kind in ('disc', 'stripes')], topk=3)
    labels = [[hit['label'] for hit in answer['results']] for answer in answers]
    assert labels == [['disc'] * 3, ['stripes'] * 3] * 4


class Named(BaseRetriever):
    """A retriever of somebody else: the first results are always the same."""

    def __init__(self):
        super().__init__(data_preprocessor=dict(type='retrieval.RetrievalDataPreprocessor'))
        self.gallery = Gallery(torch.eye(3), ids=['x', 'y', 'z'])

    def predict(self, inputs, data_samples=None, **kwargs):
        assert self.prototype == 'the names' or isinstance(self.prototype, Gallery)
        for sample in data_samples:
            sample.set_pred_label([2, 0, 1]).set_pred_score([3., 2., 1.])
        return data_samples

    def prepare_prototype(self):
        self.prepared = True

    extract_feat = loss = matching = dump_prototype = None


def test_a_retriever_of_another_kind():
    model = Named()
    model.search_in('the names')
    for inferencer in (ImageRetrievalInferencer(model, PIPELINE),
                       ImageRetrievalInferencer(model, model.gallery, pipeline=PIPELINE)):
        results = inferencer(picture(1), topk=2)[0]['results']
        assert [hit['id'] for hit in results] == ['z', 'x']
    assert model.prepared and model.begin_evaluation(None) is None


def test_metadata_travels(folder, tmp_path):
    gallery = Gallery(torch.eye(16), ids=[f'i{n}' for n in range(16)],
                      metadata=dict(camera=range(16), place=[f'p{n}' for n in range(16)]))
    hit = ImageRetrievalInferencer(retriever(), gallery, pipeline=PIPELINE)(
        picture(0))[0]['results'][0]
    assert hit['metadata'] == dict(camera=hit['row'], place=f'p{hit["row"]}')
    json.dumps(hit)


def test_unreadable_images(folder, tmp_path):
    (folder / 'a' / 'cut.png').write_bytes((folder / 'a' / '0.png').read_bytes()[:60])
    with pytest.raises(OSError, match=r'cut\.png'):
        ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE)
    inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE,
                                          on_unreadable='skip')
    assert len(inferencer.model.gallery) == 9
    assert list(inferencer.model.gallery.skipped) == [str(folder / 'a' / 'cut.png')]
    bad, good = inferencer([folder / 'a' / 'cut.png', picture(5)], on_unreadable='skip')
    assert bad['error'] and 'results' not in bad and good['results']


def test_nobody_is_an_answer(folder):
    gallery = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE).model.gallery
    # Noise has no classes, so what counts as a match here is nearly a copy.
    doubled = torch.cat([gallery.embeddings, gallery.embeddings + 5])
    made = calibrate(doubled, torch.arange(9).repeat(2), 'false_match_rate', 0.0)
    made.save(folder.parent / 'match.json')
    for calibration in (made, folder.parent / 'match.json'):
        inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE,
                                              calibration=calibration)
        known, nobody = inferencer([picture(4), picture(400)])
        assert known['match'] is True and len(known['results']) == 1
        assert known['results'][0]['probability'] == pytest.approx(made.probability(1.), abs=1e-4)
        assert nobody == dict(query=nobody['query'], results=[], match=False)
        assert inferencer(picture(400), threshold=-1)[0]['match'] is True
    plain = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE)
    assert 'match' not in plain(picture(4))[0]
    assert plain(picture(4), threshold=0.999)[0]['match'] is True
    assert plain(picture(400), threshold=0.999)[0] == dict(
        query=nobody['query'], results=[], match=False)


def test_a_class_has_its_own_threshold(folder):
    made = MatchCalibration(-1., class_thresholds={'b': 2.})
    inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE, topk=9,
                                          calibration=made)
    hits = inferencer(picture(1))[0]['results']
    assert {hit['label'] for hit in hits} == {'a', 'c'}
    assert [hit['rank'] for hit in hits] == [1, 2, 3, 4, 5, 6] and 'probability' not in hits[0]


def test_pictures_on_request(folder, tmp_path):
    inferencer = ImageRetrievalInferencer(retriever(), folder, pipeline=PIPELINE)
    answers = inferencer([picture(3), folder / 'a' / '0.png'], draw_dir=tmp_path / 'out' / 'new')
    sizes = [Image.open(answer['picture']).size for answer in answers]
    assert sizes[0] == sizes[1] and answers[1]['picture'].endswith('0001_0.png')
    pixels = np.asarray(Image.open(answers[0]['picture']))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 300, 'the pictures are not there'


def test_the_mode_of_the_model_stays(folder):
    model = retriever()
    model.train()
    inferencer = ImageRetrievalInferencer(model, folder, pipeline=PIPELINE)
    inferencer(picture(1))
    assert model.training and model.image_encoder.training


def test_a_gallery_of_another_model_is_refused(folder):
    gallery = prototypes(folder)['gallery']
    with pytest.raises(FingerprintError, match='weights'):
        ImageRetrievalInferencer(retriever(seed=1), gallery, pipeline=PIPELINE)
    with pytest.raises(FingerprintError, match='pipeline'):
        ImageRetrievalInferencer(retriever(), gallery, pipeline=[
            PIPELINE[0], dict(type='Resize', scale=(6, 6), interpolation='nearest'), PIPELINE[2]])


@pytest.mark.parametrize('call, error, says', [
    (lambda f: ImageRetrievalInferencer('nowhere.py', f), FileNotFoundError, 'nowhere'),
    (lambda f: ImageRetrievalInferencer(retriever(), f / 'no', pipeline=PIPELINE),
     FileNotFoundError, 'no folder or gallery'),
    (lambda f: ImageRetrievalInferencer(), ValueError, 'prototype='),
    (lambda f: ImageRetrievalInferencer(3, f), TypeError, 'default encoder'),
    (lambda f: ImageRetrievalInferencer(retriever(), f), ValueError, 'pipeline'),
    (lambda f: ImageRetrievalInferencer(retriever(), []), ValueError, 'pipeline'),
    (lambda f: ImageRetrievalInferencer(retriever(), 3, pipeline=PIPELINE), TypeError, 'folder'),
    (lambda f: ImageRetrievalInferencer(retriever(), [3], pipeline=PIPELINE), TypeError, 'int'),
    (lambda f: ImageRetrievalInferencer(retriever(), {}, pipeline=PIPELINE), ValueError, 'type'),
    (lambda f: ImageRetrievalInferencer(retriever(), ExactIndex(), pipeline=PIPELINE),
     ValueError, 'empty'),
    (lambda f: ImageRetrievalInferencer(retriever(), torch.eye(16), 'x', pipeline=PIPELINE),
     ValueError, 'prototype_cache'),
    (lambda f: ImageRetrievalInferencer(retriever(), None, 'x', pipeline=PIPELINE), ValueError,
     'prototype_cache'),
    (lambda f: ImageRetrievalInferencer(retriever(), f, checkpoint='x'), ValueError, 'checkpoint'),
    (lambda f: ImageRetrievalInferencer(dict(default_scope='retrieval', model={})), ValueError,
     'type'),
    (lambda f: ImageRetrievalInferencer(retriever(), f, pipeline=PIPELINE, calibration=3),
     TypeError, 'MatchCalibration'),
    (lambda f: ImageRetrievalInferencer(retriever(), f, pipeline=PIPELINE,
                                        calibration=MatchCalibration(1., similarity='euclidean')),
     ValueError, 'euclidean'),
    (lambda f: ImageRetrievalInferencer(retriever(), f, pipeline=PIPELINE)(picture(1), topk=0),
     ValueError, 'topk'),
    (lambda f: ImageRetrievalInferencer(retriever(), f, pipeline=PIPELINE)('no.png'),
     FileNotFoundError, r'no\.png'),
])
def test_wrong_input(folder, call, error, says):
    with pytest.raises(error, match=says):
        call(folder)
