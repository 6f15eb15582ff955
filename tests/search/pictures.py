"""Folders of small pictures, and a quick retriever with a pipeline for them."""
from collections import deque

import numpy as np
import torch
from PIL import Image
from torch import nn

from retrieval.retrievers import ImageToImageRetriever

PIPELINE = [dict(type='LoadImage'), dict(type='Resize', scale=(6, 6)), dict(type='PackInputs')]


class Pixels(nn.Module):
    """A fixed linear map of the pixels that counts the images it has seen."""

    def __init__(self, width=16, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer('map', torch.randn(108, width, generator=generator))
        self.seen = deque()  # no list, which would count as a setting

    def forward(self, images):
        self.seen.append(len(images))
        return (images.flatten(1) - 120) @ self.map


def retriever(prototype=None, seed=0, **options):
    prototype = torch.eye(16) if prototype is None else prototype
    return ImageToImageRetriever(Pixels(seed=seed), prototype, topk=5, **options).eval()


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)


def write(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(seed)).save(path)
    return str(path)


def save(path, picture, taken=None, **options):
    """Write a picture with the date of its shot, as EXIF data."""
    exif = Image.Exif()
    if taken:
        exif.get_ifd(0x8769)[0x9003] = taken
    Image.fromarray(np.ascontiguousarray(picture)).save(path, exif=exif, **options)
    return str(path)
