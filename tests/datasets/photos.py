"""Photo-like pictures for tests of decoding: smooth, with edges and a little texture."""
import io

import cv2
import numpy as np
from PIL import Image


def photo(width=101, height=67, seed=0):
    """``(height, width, 3)`` uint8."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.uniform(0, 255, (4, 5, 3)).astype(np.float32), (width, height),
                       interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(image, centre, int(rng.integers(4, max(5, width // 4))),
                   rng.uniform(0, 255, 3).tolist(), -1, cv2.LINE_AA)
    image += rng.normal(0, 4, (height, width, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image, **options):
    """The bytes of a JPEG file; ``options`` are Pillow's."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, 'JPEG', **options)
    return buffer.getvalue()
