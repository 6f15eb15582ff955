import subprocess
import sys

import pytest
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope

from retrieval.registry import MODELS, UnknownTypeError, nearest_names


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownTypeError, match="'ImageToImageRetriver'.*'ImageToImageRetriever'"):
        MODELS.get('ImageToImageRetriver')
    with pytest.raises(ValueError, match='Did you mean'):
        MODELS.build(dict(type='ImageToImageRetriver'))
    with pytest.raises(KeyError):
        MODELS.build(dict(type='NoSuchThing'))


def test_the_engine_answers_a_wrong_name_with_the_nearest_too():
    with DefaultScope.overwrite_default_scope('retrieval'), \
            pytest.raises(ValueError, match='ImageToImageRetriever'):
        MMENGINE_MODELS.build(dict(type='ImageToImageRetriver'))


def test_membership_raises_nothing():
    assert 'ImageToImageRetriever' in MODELS
    assert 'NoSuchThing' not in MODELS


def test_nearest_names_are_case_blind():
    assert nearest_names('arcfaceloss', ['ArcFaceLoss', 'CosFaceLoss'])[0] == 'ArcFaceLoss'


def run(code):
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          timeout=120)


def test_a_config_with_the_scope_needs_no_imports():
    code = ("from mmengine.registry import MODELS, METRICS, DefaultScope\n"
            "DefaultScope.get_instance('x', scope_name='retrieval')\n"
            "m = MODELS.build(dict(type='GeM'))\n"
            "e = METRICS.build(dict(type='EmbeddingMetrics'))\n"
            "print(type(m).__module__.split('.')[0], type(e).__module__.split('.')[0])")
    done = run(code)
    assert done.stdout.split() == ['retrieval', 'retrieval'], done.stderr


def test_importing_the_package_pulls_in_no_runner():
    code = ("import retrieval, sys\n"
            "assert 'torch' not in sys.modules\n"
            "import retrieval.registry\n"
            "print('mmengine.runner' in sys.modules)")
    done = run(code)
    assert done.stdout.strip() == 'False', done.stderr


def test_what_broke_beside_a_cpu_torch_imports():
    done = run('import retrieval.registry\nimport torchvision, timm\nprint(timm.__name__)')
    assert done.stdout.strip() == 'timm', done.stderr


def test_a_part_of_mmpretrain_without_mmpretrain(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'mmpretrain.registry', None)
    with pytest.raises(ValueError, match=r"mmpretrain.ResNett.*retrieval\[mmpretrain\]"):
        MODELS.get('mmpretrain.ResNett')
