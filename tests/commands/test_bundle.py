"""`retrieval bundle`, and every command that takes what it wrote."""
import json

import pytest

from retrieval.runs.bundle import Bundle, is_bundle

from .conftest import run


@pytest.fixture(scope='module')
def calibration(gallery, tmp_path_factory):
    path = tmp_path_factory.mktemp('calibration') / 'calibration.json'
    status, _, err = run('calibrate', gallery, path)
    assert status == 0, err
    return path


@pytest.fixture(scope='module')
def bundle(config, checkpoint, gallery, calibration, tmp_path_factory):
    out = tmp_path_factory.mktemp('bundle') / 'small'
    status, printed, err = run('bundle', config, '--gallery', gallery, checkpoint, out,
                               '--calibration', calibration)
    assert status == 0 and '8 numbers an image' in printed and 'Recall@1' in printed, err
    return out


def test_metrics_that_were_measured_stand_in_the_card(config, checkpoint, tmp_path):
    (tmp_path / 'metrics.json').write_text(json.dumps({'embedding/Recall@1': 91.25, 'num_x': 3}))
    status, _, err = run('bundle', config, checkpoint, tmp_path / 'out.zip', '--metrics',
                         tmp_path / 'metrics.json')
    assert status == 0 and is_bundle(tmp_path / 'out.zip'), err
    opened = Bundle.open(tmp_path / 'out.zip')
    assert opened.manifest['metrics'] == {'embedding/Recall@1': 91.25}
    card = (opened.folder / 'README.md').read_text()
    assert '| embedding/Recall@1 | 91.25 |' in card and 'the test set of small.py' in card
    (tmp_path / 'metrics.json').write_text('[1]')
    status, _, err = run('bundle', config, checkpoint, tmp_path / 'other', '--metrics',
                         tmp_path / 'metrics.json')
    assert status == 2 and 'is no JSON of metrics' in err and not (tmp_path / 'other').exists()


def test_what_is_missing_is_said(config, bundle, tmp_path):
    assert 'wants the checkpoint' in run('bundle', config, tmp_path / 'out')[2]
    assert 'Which model?' in run('bundle', tmp_path / 'out')[2]
    assert 'is there already' in run('bundle', config, bundle)[2]


@pytest.mark.slow
def test_a_preset_and_its_errors(tmp_path):
    status, printed, err = run('bundle', '--encoder', 'efficientnet-lite0', tmp_path / 'lite0')
    assert status == 0 and '1280 numbers an image' in printed, err
    status, _, err = run('bundle', '--encoder', 'dino-small', tmp_path / 'x')
    assert status == 2 and "Did you mean 'dinov" in err
    status, _, err = run('bundle', '--encoder', 'resnet50', tmp_path / 'gone.pth', tmp_path / 'x')
    assert status == 2 and 'gone.pth' in err


# Each command that takes config and checkpoint, or a gallery, takes a bundle. `{out}` is a file or
# folder that is not there yet, `{folder}` a folder of classes, `{query}` one of its pictures.
COMMANDS = {
    'search': '{bundle} {query} --out {out}',
    'search a folder': '{folder} {query} --out {out} --encoder {bundle} --no-cache',
    'search a folder by config': '{folder} {query} --out {out} --config {bundle} --no-cache',
    'search with its weights':
        '{folder} {query} --out {out} --config {config} --checkpoint {bundle} --no-cache',
    'search its gallery': '{gallery} {query} --out {out} --encoder {bundle}',
    'find_duplicates': '{bundle} --out {out}',
    'find_duplicates in a folder': '{folder} --out {out} --encoder {bundle} --no-cache',
    'cluster': '{bundle} --out {out} --k 3',
    'cluster a folder': '{folder} --out {out} --encoder {bundle} --no-cache --k 3',
    'calibrate a folder': '{folder} {out} --encoder {bundle} --no-cache',
    'calibrate': '{bundle} {out}',
    'evaluate': '{bundle} --out {out}',
    'report': '{bundle} --out {out}.html',
    'report of a folder': '{bundle} --data {folder} --out {out}.html --cfg-options work_dir={out}',
    'report of a config': '{config} {bundle} --out {out}.html --cfg-options work_dir={out}',
    'compare_galleries': '{bundle} {gallery} --out {out}',
    'gallery info': 'info {bundle}',
    'build_index': '{bundle} {out}',
    'dump_prototype': '{bundle} {out}.safetensors --data {folder}',
    'dump_prototype of a config': '{config} --dtype float16 {bundle} {out}.safetensors',
    'test': '{bundle} --data {folder} --out {out}.json --work-dir {out}',
    'fit_whitening': '{bundle} {out}.pth --data {folder} --dim 4 --work-dir {out}',
    'print_config': '{bundle}',
    'bundle': '{bundle} {out}',
}


@pytest.fixture(scope='module')
def archive(config, checkpoint, gallery, calibration, tmp_path_factory):
    out = tmp_path_factory.mktemp('archive') / 'small.zip'
    status, _, err = run('bundle', config, checkpoint, out, '--gallery', gallery, '--calibration',
                         calibration)
    assert status == 0, err
    return out


def results(path):
    answers = json.loads((path / 'results.json').read_text())
    return [[(hit['id'], hit['score'], hit['probability'], hit['label'])
             for hit in answer['results']] for answer in answers]


def test_a_bundle_answers_as_its_parts_do(archive, gallery, calibration, folder, tmp_path):
    query = folder / 'class1' / '0.png'
    assert run('search', archive, query, '--out', tmp_path / 'bundle')[0] == 0
    assert run('search', gallery, query, '--out', tmp_path / 'parts', '--calibration',
               calibration)[0] == 0
    found = results(tmp_path / 'bundle')
    assert len(found[0]) > 0 and found == results(tmp_path / 'parts')
    changed = ['--cfg-options', "model.rerank=[dict(type='AlphaQueryExpansion',top_n=2)]"]
    assert run('search', archive, query, '--out', tmp_path / 'other', *changed)[0] == 0
    assert found != results(tmp_path / 'other')


def test_a_bundle_is_tested_as_its_checkpoint_is(archive, config, checkpoint, tmp_path):
    def tested(weights):
        status, _, err = run('test', config, weights, '--out', tmp_path / 'out.json',
                             '--work-dir', tmp_path)
        assert status == 0, err
        return json.loads((tmp_path / 'out.json').read_text())

    assert tested(archive) == tested(checkpoint)


def test_what_a_bundle_has_not_is_said(archive, config, checkpoint, folder, tmp_path):
    out = tmp_path / 'plain'
    assert run('bundle', config, checkpoint, out)[0] == 0
    query = folder / 'class1' / '0.png'
    for arguments, message in (
            (['search', out, query], 'holds no gallery: give'),
            (['cluster', out], f'holds no gallery: give a folder of images and --encoder {out}'),
            (['serve', out, '--port', 0], 'holds no gallery'),
            (['dump_prototype', out, tmp_path / 'g.safetensors'], 'give --data FOLDER'),
            (['test', out], 'a bundle wants --data FOLDER'),
            (['test', out, checkpoint], 'has weights of its own'),
            (['test', config, checkpoint, '--data', folder], 'leave --data out'),
            (['search', folder, query, '--encoder', out, '--config', config], 'leave one of them'),
            (['search', folder, query, '--config', config], 'together'),
            (['search', folder, query, '--encoder', 'efficientnet-lite'], "'efficientnet-lite0'")):
        status, _, err = run(*arguments)
        assert status == 2 and message in err and err.count('Error: ') == 1, err


@pytest.mark.parametrize('line', ['{archive}', *(
    pytest.param(line, marks=pytest.mark.slow) for line in (
        '{bundle}', '{config} {archive}', '{folder} --encoder {bundle} --no-cache'))])
def test_a_bundle_is_served(line, archive, bundle, folder, config):
    from retrieval.commands.serve import open_service, parser

    arguments = line.format(archive=archive, bundle=bundle, folder=folder, config=config).split()
    service, follower, _ = open_service(parser().parse_args(arguments))
    try:
        if follower is not None:
            follower.refresh()
        assert service.info()['images'] == (40 if '{folder}' in line else 20)
        assert service.search(k=1)['results'][0]['id'].endswith('.png')
        assert (service.served.calibration is None) == ('{config}' in line)
    finally:
        service.close()


@pytest.mark.parametrize('command', [
    pytest.param(command, marks=pytest.mark.slow if 'folder}' in line or '{config}' in line else ())
    for command, line in COMMANDS.items()])
def test_a_command_takes_a_bundle(command, bundle, archive, config, gallery, folder, tmp_path):
    """An archive, where a bundle may be one: the folder of a bundle goes the shorter way."""
    arguments = COMMANDS[command].format(
        bundle=archive, config=config, gallery=gallery, folder=folder,
        query=folder / 'class1' / '0.png', out=tmp_path / 'out')
    status, printed, err = run(command.split()[0], *arguments.split())
    assert status == 0, err
    if '--out' in arguments or '{out}' in COMMANDS[command]:
        assert list(tmp_path.glob('out*')), printed
