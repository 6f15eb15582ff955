"""The model card of a bundle: what the hub shows, and reads at its beginning."""
from __future__ import annotations

from pathlib import Path
from typing import Any

_PARTS = {
    'config.json': 'the config and the pipeline as data, the fingerprint, the metrics',
    'model.safetensors': "the encoder's weights, with its whitening",
    'gallery.safetensors': 'embeddings, ids, labels and metadata of a gallery',
    'index.safetensors': 'an index over the gallery',
    'calibration.json': 'the threshold of a match, and probabilities',
}


def model_card(name: str, folder: Path, manifest: dict[str, Any], encoder: Any) -> str:
    """The text of a model card, with the hub's metadata in YAML before it.

    Args:
        name: of the model.
        folder: of the bundle.
        manifest: the content of its ``config.json``.
        encoder: the module, whose parameters are counted.

    Example:
        >>> from torch import nn
        >>> made = dict(retrieval=dict(pipeline=[]), metrics={'Recall@1': 91.5}, measured_on='x',
        ...             fingerprint={}, embedding_size=2, similarity='cosine_similarity')
        >>> text = model_card('mine', Path(), made, nn.Linear(2, 2))
        >>> '| Recall@1 | 91.50 |' in text
        True
    """
    import yaml

    measured = manifest['measured_on'] or 'what its author measured it on'
    metadata: dict[str, Any] = dict(
        library_name='retrieval', pipeline_tag='image-feature-extraction',
        tags=['image-retrieval', 'image-similarity', 'embeddings'])
    if manifest['metrics']:
        metadata['model-index'] = [dict(name=name, results=[dict(
            task=dict(type='image-retrieval', name='Image retrieval'),
            dataset=dict(type='custom', name=measured),
            metrics=[dict(type=_slug(metric), name=metric, value=round(value, 4))
                     for metric, value in manifest['metrics'].items()])])]
    head = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    return f'---\n{head}---\n\n' + '\n\n'.join(filter(None, [
        f'# {name}', 'An image encoder for retrieval: pictures that show the same thing get '
        'embeddings that are near each other.', _facts(manifest, encoder), _metrics(
            manifest['metrics'], measured), _use(name, folder), _files(folder)])) + '\n'


def _slug(metric: str) -> str:
    """A metric's name as the hub writes types: ``Recall@1`` is ``recall_at_1``."""
    return metric.lower().replace('@', '_at_').replace('/', '_').replace('-', '_')


def _facts(manifest: dict[str, Any], encoder: Any) -> str:
    count = sum(weight.numel() for weight in encoder.parameters())
    steps = ' → '.join(str(step.get('type')).rpartition('.')[2]
                       for step in manifest['retrieval'].get('pipeline') or ())
    rows = {'Embedding': f'{manifest["embedding_size"]} numbers, float32',
            'Similarity': manifest['similarity'], 'Parameters': f'{count:,}',
            'Pictures go through': steps,
            'Weights': f'SHA-256 `{(manifest["fingerprint"].get("weights") or "")[:16]}…`'}
    return '| | |\n|---|---|\n' + '\n'.join(f'| {name} | {value} |'
                                             for name, value in rows.items())


def _metrics(metrics: dict[str, float], measured: str) -> str:
    if not metrics:
        return ''
    lines = '\n'.join(f'| {name} | {value:.2f} |' for name, value in metrics.items())
    return f'## Measured\n\nOn {measured}.\n\n| metric | result |\n|---|---|\n{lines}'


def _use(name: str, folder: Path) -> str:
    own = (folder / 'gallery.safetensors').is_file()
    searched = '' if own else ", 'pictures/'"
    asked = f'search {name} query.jpg' if own else f'search pictures/ query.jpg --encoder {name}'
    return ('## Use\n\n```python\nimport retrieval\n\n'
            f"find = retrieval.load('{name}'{searched})  # this folder, or OWNER/NAME on the hub\n"
            "find('query.jpg')[0]['results']\n```\n\n"
            f'```bash\nretrieval {asked}\n```\n\n'
            'Nothing in these files is run when they are loaded.')


def _files(folder: Path) -> str:
    return '## Files\n\n| file | what it holds |\n|---|---|\n' + '\n'.join(
        f'| `{name}` | {text} |' for name, text in _PARTS.items() if (folder / name).is_file())
