"""Encoders of images and words into one space, by transformers: CLIP, SigLIP, SigLIP 2."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...registry import MODELS, unknown_name
from ..weights import Checkpoint
from .hub import hub
from .huggingface import checked, fetched, load_file

#: The models of transformers that are taken, by their ``model_type``.
MODEL_TYPES = ('clip', 'siglip', 'siglip2')
_TOWERS = ('text_config', 'vision_config')
# What an architecture may say: it may come with a bundle, and other settings of transformers'
# configurations name code.
_WHOLE = {'projection_dim', 'logit_scale_init_value'}
_OF_A_TOWER = {
    'attention_dropout', 'bos_token_id', 'eos_token_id', 'hidden_act', 'hidden_size', 'image_size',
    'initializer_factor', 'initializer_range', 'intermediate_size', 'layer_norm_eps',
    'max_position_embeddings', 'num_attention_heads', 'num_channels', 'num_hidden_layers',
    'num_patches', 'pad_token_id', 'patch_size', 'projection_dim', 'projection_size',
    'vision_use_head', 'vocab_size'}
_BUFFER = 'tokenizer'


@MODELS.register_module()
class DualEncoder(BaseModule):
    """A model of transformers that encodes images and words: ``(B, 3, H, W) -> (B, D)``.

    As a backbone it gives the embeddings of images, for an encoder with ``pooling=None``;
    :meth:`embed_words` gives those of texts. The tokenizer is part of its state, as the bytes of
    its JSON, so that checkpoints and bundles hold all that words need. In training the text tower
    stays as it is.

    Args:
        architecture: the configuration as a dict: ``model_type``, ``text_config``,
            ``vision_config`` and ``projection_dim``; what is not said is transformers' default.
            None for that of ``weights``.
        weights: a name on the hub (``openai/clip-vit-base-patch32``), or a folder that
            ``save_pretrained`` wrote with the tokenizer in it; None draws the weights, which a
            checkpoint is then loaded into.
        checkpoint: in the place of ``weights``, such a folder, or a file of the weights with a
            ``tokenizer.json`` beside it.
        lowercase: whether texts are put in small letters where the tokenizer does not do it by
            itself, as SigLIP 2 was trained.
        init_cfg: MMEngine's initialisation.

    Attributes:
        architecture: as above, whole.
        num_features: D.

    Raises:
        ImportError: transformers is not installed.
        ValueError: the architecture is unknown or has other settings, the weights do not fit it, or
            the tokenizer is none of the tokenizers library's.
        FileNotFoundError: there is no such file or folder, or no ``tokenizer.json``.
        ConnectionError: the hub is not reached, and its cache has not got them.
    """

    has_words = True
    model: Any
    tokenizer: Tensor  # the bytes of its file

    def __init__(self, architecture: Mapping[str, Any] | None = None, weights: str | None = None,
                 checkpoint: Any = None, lowercase: bool = False,
                 init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        _check_installed()
        if architecture is None and weights is None:
            raise ValueError('A DualEncoder wants its architecture, as dict(model_type='
                             "'clip'), or the weights that have one, such as "
                             "'openai/clip-vit-base-patch32'.")
        source = weights if checkpoint is None else checkpoint
        if architecture is None:
            architecture = read_architecture(str(weights))
        self.architecture = checked_architecture(architecture)
        config = _configuration(self.architecture)
        self.model_name = str(weights or self.architecture['model_type'])
        model: Any = _built(config, source)
        model.is_init = True  # MMEngine is not to draw them again
        self.model = model
        self.image_size = _image_size(config)
        self.num_features: int = _width(config)
        tokens = b'' if source is None else read_tokenizer(source, config, lowercase)
        self.register_buffer(_BUFFER, _as_bytes(tokens))
        self._read: tuple[Any, bool] | None = None  # the tokenizer, once it was wanted
        for name, parameter in self.model.named_parameters():
            if not _is_of_images(name):
                parameter.requires_grad_(False)

    # The state -----------------------------------------------------------------------------------

    def word_state(self) -> list[str]:
        """The names of its state that the embeddings of images do not depend on."""
        return [_BUFFER, *(f'model.{name}' for name in self.model.state_dict()
                           if not _is_of_images(name))]

    def make_room(self, given: Mapping[str, Tensor], prefix: str) -> None:
        """Take the length of the tokenizer from the state that is to be loaded."""
        self._read = None
        tokens = given.get(prefix + _BUFFER)
        if tokens is not None and tokens.dtype == torch.uint8:
            self.tokenizer = torch.zeros(len(tokens), dtype=torch.uint8,
                                         device=self.tokenizer.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        self.make_room(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # Encoding ------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings ``(B, D)`` of images ``(B, 3, H, W)``, of any length.

        Raises:
            ValueError: the model wants images of another size.
        """
        if self.architecture['model_type'] == 'siglip2':
            return _pooled(self.model.get_image_features(**self._patches(images)))
        if self.image_size is not None and tuple(images.shape[-2:]) != self.image_size:
            raise ValueError(f'{self.model_name} takes images of {self.image_size}, got '
                             f'{tuple(images.shape[-2:])}: resize them.')
        return _pooled(self.model.get_image_features(pixel_values=images))

    def _patches(self, images: Tensor) -> dict[str, Tensor]:
        """Images as SigLIP 2 of any size takes them: rows of patches."""
        size = self.model.config.vision_config.patch_size
        height, width = images.shape[-2] // size, images.shape[-1] // size
        if images.shape[-2:] != (height * size, width * size):
            raise ValueError(f'{self.model_name} takes images of whole patches of {size} pixels, '
                             f'got {tuple(images.shape[-2:])}: resize them.')
        cut = images.unflatten(-1, (width, size)).unflatten(-3, (height, size))
        patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        shape = torch.tensor([[height, width]], device=images.device).expand(len(images), 2)
        return dict(pixel_values=patches, spatial_shapes=shape,
                    pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.int32,
                                                    device=images.device))

    def embed_words(self, texts: Sequence[str]) -> Tensor:
        """Embeddings ``(B, D)`` of texts, of any length; what the model's context has no room for
        is left out.

        Raises:
            ValueError: its state has no tokenizer.
        """
        tokenizer, masked = self._tokenizer()
        encoded = tokenizer.encode_batch(list(texts))
        device = self.tokenizer.device
        given = dict(input_ids=torch.tensor([one.ids for one in encoded], device=device))
        if masked:
            given['attention_mask'] = torch.tensor([one.attention_mask for one in encoded],
                                                   device=device)
        return _pooled(self.model.get_text_features(**given))

    def _tokenizer(self) -> tuple[Any, bool]:
        """The tokenizer, and whether the model is told which tokens only fill up."""
        from tokenizers import Tokenizer

        if self._read is None:
            if not len(self.tokenizer):
                raise ValueError(f'{self.model_name} has no tokenizer yet, so it cannot take '
                                 'words: give its weights, or a checkpoint of this encoder.')
            held = json.loads(bytes(self.tokenizer.cpu().numpy()))
            self._read = Tokenizer.from_str(held['tokenizer']), bool(held['mask'])
        return self._read


def _check_installed() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ImportError("Encoders of images and words need transformers: pip install "
                          "'retrieval[huggingface]'.") from error


def _is_of_images(name: str) -> bool:
    """True for the weights of the vision tower and its projection, by transformers' names."""
    return name.startswith(('vision_', 'visual_'))


def _pooled(output: Any) -> Tensor:
    """The features, which later releases of transformers give among others."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _width(config: Any) -> int:
    if config.model_type == 'clip':
        return int(config.projection_dim)
    return int(config.vision_config.hidden_size)


def _image_size(config: Any) -> tuple[int, int] | None:
    size = getattr(config.vision_config, 'image_size', None)
    return None if size is None else (int(size), int(size))


# The architecture --------------------------------------------------------------------------------

def checked_architecture(given: Mapping[str, Any]) -> dict[str, Any]:
    """An architecture of which nothing but sizes is said.

    Raises:
        ValueError: another type of model, or another setting.
        TypeError: a setting is neither number nor name.

    Example:
        >>> checked_architecture(dict(model_type='clip', vision_config=dict(patch_size=16)))
        {'model_type': 'clip', 'vision_config': {'patch_size': 16}}
    """
    kind = given.get('model_type')
    if kind not in MODEL_TYPES:
        raise ValueError(unknown_name('model of images and words', str(kind), MODEL_TYPES))
    for part, allowed in ((given, _WHOLE), *((given.get(name) or {}, _OF_A_TOWER)
                                             for name in _TOWERS)):
        for name, value in part.items():
            if part is given and name in ('model_type', *_TOWERS):
                continue
            if name not in allowed:
                raise ValueError(unknown_name('setting of an architecture', name, allowed))
            if value is not None and not isinstance(value, (int, float, str)):
                raise TypeError(f'{name} of an architecture must be a number or a name, got '
                                f'{value!r}.')
    return {name: dict(value) if isinstance(value, Mapping) else value
            for name, value in given.items()}


def _configuration(architecture: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    settings = {name: value for name, value in architecture.items() if name != 'model_type'}
    kind = architecture['model_type']
    return checked(lambda: CONFIG_MAPPING[kind](**settings), kind)


def read_architecture(source: str) -> dict[str, Any]:
    """The architecture of a folder, or of a name on the hub.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: there is none, or of another kind.
    """
    from transformers import AutoConfig

    config = _from(source, lambda: AutoConfig.from_pretrained(source))
    if config.model_type not in MODEL_TYPES:
        raise ValueError(unknown_name('model of images and words', config.model_type, MODEL_TYPES))
    whole = config.to_dict()

    def plain(part: Mapping[str, Any], allowed: set[str]) -> dict[str, Any]:
        return {name: part[name] for name in sorted(allowed & set(part))
                if part[name] is None or isinstance(part[name], (int, float, str))}
    return dict(plain(whole, _WHOLE), model_type=config.model_type,
                **{name: plain(whole[name], _OF_A_TOWER) for name in _TOWERS})


# Weights and tokenizer ---------------------------------------------------------------------------

def _from(source: str, read: Any) -> Any:
    """What is read from a folder, or from the hub by a name."""
    if Path(source).is_dir():
        return checked(read, source)
    if source.count('/') != 1 or source.startswith(('.', '/', '~')):
        raise FileNotFoundError(f'There is no folder {source!r}.')
    with hub():
        return fetched(read, source, 'Without a network, give a local folder that save_pretrained '
                       'wrote, with its tokenizer.json: checkpoint="path" (beside --encoder: '
                       '--checkpoint FOLDER)')


def _built(config: Any, source: Any) -> nn.Module:
    from transformers import AutoModel
    from transformers.utils import logging

    if source is None or not isinstance(source, str) or Path(source).is_file():
        model = checked(lambda: AutoModel.from_config(config), config.model_type).float()
        return model if source is None else load_file(model, Checkpoint.of(source), {})
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a second, in the middle of a command's own lines
    try:
        model, report = _from(source, lambda: AutoModel.from_pretrained(
            source, config=config, output_loading_info=True, ignore_mismatched_sizes=True))
    finally:
        if bars:
            logging.enable_progress_bar()
    wrong = sorted({*report['missing_keys'], *(entry[0] for entry in report['mismatched_keys'])})
    if wrong:
        raise ValueError(f'{source!r} is of another architecture than {config.model_type!r} as it '
                         f'was given: {", ".join(wrong[:6])} are missing or of another shape.')
    return model.float()


def read_tokenizer(source: Any, config: Any, lowercase: bool) -> bytes:
    """The tokenizer of a model as JSON, with its padding and the length of its context.

    Args:
        source: a folder, a name on the hub, or a file of weights with ``tokenizer.json`` beside it.
        config: of the model.
        lowercase: whether texts are put in small letters.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of another kind than those of the tokenizers library.
    """
    from tokenizers import Tokenizer, normalizers
    from transformers import AutoTokenizer

    name = str(source if isinstance(source, str) else Checkpoint.of(source).path)
    if Path(name).is_file():
        name = str(Path(name).parent)
    if Path(name).is_dir() and not (Path(name) / 'tokenizer.json').is_file():
        raise FileNotFoundError(f'Words want a tokenizer, and there is no tokenizer.json in '
                                f'{name!r}: put that of the model there.')
    read = _from(name, lambda: AutoTokenizer.from_pretrained(name))
    backend = getattr(read, 'backend_tokenizer', None)
    if not isinstance(backend, Tokenizer):
        raise ValueError(f'The tokenizer of {name!r} is a {type(read).__name__}, which is no data '
                         'of the tokenizers library: save it as tokenizer.json.')
    whole = Tokenizer.from_str(backend.to_str())
    if lowercase and 'Lowercase' not in backend.to_str():
        own = [] if whole.normalizer is None else [whole.normalizer]
        whole.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    context = int(config.text_config.max_position_embeddings)
    whole.enable_truncation(context)
    # SigLIP was trained on texts that fill its context; in CLIP nothing looks at what follows
    whole.enable_padding(pad_id=int(read.pad_token_id or 0), pad_token=str(read.pad_token),
                         direction=read.padding_side,
                         length=None if config.model_type == 'clip' else context)
    mask = 'attention_mask' in read.model_input_names
    return json.dumps(dict(tokenizer=whole.to_str(), mask=mask)).encode()


def _as_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(
        0, dtype=torch.uint8)
