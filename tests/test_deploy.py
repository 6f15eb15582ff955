"""The files of docs/deploy: every key is one that there is, and what they name fits together."""
import re
from pathlib import Path

import pytest
import yaml

from retrieval.commands.serve import parser

DEPLOY = Path(__file__).parents[1] / 'docs' / 'deploy'
PINNED = re.compile(r'^[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?$')


def documents():
    return [one for one in yaml.safe_load_all((DEPLOY / 'kubernetes.yaml').read_text()) if one]


def compose():
    return yaml.safe_load((DEPLOY / 'docker-compose.yml').read_text())


def check_arguments(words):
    """The command takes these words; the socket is reached from other containers."""
    assert words[0] == 'serve'
    found = parser().parse_args(words[1:])
    assert found.host == '0.0.0.0' and found.state == '/state' and found.allow_host  # noqa: S104
    assert found.gallery == '/model/config.py' and found.weights == '/model/best.pth'
    return found.port


def test_the_manifest_is_valid_for_kubernetes():
    validate = pytest.importorskip('kubernetes_validate')
    for one in documents():
        validate.validate(one, '1.30', strict=True)
    broken = next(one for one in documents() if one['kind'] == 'Deployment')
    broken['spec']['template']['spec']['containers'][0]['prots'] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(broken, '1.30', strict=True)


def test_what_the_manifest_names_is_there():
    named = {(one['kind'], one['metadata']['name']): one for one in documents()}
    labels = [one['spec']['template']['metadata']['labels'] for one in documents()
              if 'template' in one.get('spec', {})]
    for (kind, _), one in named.items():
        if kind == 'Service':
            assert one['spec']['selector'] in labels
        if kind not in ('Deployment', 'StatefulSet'):
            continue
        assert one['spec']['selector']['matchLabels'] in labels
        pod = one['spec']['template']['spec']
        volumes = {volume['name']: volume for volume in pod.get('volumes', [])}
        claimed = {claim['metadata']['name'] for claim in one['spec'].get(
            'volumeClaimTemplates', [])}
        for container in pod['containers']:
            assert PINNED.match(container['image']) or container['image'] == 'retrieval:local'
            ports = {port['name'] for port in container['ports']}
            for probe in ('startupProbe', 'readinessProbe', 'livenessProbe'):
                assert container.get(probe, {}).get('httpGet', dict(port='http'))['port'] in \
                    ports | {'http'}
            for mount in container['volumeMounts']:
                assert mount['name'] in {*volumes, *claimed}
        claims = [volume['persistentVolumeClaim']['claimName'] for volume in volumes.values()
                  if 'persistentVolumeClaim' in volume]
        assert all(('PersistentVolumeClaim', name) in named for name in claims)
    server = named['Deployment', 'retrieval']['spec']['template']['spec']['containers'][0]
    assert check_arguments(server['args']) == server['ports'][0]['containerPort']


def test_the_compose_file_fits_together():
    whole = compose()
    assert set(whole) <= {'services', 'configs', 'volumes'}
    known = {'image', 'build', 'command', 'environment', 'configs', 'volumes', 'healthcheck',
             'deploy', 'depends_on', 'restart', 'ports'}
    for one in whole['services'].values():
        assert set(one) <= known, set(one) - known
        assert PINNED.match(one['image']) or one['image'] == 'retrieval:local'
        for volume in one.get('volumes', []):
            source = volume.split(':')[0]
            assert source.startswith('./') or source in whole['volumes']
        assert {config['source'] for config in one.get('configs', [])} <= set(whole['configs'])
        for name, how in one.get('depends_on', {}).items():
            assert how['condition'] == 'service_healthy'
            assert 'healthcheck' in whole['services'][name]
        for port in one.get('ports', []):
            assert port.startswith('127.0.0.1:')  # the token goes unencrypted
    server = whole['services']['server']
    port = check_arguments(server['command'])
    assert server['deploy']['replicas'] > 1
    assert f'http://server:{port};' in whole['configs']['nginx']['content']
    images = {one['image'] for one in whole['services'].values()}
    assert {container['image'] for one in documents() if 'template' in one.get('spec', {})
            for container in one['spec']['template']['spec']['containers']} <= images
    build = server['build']
    assert (DEPLOY / build['context'] / build['dockerfile']).samefile(DEPLOY / 'Dockerfile')
