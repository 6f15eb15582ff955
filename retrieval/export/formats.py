"""The files that an encoder is exported to, and what runs them."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..exported_encoder import ONNX_FILE, OnnxModel
from ..registry import unknown_name

FORMATS = ('onnx', 'openvino', 'torchscript')
PRECISIONS = ('fp32', 'fp16', 'int8')
Encode = Callable[[np.ndarray], np.ndarray]

_NEEDED = {'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
           'openvino': ('onnx', 'onnxscript', 'onnxruntime', 'openvino'), 'torchscript': ()}
_LARGEST_HALF = 65504
_OPSET = 18
# With the activations, since else the range of a convolution is that before they have cut it.
_QUANTIZED = ['Conv', 'Gemm', 'MatMul', 'Clip', 'Relu']


def check_formats(format: str, precision: str) -> None:
    """Refuse what there is not, or what is not installed.

    Raises:
        ValueError: an unknown format or precision, or one that the format has not.
        ImportError: a package is missing.

    Example:
        >>> check_formats('torchscript', 'fp32')
    """
    for kind, given, names in (('format', format, FORMATS), ('precision', precision, PRECISIONS)):
        if given not in names:
            raise ValueError(unknown_name(kind, given, names))
    if format == 'torchscript' and precision != 'fp32':
        raise ValueError(f'TorchScript is exported in fp32 alone, not in {precision}: take '
                         '--format onnx or openvino for it.')
    for package in _NEEDED[format]:
        try:
            import_module(package)
        except ImportError as error:
            raise ImportError(f'--format {format} wants {package}, which is not installed: '
                              "pip install 'retrieval[export]'") from error


class PixelEncoder(nn.Module):
    """Data preprocessor and encoder of a retriever: ``(B, C, H, W)`` uint8 to ``(B, D)`` float32.

    Args:
        model: a retriever.

    Raises:
        TypeError: its data preprocessor is another one than this package's.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not callable(getattr(model.data_preprocessor, 'encode', None)):
            raise TypeError('An export holds the data preprocessor, and only a '
                            'RetrievalDataPreprocessor can be exported, not a '
                            f'{type(model.data_preprocessor).__name__}.')
        self.preprocessor, self.encoder = model.data_preprocessor, model.image_encoder
        self.cpu().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings."""
        embeddings = self.encoder(self.preprocessor.encode(images))
        return embeddings[-1] if isinstance(embeddings, (tuple, list)) else embeddings


def write_encoder(module: PixelEncoder, images: Tensor, folder: Path, format: str, precision: str,
                  calibration: Callable[[], Iterable[np.ndarray]]) -> Path:
    """Write the files of a format.

    Args:
        module: what is exported.
        images: a batch of two ``(2, C, H, W)`` uint8, which it is traced with.
        folder: where they go.
        format: one of :data:`FORMATS`.
        precision: of :data:`PRECISIONS`. Of ``'fp16'`` the weights have half precision, and are
            computed with in single; ``'int8'`` quantises convolutions and matrix products.
        calibration: called for ``'int8'``: batches that show the range of every activation.

    Returns:
        The file to open.

    Raises:
        ValueError: torch cannot export the encoder, or its weights are too large for fp16.
    """
    if format == 'torchscript':
        path = folder / 'encoder.pt'
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the tracer, about branches that do not change
            torch.jit.save(torch.jit.trace(module, (images,), check_trace=False), path)
        return path
    path = folder / ONNX_FILE
    _write_onnx(module, images, path)
    if precision == 'int8':
        _quantise(path, calibration())
    elif precision == 'fp16' and format == 'onnx':
        _halve_weights(path)
    if format == 'onnx':
        return path
    import openvino

    model = openvino.convert_model(path)
    openvino.save_model(model, folder / 'encoder.xml', compress_to_fp16=precision == 'fp16')
    path.unlink()
    return folder / 'encoder.xml'


def open_encoder(path: Path) -> Encode:
    """What encodes images ``(B, C, H, W)`` uint8 by a file of :func:`write_encoder`."""
    if path.suffix == '.onnx':
        return OnnxModel(path)
    if path.suffix == '.pt':
        module = torch.jit.load(path)
        return lambda images: np.asarray(module(torch.from_numpy(images)))
    import openvino

    # else it computes in bfloat16 where the processor can
    compiled = openvino.Core().compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return lambda images: np.array(compiled(images)[0])


def _write_onnx(module: PixelEncoder, images: Tensor, path: Path) -> None:
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')  # of the exporter, about itself
            program: Any = torch.onnx.export(
                module, (images,), dynamo=True, input_names=['images'], opset_version=_OPSET,
                output_names=['embeddings'], verbose=False,
                dynamic_shapes={'images': {0: torch.export.Dim('batch')}})
            program.save(path, external_data=False)
    except Exception as error:  # whatever the exporter of the day raises
        reason = next((line for line in str(error).splitlines() if line.strip()), '')
        raise ValueError(f'torch cannot export this encoder as ONNX: {reason} Try --format '
                         'torchscript.') from error


def _halve_weights(path: Path) -> None:
    """Store the weights as float16, behind each a cast that a runtime computes once."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.ndim < 2:  # the others are few
            continue
        if np.abs(values).max(initial=0) > _LARGEST_HALF:
            raise ValueError(f'The weights {weight.name!r} are too large for fp16: take fp32.')
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f'{name}.half'))
        casts.append(onnx.helper.make_node('Cast', [f'{name}.half'], [name],
                                           to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _quantise(path: Path, batches: Iterable[np.ndarray]) -> None:
    """Quantise in place: weights by channel, activations to the range that the batches show."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {'images': batch}

    whole = path.with_suffix('.fp32.onnx')
    quant_pre_process(path, whole, skip_symbolic_shape=True)
    quantization.quantize_static(
        whole, path, Batches(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=_QUANTIZED)
    whole.unlink()


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Images of one size as a batch ``(B, C, H, W)`` uint8.

    Raises:
        ValueError: they differ in size.
        TypeError: they are no uint8.

    Example:
        >>> stacked([torch.zeros(3, 4, 4, dtype=torch.uint8)]).shape
        torch.Size([1, 3, 4, 4])
    """
    sizes = sorted({tuple(image.shape) for image in images})
    if len(sizes) != 1:
        raise ValueError(f'The pipeline makes images of several sizes, such as {sizes[0]} and '
                         f'{sizes[-1]}, and an export takes one: let it end in CenterCrop, or in '
                         'Resize with width and height.')
    if images[0].dtype != torch.uint8:
        raise TypeError(f'The pipeline makes images of {images[0].dtype}, and an export takes '
                        'uint8: leave the normalisation to the data preprocessor.')
    return torch.stack(list(images))
