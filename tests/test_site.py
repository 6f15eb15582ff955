"""The site builds without a warning and holds every page; what pages count and name is there."""
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.registry import Registry

import retrieval.registry
from retrieval.config.shipped import config_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CHANGELOG.md', *(ROOT / 'docs').rglob('*.md')]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', tmp_path], cwd=ROOT,
        env=os.environ | {'NO_MKDOCS_2_WARNING': '1'}, capture_output=True, text=True)
    assert done.returncode == 0 and 'WARNING' not in done.stderr, done.stderr
    for page in (ROOT / 'docs').rglob('*.md'):
        name = page.relative_to(ROOT / 'docs').with_suffix('')
        built = tmp_path / (name.parent if name.name == 'index' else name)
        assert (built / 'index.html').is_file(), name
    front = (tmp_path / 'index.html').read_text()
    nav = set(re.findall(r'href="([\w./]+)/" class="md-nav__link"', front))
    pages = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob('index.html')}
    assert pages - nav == {'.'}  # each is in the menu
    recipe = (tmp_path / 'recipes' / 'index.html').read_text()
    target, place = re.search(r'href="\.\./(configs/proxy_anchor/)#([\w-]+)"', recipe).groups()
    assert f'id="{place}"' in (tmp_path / target / 'index.html').read_text()
    reference = (tmp_path / 'reference' / 'rerank' / 'index.html').read_text()
    assert 'id="retrieval.rerank.AlphaQueryExpansion"' in reference
    assert 'language-python' in reference or 'class="highlight"' in reference


def test_methods_and_configs_are_counted_alike():
    names = config_names()
    methods = {name.partition('/')[0] for name in names}
    for page in PAGES:
        for number, what in re.findall(r'(\d+) (configs|recipes|methods)\b', page.read_text()):
            wanted = len(methods) if what == 'methods' else len(names)
            assert int(number) == wanted, f'{page.name}: {number} {what}'
    assert f'{len(names)} configs of {len(methods)} methods' in PAGES[0].read_text()


def exported():
    """The names that the package's parts export, and the types of its registries."""
    names = {'CMC@K'}
    for file in (ROOT / 'retrieval').glob('*/__init__.py'):
        names |= set(getattr(import_module(f'retrieval.{file.parent.name}'), '__all__', ()))
    for registry in vars(retrieval.registry).values():
        if isinstance(registry, Registry):
            names |= set(registry.module_dict)
    return names | set(retrieval.__all__)


def test_what_others_are_moved_to_is_there():
    from pytorch_metric_learning import losses, miners

    from retrieval.evaluation.metrics import parse_metric
    known = exported() | {'NMI', 'AMI', 'pred_score', 'pred_label'}
    text = (ROOT / 'docs' / 'moving.md').read_text()
    rows = re.findall(r'^\| (?!---)[^|]+\| ([^|]+) \|$', text, re.M)
    assert len(rows) > 50
    for row in rows:
        for name in re.findall(r'`((?:PML\.)?[A-Z]\w+)(?=[`(.=])', row):
            if name.startswith('PML.'):
                short = name.removeprefix('PML.')
                assert hasattr(losses, short) or hasattr(miners, short) or short == 'X', name
            elif name not in known:
                assert parse_metric(name), name
        for name in re.findall(r'`([a-z]+_[a-z_0-9]+)`', row):
            assert name in known | {'retrieval'}, name


def test_the_measured_table_is_that_of_the_benchmarks():
    """Each number of the README's table against peers stands in docs/benchmarks.md."""
    readme, measured = (
        (ROOT / name).read_text() for name in ('README.md', 'docs/benchmarks.md'))
    table = readme.partition('| work | peer |')[2].partition('\n\n')[0]
    results = [cell for row in table.splitlines()[2:] for cell in row.split('|')[3:5]]
    numbers = [number for cell in results
               for number in re.findall(r'\d[\d,]*\.?\d*', cell.replace('1 / ', ''))]
    assert len(numbers) > 8
    for number in numbers:
        assert re.search(rf'(?<![\d.]){re.escape(number)}(?![\d])', measured), number
