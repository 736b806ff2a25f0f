"""Facts about the evaluated model and its training, for the first lines of the page."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from nmt.data.corpora import describe_directions
from nmt.inference.translator import Translator


def model_facts(
    contents: Sequence[Mapping[str, Any]], configs: Sequence[Any], translator: Translator, history: Sequence[Any]
) -> list[str]:
    """Return a few words on each: languages, architectures, attention, size, training, device and date.

    Args:
        contents: checkpoints, several for an ensemble; what those of older versions do not hold is left out.
        configs: of their runs.
        translator: the models on their device.
        history: rows of metrics.jsonl, which go on after the best checkpoint.
    """
    facts = [describe_directions(configs[0].data)]
    facts += [f"ensemble of {len(configs)}"] * (len(configs) > 1)
    facts += dict.fromkeys(f"{config.model.architecture}, {_attention(config.model.attention)}" for config in configs)
    facts.append(f"{sum(parameter.numel() for parameter in translator.model.parameters()):,} parameters")
    total = max((row.get("update", 0) for row in history), default=0)
    positions = [content.get("position", {}) for content in contents]
    facts += dict.fromkeys(_training(position, total) for position in positions if {"update", "seconds"} <= {*position})
    facts += dict.fromkeys(f"trained in {content['precision']}" for content in contents if content.get("precision"))
    device = translator.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    facts += [f"decoded by {translator.engine_used}"] * bool(translator.engine_used)
    return [*facts, f"evaluated on {name}, {datetime.date.today().isoformat()}"]


def _attention(config: Any) -> str:
    layers = [config.for_layer(number) for number in range(len(config.per_layer))] or [config]
    scores = list(dict.fromkeys(score for layer in layers for score in layer.scores if score != "none"))
    heads = max(layer.heads for layer in layers)
    return f"{' and '.join(scores)} attention" + f" with {heads} heads" * (heads > 1) if scores else "no attention"


def _training(position: Mapping[str, Any], total: int) -> str:
    update, seconds = position["update"], position["seconds"]
    time = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} s"
    return f"update {update:,} of {total:,}, {time}" if total > update else f"{update:,} updates, {time}"
