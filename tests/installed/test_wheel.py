"""The wheel and the source distribution hold what an installation needs, and nothing else."""
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import retrieval

ROOT = Path(__file__).parents[2]
LISTED = ('retrieval/*', 'configs/*', 'requirements/*', 'setup.py', 'setup.cfg', 'MANIFEST.in',
          'README.md', 'CHANGELOG.md', 'LICENSE')


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """A wheel and a source distribution of the clone's files, by the build backend itself."""
    folder = tmp_path_factory.mktemp('built')
    source = folder / 'source'
    for pattern in LISTED:
        for path in ROOT.glob(pattern.removesuffix('/*') if pattern.endswith('/*') else pattern):
            files = path.rglob('*') if path.is_dir() else [path]
            for file in files:
                if file.is_file() and '__pycache__' not in file.parts:
                    target = source / file.relative_to(ROOT)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(file.read_bytes())
    code = ('from setuptools import build_meta as b; '
            f'b.build_sdist({str(folder)!r}); b.build_wheel({str(folder)!r})')
    done = subprocess.run([sys.executable, '-c', code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_wheel_holds_package_and_configs(built):
    wheel, = built.glob('*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f'retrieval/{file.relative_to(ROOT)}' for file in (ROOT / 'configs').rglob('*.py')} == {
        name for name in names if name.startswith('retrieval/configs/')}
    package = {str(file.relative_to(ROOT)) for file in (ROOT / 'retrieval').rglob('*')
               if file.is_file() and '__pycache__' not in file.parts}
    assert package <= names
    rest = {name.split('/')[0] for name in names - package}
    assert rest == {'retrieval', f'retrieval-{retrieval.__version__}.dist-info'}


@pytest.mark.slow
def test_the_source_distribution_builds_the_same_wheel(built):
    wheel, = built.glob('*.whl')
    archive, = built.glob('*.tar.gz')
    again = built / 'again'
    with tarfile.open(archive) as file:
        file.extractall(again, filter='data')
    source, = again.iterdir()
    assert not (source / 'tests').exists()
    subprocess.run([sys.executable, '-c', 'from setuptools import build_meta as b; '
                    f'b.build_wheel({str(again)!r})'], cwd=source, check=True, capture_output=True)
    second, = again.glob('*.whl')
    contents = [{name: archive.read(name) for name in archive.namelist()}
                for archive in map(zipfile.ZipFile, (wheel, second))]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_what_is_installed_from_the_wheel_finds_its_configs(built, tmp_path):
    wheel, = built.glob('*.whl')
    zipfile.ZipFile(wheel).extractall(tmp_path / 'installed')
    environment = os.environ | {'PYTHONPATH': str(tmp_path / 'installed')}

    def command(*arguments):
        return subprocess.run([sys.executable, '-m', 'retrieval', *arguments], cwd=tmp_path,
                              env=environment, capture_output=True, text=True)
    listed = command('configs', 'arcface', 'inshop').stdout.split()
    assert 'arcface/resnet50-arcface_100e_inshop' in listed
    assert "type='ArcFaceLoss'" in command('print_config', listed[0]).stdout.replace('PML.', '')
    missed = command('train', 'arcface/resnet50-arcface_50e_inshop')
    assert missed.returncode == 2
    assert "Did you mean 'arcface/resnet50-arcface_100e_inshop'" in missed.stderr


def test_a_release_is_the_version_that_the_changelog_has_on_top():
    workflow = (ROOT / '.github' / 'workflows' / 'release.yml').read_text()
    jobs = yaml.safe_load(workflow)['jobs']
    assert jobs['publish']['permissions'] == {'id-token': 'write'}
    assert jobs['publish']['needs'] == 'build'
    first = re.search(r'^## (\S+) \(.+\)$', (ROOT / 'CHANGELOG.md').read_text(), re.M)
    assert first[1] == retrieval.__version__
    found = subprocess.run(['sed', '-n', r"s/^__version__ = '\(.*\)'/\1/p",
                            'retrieval/__init__.py'], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == retrieval.__version__
    assert r"s/^__version__ = '\(.*\)'/\1/p" in workflow
