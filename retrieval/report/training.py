"""The course of a training: its loss, its validations and its time, from the log of a work dir."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Training:
    """A training's curves.

    Args:
        losses: ``(iteration, value)`` of the loss, and of each of its terms where there are
            several.
        validations: ``(epoch or iteration, percent)`` by the name of the metric.
        seconds: the time of its iterations together.
        memory: the most memory of a GPU in MB, 0 on a CPU.
        unit: what validations are counted by, ``epoch`` or ``iteration``.
    """

    losses: Mapping[str, Points]
    validations: Mapping[str, Points]
    seconds: float
    memory: float
    unit: str = 'epoch'


def read_training(work_dir: str | os.PathLike[str]) -> Training | None:
    """The training whose log is in a work dir, resumed runs joined; None where there is none.

    A line that is cut off or no JSON is passed over: the log of a killed run ends with one.

    Example:
        >>> read_training('nowhere') is None
        True
    """
    losses: dict[str, dict[float, float]] = {}
    validations: dict[str, dict[float, float]] = {}
    spans: dict[float, float] = {}
    memory, unit = 0.0, 'iteration'
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        entries = _entries(path)
        if not any('loss' in entry for entry in entries):  # a test, whose step says nothing
            continue
        for entry in entries:
            step = float(entry['step'])
            if 'loss' in entry:
                for name, value in entry.items():
                    if name == 'loss' or name.startswith('loss_') or name.endswith('_loss'):
                        losses.setdefault(name, {})[step] = value
                unit = 'epoch' if 'epoch' in entry else unit
                spans[step] = float(entry.get('time', 0))
                memory = max(memory, float(entry.get('memory', 0)))
            else:
                for name, value in entry.items():
                    if '/' in name and 'num_' not in name:
                        validations.setdefault(name, {})[step] = value
    if not losses:
        return None
    steps = sorted(spans)
    # an entry has the mean time of the iterations since the one before it
    seconds = sum(spans[step] * (step - before) for before, step in zip(
        [0., *steps], steps, strict=False))
    if len(losses) == 2:  # the loss and its only term
        losses = {'loss': losses['loss']}
    return Training(_points(losses), _points(validations), seconds, memory, unit)


def _entries(path: Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get('step'), (int, float)):
            found.append({name: value for name, value in entry.items()
                          if isinstance(value, (int, float))})
    return found


def _points(series: Mapping[str, Mapping[float, float]]) -> dict[str, Points]:
    return {name: sorted(values.items()) for name, values in series.items()}
