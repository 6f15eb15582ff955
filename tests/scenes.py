"""Pictures with something to see everywhere, no two of which are alike: clouds of several sizes."""
import numpy as np
from PIL import Image


def scene(seed, width=360, height=270):
    """``(height, width, 3)`` uint8."""
    generator = np.random.default_rng(seed)
    layers = np.zeros((height, width, 3))
    for cell, weight in ((90, 1.0), (30, 0.8), (10, 0.5)):
        noise = generator.integers(0, 256, (height // cell + 2, width // cell + 2, 3), np.uint8)
        layers += weight * np.asarray(Image.fromarray(noise).resize(
            (width, height), Image.Resampling.BICUBIC), dtype=float)
    return (layers / 2.3).clip(0, 255).astype(np.uint8)


def resized(picture, width, height):
    """The picture at another size."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def pasted(part, background, left, top):
    """A part in another picture."""
    whole = background.copy()
    whole[top:top + part.shape[0], left:left + part.shape[1]] = part
    return whole
