"""The front door: what ``retrieval`` itself exports, and what importing it costs."""
import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import retrieval

PUBLIC = [  # changes on purpose only, with a line in CHANGELOG.md
    'ExactIndex', 'FaissIndex', 'Gallery', 'GalleryStore', 'ImageRetrievalInferencer',
    'ImageToImageRetriever', 'InferenceModel', 'MatchCalibration', 'MilvusIndex', 'Neighbors',
    'Recognizer', 'RetrievalDataSample', 'build_retriever', 'calibrate', 'cluster', 'evaluate',
    'find_duplicates', 'load']


def test_the_public_names():
    assert sorted(retrieval.__all__) == sorted([*PUBLIC, '__version__'])


@pytest.mark.parametrize('name', PUBLIC)
def test_a_public_name_is_what_its_package_exports(name):
    thing = getattr(retrieval, name)
    package = '.'.join(thing.__module__.split('.')[:2])
    assert thing.__name__ == name and getattr(sys.modules[package], name) is thing


@pytest.mark.parametrize('name', PUBLIC)
def test_a_public_name_has_an_example(name):
    documentation = inspect.getdoc(getattr(retrieval, name)) or ''
    assert '>>> ' in documentation


def test_type_checkers_see_the_same_names():
    """The imports for type checkers name the packages that ``__getattr__`` loads from."""
    tree = ast.parse(Path(retrieval.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == 'TYPE_CHECKING'
    seen = {alias.asname: node.module.split('.')[0] for node in block.body for alias in node.names}
    assert seen == retrieval._MODULE_OF
    assert (Path(retrieval.__file__).parent / 'py.typed').is_file()


def test_importing_the_package_imports_nothing_heavy():
    code = ('import sys, retrieval; dir(retrieval)\n'
            'heavy = {"torch", "numpy", "mmengine", "faiss"}\n'
            'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
            'assert retrieval.structures.Neighbors is retrieval.Neighbors\n'
            'assert "torch" in sys.modules')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_first_example_of_the_readme_uses_the_front_door():
    readme = (Path(__file__).parents[1] / 'README.md').read_text()
    code = ast.parse(readme.split('```python\n')[1].split('```')[0])
    modules = [node.module for node in ast.walk(code) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(code) if isinstance(node, ast.Import)
                for alias in node.names]
    assert set(modules) == {'numpy', 'retrieval'}


def test_a_wrong_name():
    with pytest.raises(AttributeError, match="'evalute'.*public names are ExactIndex"):
        retrieval.evalute  # noqa: B018
    assert {'evaluate', 'encoders', '__version__'} <= set(dir(retrieval))
    with pytest.raises(ImportError):
        from retrieval import nothing  # noqa: F401
