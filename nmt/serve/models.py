"""The served models: their names and descriptions."""

import dataclasses
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from nmt import checkpoint
from nmt.cli.configs import Config, ServeConfig
from nmt.cli.loading import load_translator
from nmt.cli.run_directory import run_directory
from nmt.data import DataConfig, read_pairs
from nmt.data.corpora import corpus_tags, default_direction, directions
from nmt.data.sources import validation_splits
from nmt.export.ctranslate2_engine import make_engine
from nmt.inference.glossary import Glossary, load_glossary
from nmt.inference.translator import Translator

log = logging.getLogger(__name__)

NUM_EXAMPLES = 3
MAX_EXAMPLE_CHARS = 80
NUM_READ = 200
"""Sentences that examples are looked for in."""


@dataclass
class ServedModel:
    """One model.

    name: its name in requests.
    translator: the model with its default search options.
    config: the configuration of its run.
    max_source_tokens: source tokens that are translated in one piece.
    shape: layers and heads of its attention to the source, (0, 0) without.
    examples: sentences to try it with.
    glossary: terms that translations shall have.
    """

    name: str
    translator: Translator
    config: Config
    max_source_tokens: int
    shape: tuple[int, int]
    examples: list[str]
    glossary: Glossary | None = None

    @property
    def max_annotated_tokens(self) -> int:
        """Tokens of the longest source with soft terms whose attention can be requested."""
        limit = self.translator.max_source_length
        return 4 * self.max_source_tokens if limit is None else limit

    @property
    def max_target_tokens(self) -> int:
        """Tokens of the longest translation whose attention can be requested."""
        limit = self.translator.model.max_target_length
        return 4 * self.max_source_tokens if limit is None else limit - 1

    def into(self, target_lang: str | None, tag: str | None) -> Self:
        """Return the model that translates into a language, as text with a tag; raise ValueError for an unknown one."""
        translator = self.translator.into(self.config.data, target_lang, tag)
        is_default = translator.target_lang == default_direction(self.config.data)[1]  # the language of the glossary
        return dataclasses.replace(self, translator=translator, glossary=self.glossary if is_default else None)

    def info(self) -> dict[str, Any]:
        """Return the fields of `schemas.ModelInfo`."""
        data, (source_lang, target_lang) = self.config.data, default_direction(self.config.data)
        attention = self.config.model.attention
        scores = [layer.get("score", attention.score) for layer in attention.per_layer]
        search, carried = self.translator.config, self.translator.stored_source if any(self.shape) else None
        return {
            "name": self.name,
            "architecture": self.config.model.architecture,
            "score": scores if len(set(map(str, scores))) > 1 else (scores or [attention.score])[0],
            "normalizer": attention.normalizer,
            "layers": self.shape[0],
            "heads": self.shape[1],
            "source_lang": source_lang,
            "target_lang": target_lang,
            "directions": (pairs := directions(data)),
            "target_langs": list(dict.fromkeys(target for _, target in pairs)),
            "tags": corpus_tags(data),
            "parameters": sum(parameter.numel() for parameter in self.translator.model.parameters()),
            "vocabulary": self.translator.tokenizer.target_size,
            "max_source_tokens": self.max_source_tokens,
            **{name: getattr(search, name) for name in ("method", "beam_size", "n_best", "length_penalty")},
            "alignment_source": None if carried is None else carried.source._asdict(),
            "alignment_source_text": "" if carried is None else str(carried.source),
            "selected_by": "" if carried is None else carried.selected_by,
            "examples": self.examples,
        }


def load_models(config: ServeConfig, overrides: Sequence[str]) -> list[ServedModel]:
    """Load the models of `checkpoint`; raise ValueError or OSError when one cannot be read or is given twice."""
    paths = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    served: list[ServedModel] = []
    for path, name in zip(paths, _names(paths), strict=True):
        translator, trained = load_translator(path, config, overrides)
        translator.engine = make_engine(translator, trained, config.engine)
        max_tokens = config.max_length or trained.data.max_length
        if translator.max_source_length is not None:
            max_tokens = min(max_tokens, translator.max_source_length)
        examples = _examples(trained.data, run_directory(file := checkpoint.resolve(path)))
        glossary, shape = load_glossary(config.glossary, translator, config.glossary_mode), translator.attention_shape()
        served.append(ServedModel(name, translator, trained, max_tokens, shape, examples, glossary))
        log.info("%s: %s", name, file)
    return served


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of runs, or their paths where two have the same name."""
    names = [os.path.basename(os.path.abspath(run_directory(checkpoint.resolve(path)))) for path in paths]  # noqa: PTH100, PTH119
    names = [path if names.count(name) > 1 else name for name, path in zip(names, paths, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"checkpoint: {name} is given twice; give each model once")
    return names


def _examples(data: DataConfig, run: Path) -> list[str]:
    """Return short source sentences of the validation set, else of the run's report; [] when neither can be read."""
    for sources in (_validation_sources(data), _report_sources(run)):
        try:
            texts = dict.fromkeys(text.strip() for text in itertools.islice(sources, NUM_READ))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("%s: no examples (%s)", run, error)
            continue
        if short := [text for text in texts if 0 < len(text) <= MAX_EXAMPLE_CHARS]:
            return short[:NUM_EXAMPLES]
    return []


def _validation_sources(data: DataConfig) -> Iterator[str]:
    """Yield the sources of the validation set, without a download. The built-in one does not depend on the number of
    training pairs, and is written again outside the cache."""
    if data.format == "hub" and not Path(data.hf_dataset or "").is_dir():
        return
    with TemporaryDirectory() as cache:
        small = dataclasses.replace(data.synthetic, train=1)
        for pair in read_pairs(dataclasses.replace(data, cache_dir=cache, synthetic=small), validation_splits(data)[0]):
            yield pair.source


def _report_sources(run: Path) -> Iterator[str]:
    with (run / "report" / "sentences.jsonl").open(encoding="utf-8") as file:
        yield from (json.loads(line)["source"] for line in file)
