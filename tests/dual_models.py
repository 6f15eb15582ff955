"""Folders of tiny models of images and words: the real classes of transformers, random weights."""
import string

import torch

LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation]
TOWER = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


def tokenizer_of(kind):
    """Of letters alone, so that none need be trained."""
    import transformers

    if kind == 'clip':
        special = ['<|startoftext|>', '<|endoftext|>']
        letters = [*LETTERS, *(letter + '</w>' for letter in LETTERS)]
        return transformers.CLIPTokenizer(
            vocab={token: at for at, token in enumerate([*special, *letters])}, merges=[],
            model_max_length=20)
    special = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>']
    return transformers.Siglip2Tokenizer(
        vocab={token: at for at, token in enumerate([*special, '▁', *LETTERS])}, merges=[],
        padding_side='right', model_max_length=20)


def make_dual(folder, kind, image_size=32, seed=0):
    """A folder as ``save_pretrained`` writes it; returns the model."""
    import transformers

    torch.manual_seed(seed)
    text = dict(TOWER, vocab_size=200, max_position_embeddings=20)
    if kind == 'clip':
        text.update(bos_token_id=0, eos_token_id=1, pad_token_id=1, projection_dim=12)
    else:
        text.update(projection_size=16)
    vision = dict(TOWER, patch_size=8)
    if kind == 'siglip2':
        vision['num_patches'] = (image_size // 8) ** 2
    else:
        vision['image_size'] = image_size
    if kind == 'clip':
        vision['projection_dim'] = 12
    settings = dict(projection_dim=12) if kind == 'clip' else {}
    config = transformers.CONFIG_MAPPING[kind](text_config=text, vision_config=vision, **settings)
    model = transformers.AutoModel.from_config(config).eval()
    with torch.no_grad():  # random networks give all pictures nearly one embedding
        for parameter in model.parameters():
            parameter.mul_(3) if parameter.ndim > 1 else parameter.add_(
                0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer_of(kind).save_pretrained(folder)
    return model
