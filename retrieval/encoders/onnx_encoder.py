"""An encoder that ONNX Runtime runs, beside those that torch runs."""
from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor, nn

from ..exported_encoder import OnnxModel
from ..registry import MODELS


@MODELS.register_module()
class OnnxEncoder(nn.Module):
    """A model in an ONNX file as an encoder: ``(B, C, H, W) -> (B, D)`` float32, on the CPU.

    It encodes, and does not train. A model that takes uint8, as ``retrieval export`` writes one,
    holds the normalisation: the data preprocessor then has none. For one that takes floats, the
    data preprocessor is that of the model.

    Args:
        file: the ``.onnx`` file.
        threads: that one batch is spread over; by default ``OMP_NUM_THREADS``, else all cores.

    Attributes:
        embedding_size: D, or None where the file does not say it.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is no model of that kind.

    Example:
        >>> OnnxEncoder('absent.onnx')
        Traceback (most recent call last):
        FileNotFoundError: There is no ONNX model 'absent.onnx': check the path.
    """

    sha256: Tensor

    def __init__(self, file: str | os.PathLike[str], threads: int | None = None) -> None:
        super().__init__()
        self._model = OnnxModel(file, threads)
        self.embedding_size = self._model.embedding_size
        # The only state: what a gallery's fingerprint is to know the encoder by.
        digest = bytearray.fromhex(self._model.sha256)
        self.register_buffer('sha256', torch.frombuffer(digest, dtype=torch.uint8).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` float32 of images ``(B, C, H, W)``, on the images' device.

        Raises:
            ValueError: a model that takes uint8 is given other values than whole numbers from 0 to
                255, or images of another size than its own.
        """
        pixels = images.detach().cpu()
        if self._model.dtype == np.uint8 and pixels.dtype != torch.uint8:
            whole = pixels.to(torch.uint8)
            if not torch.equal(whole.to(pixels.dtype), pixels):
                raise ValueError('The ONNX model holds its normalisation and takes pixels from 0 '
                                 f'to 255, got values from {pixels.min():.3g} to '
                                 f'{pixels.max():.3g}: leave mean and std out of the data '
                                 'preprocessor.')
            pixels = whole
        return torch.from_numpy(self._model(pixels.numpy())).to(images.device)
