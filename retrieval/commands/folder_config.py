"""The config of a folder of class sub-folders: the default encoder and a projection on top."""
from __future__ import annotations

import os
from typing import Any


def folder_config(folder: str | os.PathLike, projection: int = 128) -> Any:
    """Half of the classes for training, the other half searched among themselves.

    The features are those of the default pretrained encoder. What is trained is a projection, by
    the multi-similarity loss with its miner (Wang et al., CVPR 2019; the settings of the paper).

    Raises:
        FileNotFoundError, ValueError: it is no folder, or holds no classes of images.
    """
    from mmengine.config import Config

    from retrieval.datasets import ImageFolder
    from retrieval.encoders import DEFAULT_ENCODER, DEFAULT_PIPELINE, DEFAULT_PREPROCESSOR

    root = os.path.abspath(folder)
    data = dict(type='ImageFolder', data_root=root, pipeline=DEFAULT_PIPELINE)
    classes, images = _classes_for_a_batch(ImageFolder(root, split='train').labels)
    searched = dict(batch_size=64, num_workers=2, dataset=dict(data, split='test'),
                    sampler=dict(type='DefaultSampler', shuffle=False))
    evaluator = dict(type='EmbeddingMetrics', metrics=['Recall@1', 'MAP@R', 'mAP'])
    return Config(dict(
        default_scope='retrieval',
        model=dict(
            type='ImageToImageRetriever', prototype=searched, topk=100,
            image_encoder=dict(DEFAULT_ENCODER, projection=projection),
            data_preprocessor=DEFAULT_PREPROCESSOR,
            head=dict(type='MetricHead', miner=dict(type='PML.MultiSimilarityMiner', epsilon=0.1),
                      loss=dict(type='PML.MultiSimilarityLoss', alpha=2, beta=50, base=0.5))),
        train_dataloader=dict(
            batch_size=classes * images, num_workers=2, dataset=dict(data, split='train'),
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_sampler=dict(type='MPerClassBatchSampler', m=images)),
        val_dataloader=searched, test_dataloader=searched,
        val_evaluator=evaluator, test_evaluator=evaluator, val_cfg={}, test_cfg={},
        randomness=dict(seed=0)))


def _classes_for_a_batch(labels: Any) -> tuple[int, int]:
    """How many classes a batch holds, and how many images of each: at most 32 and 4."""
    import numpy as np

    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(f'{len(counts)} training classes of at most {counts.max()} images: metric '
                         'learning needs at least two classes for training (half of those in the '
                         'folder), and two images of one.')
    return min(len(counts), 32), int(min(max(np.median(counts), 2), 4))
