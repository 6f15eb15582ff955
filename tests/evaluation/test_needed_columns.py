"""A column that an evaluation needs is missed before anything is encoded."""
import pytest

from retrieval import datasets  # noqa: F401  (registers them)
from retrieval.evaluation.needed_columns import check_columns

CAMERA = dict(type='EmbeddingMetrics', exclude_same='camera')


def loader(**options):
    return dict(batch_size=2, dataset=dict(type='RepeatDataset', times=2, dataset=dict(
        type='retrieval.CSVDataset', **options)))


@pytest.mark.parametrize('evaluator', [CAMERA, [CAMERA], dict(type='Evaluator', metrics=[CAMERA]),
                                       dict(type='EmbeddingMetrics', protocol='Market1501')])
def test_a_column_that_no_one_keeps(evaluator):
    with pytest.raises(ValueError, match=r"queries, retrieval.CSVDataset.*\['camera'\]"):
        check_columns(evaluator, loader(), loader(metadata_keys=['camera']))
    with pytest.raises(ValueError, match='of the gallery'):
        check_columns(evaluator, loader(metadata_keys='camera'), loader())
    check_columns(evaluator, loader(metadata_keys='camera'), loader(metadata_keys=['camera']))


def test_what_is_not_known_is_passed_over():
    check_columns(CAMERA, loader(pipeline=[dict(type='PackInputs', meta_keys=['camera'])]))
    check_columns(CAMERA, None, 'gallery.safetensors')
    check_columns(None, loader())
    check_columns(dict(type='EmbeddingMetrics', metrics=['mAP']), loader())
