"""Images and words in one space: against the pipeline of transformers itself, on tiny models."""
import copy
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.nn import functional

from retrieval.datasets import ImageList
from retrieval.encoders import WORD_PRESETS, DualEncoder, ImageEncoder, preset
from retrieval.encoders.backbones.dual_encoder import checked_architecture
from retrieval.gallery import Fingerprint, FingerprintError, Gallery
from retrieval.registry import MODELS
from retrieval.retrievers import ImageToImageRetriever
from retrieval.retrievers.prototype import fingerprint_of

transformers = pytest.importorskip('transformers')
from ...dual_models import make_dual, tokenizer_of  # noqa: E402

KINDS = ('clip', 'siglip', 'siglip2')
TEXTS = ['a red bicycle', 'Snow!', 'x' * 40]


@pytest.fixture(scope='module')
def duals(tmp_path_factory):
    """The folder and transformers' own model of each kind."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    return {kind: (str(folder), make_dual(folder, kind)) for kind, folder in folders.items()}


def picture(seed=0, size=(48, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC))


def processor_of(kind):
    """What transformers prepares images with, at the size of the tiny models."""
    if kind == 'clip':
        return transformers.CLIPImageProcessor(size=dict(shortest_edge=32),
                                               crop_size=dict(height=32, width=32))
    if kind == 'siglip':
        return transformers.SiglipImageProcessor(size=dict(height=32, width=32), resample=2)
    return transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)


def prepared(kind, image):
    """An image as ours is given it, by the preset of the kind at 32 pixels."""
    _, preprocessor, pipeline = preset('clip-base-32' if kind == 'clip' else 'siglip2-base')
    for step in pipeline[1:-1]:
        step['size'] = 32 if isinstance(step['size'], int) else (32, 32)
    batch = pseudo_collate([ImageList([image], pipeline=pipeline)[0]])
    return MODELS.build(preprocessor)(batch, False)['inputs']


@pytest.mark.parametrize('kind', KINDS)
def test_similarities_are_those_of_transformers(kind, duals):
    folder, whole = duals[kind]
    encoder = ImageEncoder(dict(type='DualEncoder', weights=folder), pooling=None).eval()
    images = [picture(0, (32, 32)), picture(1, (32, 32))] if kind == 'siglip2' else [
        picture(0), picture(1)]
    options = dict(padding=True) if kind == 'clip' else dict(padding='max_length')
    given = transformers.AutoTokenizer.from_pretrained(folder)(
        TEXTS, truncation=True, max_length=20, return_tensors='pt', **options)
    seen = processor_of(kind)(images=images, return_tensors='pt')
    with torch.no_grad():
        output = whole(**given, **seen)
        ours = encoder(torch.cat([prepared(kind, image) for image in images]))
        words = encoder.embed_words(TEXTS)
    torch.testing.assert_close(words, output.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, output.image_embeds, atol=1e-5, rtol=0)
    scale, bias = whole.logit_scale.exp(), getattr(whole, 'logit_bias', torch.zeros(()))
    torch.testing.assert_close(ours @ words.T, (output.logits_per_image - bias) / scale,
                               atol=1e-5, rtol=0)
    assert ours.std(0).mean() > 1e-3 and words.std(0).mean() > 1e-3, 'they are not all alike'


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
def test_pictures_are_prepared_as_transformers_does(kind):
    wanted = processor_of(kind)(images=[picture()], return_tensors='pt')['pixel_values']
    torch.testing.assert_close(prepared(kind, picture()), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize('kind', KINDS)
def test_names_of_weights_are_those_of_transformers(kind, duals):
    folder, whole = duals[kind]
    encoder = DualEncoder(weights=folder)
    own = {name.removeprefix('model.') for name in encoder.state_dict()} - {'tokenizer'}
    assert own == set(whole.state_dict())
    images = set(encoder.state_dict()) - set(encoder.word_state())
    assert images and all(name.startswith(('model.vision', 'model.visual')) for name in images)
    assert not [name for name, weight in encoder.named_parameters()
                if weight.requires_grad and name not in images]


def test_a_file_wants_the_tokenizer_beside_it(duals, tmp_path):
    folder, whole = duals['clip']
    architecture = DualEncoder(weights=folder).architecture
    torch.save(whole.state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(FileNotFoundError, match='no tokenizer.json in'):
        DualEncoder(architecture, checkpoint=str(tmp_path / 'weights.pth'))
    for name in ('tokenizer.json', 'tokenizer_config.json'):
        shutil.copy(f'{folder}/{name}', tmp_path)
    found = DualEncoder(architecture, checkpoint=str(tmp_path / 'weights.pth')).eval()
    torch.testing.assert_close(found.embed_words(TEXTS),
                               DualEncoder(weights=folder).eval().embed_words(TEXTS))


def test_its_state_holds_all_that_words_need(duals):
    encoder = ImageEncoder(dict(type='DualEncoder', weights=duals['siglip'][0]), pooling=None)
    again = ImageEncoder(dict(type='DualEncoder', architecture=encoder.backbone.architecture),
                         pooling=None)
    with pytest.raises(ValueError, match='has no tokenizer yet'):
        again.embed_words(TEXTS)
    again.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(again.eval().embed_words(TEXTS), encoder.eval().embed_words(TEXTS))
    torch.testing.assert_close(copy.deepcopy(again).embed_words(TEXTS), again.embed_words(TEXTS))


def test_words_go_through_projection_and_whitening(duals):
    encoder = ImageEncoder(dict(type='DualEncoder', weights=duals['clip'][0]), pooling=None,
                           projection=5).eval()
    with torch.no_grad():
        plain = functional.normalize(encoder.projection(encoder.backbone.embed_words(TEXTS)))
        torch.testing.assert_close(encoder.embed_words(TEXTS), plain)


def test_small_letters_on_request(duals):
    encoder = DualEncoder(weights=duals['clip'][0], lowercase=True).eval()
    torch.testing.assert_close(*encoder.embed_words(['Snow', 'snow']))
    folder = duals['siglip'][0]
    assert torch.equal(DualEncoder(weights=folder, lowercase=True).tokenizer,
                       DualEncoder(weights=folder).tokenizer), 'it does so by itself'


def test_the_text_tower_has_a_fingerprint_of_its_own(duals):
    encoder = DualEncoder(weights=duals['clip'][0])
    made = fingerprint_of(encoder, None, 'p')
    assert fingerprint_of(DualEncoder(weights=duals['clip'][0]), None, 'p') == made
    with torch.no_grad():
        encoder.model.text_projection.weight += 1
    other = fingerprint_of(encoder, None, 'p')
    assert other.weights == made.weights and other.words != made.words
    assert made.differences(other) == [], 'pictures do not depend on it'
    encoder.tokenizer[-3] += 1
    assert fingerprint_of(encoder, None, 'p').words not in (made.words, other.words)
    assert Fingerprint.from_dict(made.as_dict()) == made
    assert 'words' not in Fingerprint('a').as_dict()


def test_a_gallery_of_another_text_tower_is_refused_for_words(duals):
    one = ImageToImageRetriever(DualEncoder(weights=duals['clip'][0])).eval()
    gallery_of = ImageToImageRetriever(DualEncoder(weights=duals['clip'][0])).eval()
    with torch.no_grad():
        gallery_of.image_encoder.model.text_projection.weight += 1
    gallery = Gallery(torch.eye(12), fingerprint=gallery_of.fingerprint())
    one.search_in(gallery)
    one.prepare_prototype()
    assert len(one.predict(torch.zeros(1, 3, 32, 32))[0].pred_label) == 12, 'pictures may search'
    with pytest.raises(FingerprintError, match='another text tower or tokenizer'):
        one.embed_words(['a'])
    one.check_fingerprint = False
    assert one.embed_words(['a']).shape == (1, 12)


def test_an_encoder_without_words_says_which_have_them():
    encoder = ImageEncoder(dict(type='TimmBackbone', model_name='test_resnet'))
    with pytest.raises(ValueError, match='no text tower'):
        encoder.embed_words(['a'])
    with pytest.raises(ValueError, match=r"test_resnet has no text tower.*'a red one'.*clip-base"):
        ImageToImageRetriever(encoder).embed_words(['a red one'])
    with pytest.raises(ValueError, match='not empty'):
        ImageToImageRetriever(encoder).embed_words([' '])


@pytest.mark.parametrize(('given', 'message'), [
    (dict(model_type='clipp'), 'nearest|Did you mean|clip'),
    (dict(model_type='clip', auto_map='x'), 'auto_map'),
    (dict(model_type='clip', text_config=dict(attn_implementation='x')), 'attn_implementation')])
def test_an_architecture_is_sizes_alone(given, message):
    with pytest.raises(ValueError, match=message):
        checked_architecture(given)


def test_what_is_refused(duals, tmp_path, monkeypatch):
    folder = duals['clip'][0]
    with pytest.raises(ValueError, match='architecture'):
        DualEncoder()
    with pytest.raises(FileNotFoundError, match='no folder'):
        DualEncoder(weights='./nowhere')
    with pytest.raises(ValueError, match='another architecture'):
        DualEncoder(dict(DualEncoder(weights=folder).architecture, projection_dim=7), folder)
    with pytest.raises(ValueError, match=r'takes images of \(32, 32\), got \(40, 40\)'):
        DualEncoder(weights=folder)(torch.zeros(1, 3, 40, 40))
    with pytest.raises(ValueError, match='whole patches of 8'):
        DualEncoder(weights=duals['siglip2'][0])(torch.zeros(1, 3, 33, 32))
    with pytest.raises(TypeError, match='must be a number'):
        checked_architecture(dict(model_type='clip', projection_dim=[3]))
    monkeypatch.setattr('retrieval.encoders.backbones.hub._reachable', lambda *_: False)
    with pytest.raises(ConnectionError, match="'openai/clip-vit-base-patch32' could not be fetched"
                                              '.*--checkpoint FOLDER'):
        DualEncoder(*reversed(WORD_PRESETS['clip-base-32']))


def test_without_transformers(monkeypatch):
    import builtins
    original = builtins.__import__

    def refuse(name, *rest, **options):
        if name == 'transformers':
            raise ImportError(name)
        return original(name, *rest, **options)
    monkeypatch.setattr(builtins, '__import__', refuse)
    with pytest.raises(ImportError, match=r"pip install 'retrieval\[huggingface\]'"):
        DualEncoder(dict(model_type='clip'))


def test_tokens_are_those_of_the_models_own_tokenizer():
    assert tokenizer_of('siglip')('A b').input_ids == tokenizer_of('siglip')('a b').input_ids
