"""Decode with CTranslate2 behind the project's own commands: ids in, hypotheses out, and torch for the rest."""

import hashlib
import importlib.util
import json
import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nmt import __version__, checkpoint, search
from nmt.cli.configs import Config
from nmt.config import to_dict
from nmt.data import BOS, EOS, PAD, UNK
from nmt.data.cache import cached_directory
from nmt.export import export, formats
from nmt.export.scripts.translate_ctranslate2 import vocabulary
from nmt.inference.translator import Decoded, Ids, Translator
from nmt.search.constraints import DecodingConstraints, Phrases
from nmt.search.scoring import Hypothesis, length_norm

log = logging.getLogger(__name__)
MAX_LENGTH = 1024  # tokens with the end token; torch translates longer sentences
DEFAULTS_ONLY = ("method", "length_normalization", "coverage_penalty", "diverse_groups")
FIXED = {"min_decoding_length": 0, "max_input_length": 0, "return_scores": True, "return_end_token": True}


def make_engine(translator: Translator, config: Config, name: str) -> "CTranslate2Engine | None":
    """Return the engine of a value of the option `engine`, with the configuration of the training; None for torch."""
    return None if name == "torch" else CTranslate2Engine(translator, config, name)


class CTranslate2Engine:
    """A `translator.Engine` that exports the model when it is first needed, into `data.cache_dir`.

    CTranslate2 searches without the constraints that models rarely break (lengths, forbidden tokens, repeated n-grams):
    its own would change the probabilities. A sentence with a translation that breaks one is translated again by torch.

    Args:
        translator: the model.
        config: of its training.
        name: auto, ctranslate2 or ctranslate2_int8; auto does not warn of what CTranslate2 does not hold.
    """

    def __init__(self, translator: Translator, config: Config, name: str) -> None:
        self.translator, self.config, self.name, self.description = translator, config, name, ""
        self._reported: set[str] = set()

    def holds(self, config: search.SearchConfig) -> bool:
        """Return whether CTranslate2 decodes with these options; say why not, once for each reason."""
        reason = self._model_reason or _search_reason(config) or self._load_reason
        if reason and reason not in self._reported:
            self._reported.add(reason)
            level = logging.DEBUG if self.name == "auto" else logging.WARNING
            log.log(level, "engine=%s: %s; torch decodes instead", self.name, reason)
        return not reason

    @cached_property
    def _model_reason(self) -> str:
        """Return why CTranslate2 cannot decode with the model on this machine, "" where it can."""
        if self.translator.member is not None:
            return "checkpoint is an ensemble, and CTranslate2 decodes with one model"
        if self.translator.device.type != "cpu":
            return f"device={self.translator.device}: CTranslate2 is used with device=cpu"
        if reasons := formats.unsupported_options(self.config, "ctranslate2"):
            return f"CTranslate2 does not have {', and '.join(reasons)}"
        is_missing = importlib.util.find_spec("ctranslate2") is None
        return "it is not installed (python -m pip install 'nmt-attention[ctranslate2]')" if is_missing else ""

    @cached_property
    def _load_reason(self) -> str:
        """Load the exported model; return why that failed, or ""."""
        translator, model = self.translator, to_dict(self.config.model)
        digest = translator.tokenizer.tagged().digest  # one export for all target languages
        key = [checkpoint.state_digest(translator.model.state_dict()), digest, model, __version__]
        name = f"ctranslate2-{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]}"
        try:
            import ctranslate2

            folder, config = Path(self.config.data.cache_dir) / name, self.config
            cached_directory(folder, lambda path: export(translator, config, "ctranslate2", path, MAX_LENGTH) and None)
            kind, threads = "int8" if self.name.endswith("int8") else "float32", torch.get_num_threads()
            self._engine: Any = ctranslate2.Translator(str(folder), compute_type=kind, intra_threads=threads)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            return f"CTranslate2 could not load the model ({' '.join(str(error).split())})"
        self.description = f"CTranslate2 {ctranslate2.__version__} ({self._engine.compute_type})"
        self._sources, self._targets = vocabulary(folder, "source"), vocabulary(folder, "target")
        self._ids = {name: index for index, name in enumerate(self._targets)}
        return ""

    def decode(self, translator: Translator, sources: Ids, prefixes: Ids, phrases: Phrases) -> Decoded:
        """Yield what `search.decode` does with the options of a translator; sentences of torch, and so those with
        phrases, come last."""
        config, remaining = translator.config, list(range(len(sources)))
        if self.holds(config):
            free, remaining = ([i for i in remaining if bool(phrases[i]) == has_some] for has_some in (False, True))
            for batch_indices in search.make_decode_batches([len(sources[i]) for i in free], config):
                indices = [free[i] for i in batch_indices]
                batch = [sources[i] for i in indices], [prefixes[i] for i in indices]
                found = dict(zip(indices, self._translate_batch(translator, *batch), strict=True))
                yield from ((i, hypotheses) for i, hypotheses in found.items() if hypotheses)
                remaining += [i for i, hypotheses in found.items() if not hypotheses]
        again, forced = ([values[i] for i in remaining] for values in (sources, prefixes))
        wanted = [phrases[i] for i in remaining]
        options, to_text = (config, translator.device), translator.tokenizer.decode_target
        decoded = search.decode(translator.model, again, *options, prefixes=forced, phrases=wanted, text=to_text)
        yield from ((remaining[i], hypotheses) for i, hypotheses in decoded)

    def _translate_batch(self, translator: Translator, sources: Ids, prefixes: Ids) -> list[list[Hypothesis]]:
        """Return the `n_best` hypotheses of each sentence, best first; [] for one that torch has to translate."""
        config, lengths, has_prefixes = translator.config, np.array([len(source) for source in sources]), any(prefixes)
        if lengths.max() >= min(MAX_LENGTH, translator.model.max_source_length or MAX_LENGTH):
            return [[]] * len(sources)
        limits = DecodingConstraints(config, lengths, prefixes, translator.model)
        tokens = [[self._sources[index] for index in source] for source in sources]
        forced = [[self._targets[index] for index in prefix] for prefix in prefixes]
        scored = self._engine.score_batch(tokens, forced, max_input_length=0) if has_prefixes else []
        results = self._engine.translate_batch(
            tokens,
            forced if has_prefixes else None,
            beam_size=config.beam_size,
            num_hypotheses=config.beam_size,
            length_penalty=config.length_penalty,
            max_decoding_length=min(int(limits.max_lengths.max()) + 1, MAX_LENGTH),
            **FIXED,  # the end token counts in the length, as it does here
        )
        translated = []
        for i, result in enumerate(results):
            prefix_log_prob = sum(scored[i].log_probs[: len(prefixes[i])]) if has_prefixes else 0.0  # not in `score`
            hypotheses, distinct = list[Hypothesis](), dict[str, Hypothesis]()
            for names, score in zip(result.hypotheses, result.scores, strict=True):
                ids, norm = [self._ids[name] for name in names], float(length_norm(config, len(names) or 1))
                hypotheses.append(Hypothesis(ids, score + prefix_log_prob / norm, score * norm + prefix_log_prob))
            for hypothesis in sorted(hypotheses, key=lambda h: -h.score):
                distinct.setdefault(translator.tokenizer.decode_target(hypothesis.tokens), hypothesis)
            best = [h._replace(tokens=h.tokens[:-1]) for h in [*distinct.values()][: config.n_best]]
            bounds = len(prefixes[i]), limits.min_lengths[i], limits.max_lengths[i], len(self._ids) - limits.num_tags
            translated.append(best if all(_is_allowed(h.tokens, *bounds, config) for h in hypotheses) else [])
        return translated


def _search_reason(config: search.SearchConfig) -> str:
    """Return an option of the search that is not CTranslate2's, and what it has; "" for none."""
    held = {name: [str(getattr(search.SearchConfig(), name))] for name in DEFAULTS_ONLY}
    held |= {"replace_unknown": ["none", "forbid"]} | ({"early_stopping": ["beam"]} if config.beam_size > 1 else {})
    for option, allowed in held.items():
        if (value := str(getattr(config, option))) not in allowed:
            return f"search.{option}={value} is not CTranslate2's, which has {' or '.join(allowed)}"
    # it does not collect what ends outside the beam, which are short translations
    is_low = config.length_penalty < 0.5 and config.beam_size > 1
    return f"search.length_penalty={config.length_penalty} is not CTranslate2's, which has 0.5 and more" * is_low


def _is_allowed(
    ids: list[int], num_forced: int, minimum: int, maximum: int, first_tag: int, config: search.SearchConfig
) -> bool:
    """Return whether torch's search could end with these ids of a hypothesis, below its longest length."""
    size, forbidden = config.no_repeat_ngram_size, {PAD, BOS, EOS, UNK if config.replace_unknown == "forbid" else EOS}
    ngrams = [tuple(ids[i : i + size]) for i in range(len(ids) - size)] if size else []
    is_ended = minimum < len(ids) <= maximum and ids[-1] == EOS
    own = ids[num_forced:-1]
    return is_ended and forbidden.isdisjoint(own) and max(own, default=0) < first_tag and len({*ngrams}) == len(ngrams)
