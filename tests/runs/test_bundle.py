"""A bundle is written, read back, and refused where it is not sound or would run something."""
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch

from retrieval import load
from retrieval.gallery import Gallery
from retrieval.index import FaissIndex
from retrieval.registry import MODELS
from retrieval.retrievers import build_retriever
from retrieval.runs.bundle import Bundle, is_bundle, is_hub_name
from retrieval.runs.write_bundle import write_bundle

from .conftest import CONFIG, PICTURES, STEPS

# nearly the same: a picture does not find itself
ASKED = [np.clip(picture, 1, 255) for picture in PICTURES]


@pytest.fixture
def copied(plain, tmp_path):
    """A copy of a bundle, and a function that changes its config.json."""
    shutil.copytree(plain, tmp_path / 'copy')

    def change(edit):
        path = tmp_path / 'copy' / 'config.json'
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))
        return path.parent

    return change


def test_it_finds_what_the_model_finds(whole, trained):
    find = load(whole, device='cpu', progress=False)
    assert isinstance(find.model._ready()[1], FaissIndex) and find.calibration.slope == 9.
    model = build_retriever(CONFIG, trained / 'weights.pth', device='cpu')
    for row, answer in enumerate(find(PICTURES)):
        best = answer['results'][0]
        assert best['id'] == 'abcdef'[row] and best['label'] == 'xyz'[row // 2]
        assert best['score'] == pytest.approx(1, abs=1e-5) and best['probability'] > 0.9
    assert find.model.fingerprint() == Gallery.load(trained / 'gallery.safetensors').fingerprint
    ours, own = find.model.state_dict(), model.state_dict()
    assert set(own) - set(ours) == {name for name in own if name.startswith('head.')} != set()
    assert all(torch.equal(value, own[name]) for name, value in ours.items())
    assert bool(ours['image_encoder.whitening.fitted'])


def test_another_prototype_is_searched_without_its_gallery(whole):
    find = load(whole, PICTURES[:2], device='cpu', progress=False, topk=1)
    assert [hit['row'] for answer in find(ASKED[:2]) for hit in answer['results']] == [0, 1]


def test_the_hub_reads_the_card(whole):
    from huggingface_hub import ModelCard

    card = ModelCard.load(Bundle.open(whole).folder / 'README.md')
    assert card.data.library_name == 'retrieval' and 'image-retrieval' in card.data.tags
    results = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert set(results) == {'recall_at_1', 'map_at_r', 'map'}
    assert card.data.model_name == 'mine' and '| Recall@1 | ' in card.text


def test_a_bundle_without_a_gallery_wants_to_be_told_what_is_searched(plain):
    with pytest.raises(ValueError, match='holds no gallery: give what is to be searched'):
        load(plain)
    found = load(plain, PICTURES, device='cpu', progress=False)(ASKED[3])
    assert found[0]['results'][0]['row'] == 3


@pytest.mark.parametrize('kind', ['os.system', 'HuggingFaceBackbone', 'NoSuchBackbone'])
def test_data_names_no_code(copied, kind):
    def edit(content):
        content['retrieval']['model']['image_encoder']['backbone']['type'] = kind
    with pytest.raises(ValueError, match=rf"has type='{kind}' in model.image_encoder.*trust"):
        load(copied(edit), PICTURES)


def test_weights_are_fetched_from_nowhere(copied):
    def edit(content):
        content['retrieval']['model']['image_encoder']['backbone']['pretrained'] = True
    with pytest.raises(ValueError, match="has 'pretrained' in model"):
        load(copied(edit), PICTURES)


@MODELS.register_module()
class OwnEncoder(torch.nn.Module):
    """A type that this package has not registered."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale


def test_types_of_others_want_trust_on_both_sides(tmp_path):
    config = dict(CONFIG, model=dict(type='ImageToImageRetriever',
                                     image_encoder=dict(type='OwnEncoder')))
    with pytest.raises(ValueError, match="type='OwnEncoder' in model.image_encoder"):
        write_bundle(tmp_path / 'own', config)
    assert not list(tmp_path.iterdir())
    write_bundle(tmp_path / 'own', config, trust=True)
    with pytest.raises(ValueError, match='OwnEncoder'):
        load(tmp_path / 'own', PICTURES)
    find = load(tmp_path / 'own', PICTURES, trust=True, progress=False)
    assert len(find(ASKED[2])[0]['results']) == 6


def test_changed_weights_are_noticed(copied):
    from safetensors.torch import load_file, save_file

    folder = copied(lambda content: None)
    state = load_file(folder / 'model.safetensors')
    state['image_encoder.projection.linear.weight'] += 1e-3
    save_file(state, folder / 'model.safetensors')
    with pytest.raises(ValueError, match="damaged, or was changed.*the encoder's weights"):
        load(folder, PICTURES)


def test_changed_preprocessing_is_noticed(copied):
    def edit(content):
        content['retrieval']['pipeline'][1]['scale'] = [20, 20]
    with pytest.raises(ValueError, match='the test pipeline differ'):
        load(copied(edit), PICTURES)


@pytest.mark.parametrize(('edit', 'message'), [
    (lambda content: content.update(version=99), 'is of version 99.*install a later one'),
    (lambda content: content.update(format='other'), 'is no bundle of this package'),
    (lambda content: content.pop('retrieval'), 'cannot be read'),
])
def test_other_configs_are_refused(copied, edit, message):
    with pytest.raises(ValueError, match=message):
        load(copied(edit), PICTURES)


def test_what_is_no_bundle(tmp_path, copied):
    with pytest.raises(FileNotFoundError, match='There is no bundle'):
        load(tmp_path / 'nothing')
    with pytest.raises(ValueError, match='is no bundle: it has no config.json'):
        load(tmp_path)
    (tmp_path / 'text.zip').write_text('text')
    with pytest.raises(ValueError, match='is no bundle: give a folder or .zip'):
        load(tmp_path / 'text.zip')
    folder = copied(lambda content: None)
    (folder / 'model.safetensors').unlink()
    with pytest.raises(ValueError, match='is not whole'):
        load(folder)
    assert is_bundle(folder) and not is_bundle(tmp_path)


@pytest.mark.parametrize('at', [b'PK\1\2', b'PK\3\4', b'"format"'])
def test_a_damaged_archive_is_refused(plain, tmp_path, at):
    path = tmp_path / 'mine.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for file in plain.iterdir():
            archive.write(file, file.name)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(at, b'XX' + at[2:]))
    with pytest.raises(ValueError, match='mine.zip'):
        load(path)


def test_an_archive_writes_only_the_files_of_a_bundle(plain, tmp_path):
    path = tmp_path / 'evil.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        for file in plain.iterdir():
            archive.write(file, file.name)
        archive.writestr('../outside.txt', 'x')
        archive.writestr('hook.py', 'raise SystemExit')
    folder = Bundle.open(path).folder
    assert {one.name for one in folder.iterdir()} == {
        'config.json', 'model.safetensors', 'README.md'}
    assert not (folder.parent / 'outside.txt').exists() and Bundle.open(path).folder == folder


def test_names_on_the_hub(monkeypatch, plain):
    assert is_hub_name('some-body/model.v2') and is_hub_name('a/b@main')
    for name in ('arcface/resnet50-arcface_100e_inshop', 'arcface/mistyped'):
        assert not is_hub_name(name)  # of shipped configs
    assert not any(map(is_hub_name, ('a', 'a/b/c', 'a/b.py', '../b/c', str(plain), 'x/y.zip',
                                          'work_dirs/epoch_5.pth')))
    asked = {}

    def fetch(repository, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, files=allow_patterns)
        if repository == 'no/network':
            raise OSError('not reached')
        return str(plain)

    monkeypatch.setattr('huggingface_hub.snapshot_download', fetch)
    monkeypatch.setattr('retrieval.encoders.backbones.hub._reachable', lambda *_: False)
    assert Bundle.open('somebody/glyphs@v1').folder == plain
    assert asked['repository'] == 'somebody/glyphs' and asked['revision'] == 'v1'
    assert 'model.safetensors' in asked['files'] and not any('*' in one for one in asked['files'])
    with pytest.raises(ConnectionError, match="There is no folder 'no/network', and no bundle.*"
                                              'Check the name; without a network'):
        load('no/network')


def test_a_bundle_of_a_model_of_transformers_is_data(tmp_path):
    """Its configuration is in the bundle; the folder that it came from is gone."""
    transformers = pytest.importorskip('transformers')
    torch.manual_seed(0)
    transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
        patch_size=14)).save_pretrained(tmp_path / 'hub')
    steps = [STEPS[0], dict(type='Resize', scale=(28, 28)), STEPS[2]]
    config = dict(
        test_dataloader=dict(dataset=dict(pipeline=steps)),
        model=dict(type='ImageToImageRetriever', image_encoder=dict(
            type='ImageEncoder', pooling=None, backbone=dict(
                type='HuggingFaceBackbone', model_name=str(tmp_path / 'hub'), pretrained=True,
                pooled=True))))
    write_bundle(tmp_path / 'mine', config)
    shutil.rmtree(tmp_path / 'hub')
    find = load(tmp_path / 'mine', PICTURES, device='cpu', progress=False)
    assert find(ASKED[4])[0]['results'][0]['row'] == 4
    held = json.loads((tmp_path / 'mine' / 'config.json').read_text())
    backbone = held['retrieval']['model']['image_encoder']['backbone']
    assert backbone['model_name']['model_type'] == 'dinov2' and 'pretrained' not in backbone


def test_a_bundle_of_images_and_words_searches_by_both(tmp_path):
    """The text tower and its tokenizer are among the weights; the folder they came from is gone."""
    pytest.importorskip('transformers')
    from ..dual_models import make_dual

    make_dual(tmp_path / 'hub', 'clip')
    encoder = dict(type='ImageEncoder', pooling=None, backbone=dict(
        type='DualEncoder', weights=str(tmp_path / 'hub')))
    steps = [STEPS[0], dict(type='Resize', scale=(32, 32)), STEPS[2]]
    config = dict(model=dict(type='ImageToImageRetriever', image_encoder=encoder),
                  test_dataloader=dict(dataset=dict(pipeline=steps)))
    made = build_retriever(config, device='cpu')
    write_bundle(tmp_path / 'mine.zip', config)
    shutil.rmtree(tmp_path / 'hub')
    find = load(tmp_path / 'mine.zip', PICTURES, device='cpu', progress=False)
    words, = find.composed([dict(text='a red bicycle')], topk=6)
    expected = find.model.gallery.embeddings @ made.embed_words(['a red bicycle'])[0]
    scores = {hit['row']: hit['score'] for hit in words['results']}
    assert [scores[row] for row in range(6)] == pytest.approx(expected.tolist(), abs=1e-5)
    assert find(ASKED[2])[0]['results'][0]['row'] == 2
    assert find.model.gallery.fingerprint.words == made.fingerprint().words is not None
