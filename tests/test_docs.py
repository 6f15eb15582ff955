"""The Python in the pages runs, and the links lead somewhere."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').rglob('*.md')])


BLOCKS = [
    pytest.param(code, id=f'{page.relative_to(ROOT)}-{number}') for page in PAGES
    for number, code in enumerate(re.findall(r'```python\n(.*?)```', page.read_text(), re.S))]


@pytest.mark.parametrize('code', BLOCKS)
def test_a_block_runs(code, tmp_path, monkeypatch):
    if '_base_' in code:  # a config: it must be read, from where its first line says
        from retrieval.config.reading import read_config
        name = re.match(r'# (configs/\S+)', code).group(1)
        path = ROOT / Path(name).parent / f'.test_{Path(name).name}'
        path.write_text(code)
        try:
            assert read_config(path).model.type.endswith('Retriever')
        finally:
            path.unlink()
        return
    monkeypatch.chdir(tmp_path)
    exec(compile(code, 'page', 'exec'), {'__name__': 'page'})


@pytest.mark.slow
@pytest.mark.parametrize('code', [
    block for block in BLOCKS if '_base_' not in block.values[0]])
def test_a_block_runs_in_a_fresh_process(code, tmp_path):
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True,
                          text=True, env=os.environ | {'PYTHONPATH': path})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r'```.*?```', '', page.read_text(), flags=re.S)
    for target in re.findall(r'\]\(([^)#]+)[^)]*\)', text):
        if '://' not in target:
            assert (page.parent / target).exists(), target


def test_commands_in_the_pages_exist():
    for page in PAGES:
        for name in re.findall(r'tools/(\w+)\.py', page.read_text()):
            assert (ROOT / 'tools' / f'{name}.py').is_file(), f'{page.name}: {name}'
        for name in re.findall(r'(?<![\w/])configs/[\w/-]+\.py', page.read_text()):
            assert name == 'configs/mine.py' or (ROOT / name).is_file(), f'{page.name}: {name}'
