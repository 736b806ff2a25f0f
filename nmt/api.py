"""The project from Python, as `nmt.load` and so on. Layers and heads are counted from 1; 0 is the mean of all."""

import importlib
import io
import json
import logging
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from nmt import checkpoint
from nmt.alignment import AlignmentConfig, AlignmentSource, Link
from nmt.alignment.markup import ProjectedSpan, parse_markup
from nmt.alignment.pharaoh import pharaoh_line
from nmt.alignment.writers import words_known
from nmt.cli.compose import compose_config
from nmt.cli.config_groups import load_named_plugins
from nmt.cli.configs import ENGINES, Config, TranslateConfig
from nmt.config import check_choice, coerce, describe_type, leaves, suggest
from nmt.data.corpora import describe_directions
from nmt.evaluation.report import heatmap, html
from nmt.export.ctranslate2_engine import make_engine
from nmt.inference.aligner import WORDS_CHANGED, Aligner, check_directions
from nmt.inference.glossary import load_glossary
from nmt.inference.interventions import Intervention, rows_of_links
from nmt.inference.line_request import LineRequest
from nmt.inference.line_translator import LineTranslator
from nmt.inference.translator import Translation, Translator
from nmt.runtime.device import resolve_device
from nmt.runtime.process import environment
from nmt.search import SearchConfig
from nmt.train import main
from nmt.training.logger import read_metrics


class TranslationResult(NamedTuple):
    """The translation of one text.

    text: of the best hypothesis.
    score: its score, by which the search sorts: log-probability over a power of the length, unless options say else.
    truncated: whether it was cut at the longest length that the search allows.
    subwords: what the model generated, without the end token.
    n_best: as many translations as the option `n_best` says, the best first.
    spans: with markup, each of its elements with its range in the text without tags, `n_best[0].text`.
    """

    text: str
    score: float
    truncated: bool
    subwords: list[str]
    n_best: list[Translation]
    spans: Sequence[ProjectedSpan] = ()


class AlignmentResult(NamedTuple):
    """The word alignment of one sentence pair.

    source, target: its words, which are separated by spaces.
    links: pairs (source word, target word), counted from 0.
    pharaoh: the links as text, such as "0-0 1-2".
    """

    source: list[str]
    target: list[str]
    links: list[Link]
    pharaoh: str


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """The attention to the source over one sentence pair; a notebook shows it as a table.

    `attention[layer, head]` is a matrix (T, S), counted from 1; 0 is the mean of all.

    layers, heads: their numbers, from 1.
    target, source: the T and S subwords, each with its end token.
    weights: (L, H, T, S); a row is the distribution over the source with which a target subword was predicted.
    alignment_source: the layer and head that are shown, which were chosen for word alignments in training.
    """

    layers: range
    heads: range
    target: list[str]
    source: list[str]
    weights: NDArray[np.float32] = field(repr=False)
    alignment_source: AlignmentSource

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.weights, dtype, copy=copy)

    def numpy(self) -> NDArray[np.float32]:
        """Return the weights, (L, H, T, S)."""
        return self.weights

    def __getitem__(self, index: int | tuple[int, int]) -> NDArray[Any]:
        return self._select(*(index if isinstance(index, tuple) else (index,))).matrix(self.weights)

    def plot(self, layer: int | None = None, head: int | None = None) -> Any:
        """Return a matplotlib figure of one matrix.

        Args:
            layer, head: counted from 1; 0: the mean of all. Without them it is that of `alignment_source`.

        Raises:
            IndexError: there is no such layer or head.
        """
        rows = (selected := self._select(layer, head)).plot_rows(self.weights)
        figure: Any = heatmap.plot_heatmap(
            rows, self.source, self.target[: len(rows)], title=str(selected.without_rule)
        )

        def png() -> bytes:  # a notebook shows figures of pyplot only
            figure.savefig(file := io.BytesIO(), format="png")
            return file.getvalue()

        figure._repr_png_ = png
        return figure

    def _select(self, layer: int | None = None, head: int | None = None) -> AlignmentSource:
        for name, number, numbers in (("layer", layer, self.layers), ("head", head, self.heads)):
            if number and number not in numbers:
                raise IndexError(f"{name} {number}: attention to the source has {len(numbers)}, counted from 1")
        if head and not layer and len(self.layers) > 1:
            raise IndexError(f"head {head}: every layer has one; give the layer too")
        return self.alignment_source if layer is head is None else AlignmentSource(layer or int(bool(head)), head or 0)

    def _repr_html_(self) -> str:
        rows = list(zip(self.target, self.alignment_source.plot_rows(self.weights).tolist(), strict=False))
        template = html.environment.get_template("evaluation/report/templates/attention_map.html")
        return template.render(attention=self, rows=rows, limit=heatmap.MAX_POSITIONS)


class Model:
    """A trained model, or several as an ensemble; `nmt.load` makes it.

    config: the options of its (first) run.
    """

    def __init__(self, translator: Translator, config: Config, name: str) -> None:
        self.config, self._translator, self._name = config, translator, name

    def __repr__(self) -> str:
        return f"<Model {self._name}: {describe_directions(self.config.data)}>"

    def translate(
        self,
        texts: str | Iterable[str],
        *,
        target_lang: str | None = None,
        tag: str | None = None,
        prefix: str = "",
        suffix_of: str = "",
        markup: bool = False,
        placeholders: bool = False,
        alignment: Mapping[str, int] | None = None,
        glossary: Any = None,
        glossary_mode: str = "hard",
        **search: Any,
    ) -> Any:
        """Return the `TranslationResult` of a text, or a list of those of several, as `python -m nmt.translate` does.

        Args:
            texts: one text or many; a text longer than those in training is translated in parts.
            target_lang: language to translate into, of a model with several; None: the run's `data.target_lang`.
            tag: of a corpus in training, whose kind of text the model shall write; None: none.
            prefix, suffix_of, markup, placeholders, alignment: see `nmt.inference.line_request.LineRequest`.
            glossary: a file of terms, or a dictionary of target terms by source terms.
            glossary_mode: hard (translations contain them) or soft (the text is given with them, to a model that was
                trained with `data.augment.terms`).
            search: options of `nmt.search.SearchConfig` for this call, as in beam_size=8, n_best=5.

        Raises:
            TypeError: a text is none, or an option is unknown.
            ValueError: an option has a value that is not allowed, the markup of a text is not well-formed, or a
                glossary is not as `Glossary.read` needs it.
            RuntimeError: a text could not be translated, mostly for want of memory.
        """
        model = self._translator.into(self.config.data, target_lang, tag)
        config = _search_config(model.config, search)
        carried, member, results = model.stored_source, model.member, list[TranslationResult]()
        translator = Translator(model.model, model.tokenizer, config, model.device, carried=carried, member=member)
        translator.engine = model.engine
        encoded = [text.encode(errors="replace") for text in _texts(texts)]
        asked = {"prefix": prefix, "suffix_of": suffix_of, "markup": markup, "placeholders": placeholders}
        request = LineRequest(alignment=alignment).replaced(asked)
        for number, text in enumerate(encoded if markup else [], 1):  # before any is translated
            try:
                parse_markup(text.decode())
            except ValueError as error:
                raise ValueError(f"text {number}: {error}") from None
        loaded = load_glossary(glossary, translator, glossary_mode)
        line_translator = LineTranslator(translator, self.config.data.max_length, request, glossary=loaded)
        for line in line_translator.translate_lines(encoded):
            if line.error is not None:
                raise RuntimeError(f"text {len(results) + 1}: {line.error}")
            best, subwords = line.n_best(), model.tokenizer.target_subwords(line.n_best()[0].tokens)
            results.append(TranslationResult(line.text, best[0].score, best[0].truncated, subwords, best, line.spans))
        return results[0] if isinstance(texts, str) else results

    def attention(self, source: str, target: str | None = None) -> AttentionMap:
        """Return the attention over a pair of texts.

        Args:
            source: one text.
            target: its translation; None: the model's own.

        Raises:
            ValueError: the model has no attention to the source.
        """
        if not isinstance(source, str) or not isinstance(target, str | None):
            raise TypeError("attention: one text is needed, and none or one for its translation")
        own = self.translate(source).n_best[0] if target is None else None
        pairs = [(source, own.text if own else str(target))]
        pair = self._align(pairs, [own.tokens] if own else None)[0]
        layers, heads = (range(1, size + 1) for size in pair.weights.shape[:2])
        labels = pair.target_subwords, pair.source_subwords
        return AttentionMap(layers, heads, *labels, pair.weights, self._translator.stored_source.source)

    def align(self, source: str | Iterable[str], target: str | Iterable[str]) -> Any:
        """Return the `AlignmentResult` of a pair of texts, or a list of those of several pairs.

        Raises:
            ValueError: the model has no attention to the source, or the lists have different lengths.
        """
        sources, targets = _texts(source), _texts(target)
        if len(sources) != len(targets):
            raise ValueError(f"align: {len(sources)} source texts and {len(targets)} target texts; as many are needed")
        pairs = list(zip(sources, targets, strict=True))
        results = []
        for pair in self._align(pairs):
            words, translated = ([word for word in text.split(" ") if word] for text in pair[:2])
            results.append(AlignmentResult(words, translated, pair.links, pharaoh_line(pair.links)))
        return results[0] if isinstance(source, str) else results

    def score(self, source: str | Iterable[str], target: str | Iterable[str], reverse: "Model | None" = None) -> Any:
        """Return the `PairScore` of a pair of texts, or a list of those of several pairs, or of targets of one source.

        Raise ValueError for lists of different lengths, or if `reverse` is not of the other direction.
        """
        targets = _texts(target)
        sources = [source] * len(targets) if isinstance(source, str) else _texts(source)
        if len(sources) != len(targets):
            raise ValueError(f"score: {len(sources)} source texts and {len(targets)} target texts; as many are needed")
        if reverse is not None:
            data = reverse.config.data
            into = check_directions(self._name, self.config.data, reverse._name, data)
        pairs = [(*pair, ()) for pair in zip(sources, targets, strict=True)]
        scores = self._translator.score(pairs, None if reverse is None else reverse._translator.into(data, into))
        return scores[0] if isinstance(source, str) and isinstance(target, str) else scores

    def intervene(
        self, *, layer: int = 0, head: int = 0, weights: Any, alignment: AlignmentResult | None = None
    ) -> "Model":
        """Return the model with other attention to the source, in all that it does; this one stays as it is.

        Several can be chained; for the same head the last one counts. docs/api.md has examples.

        Args:
            layer, head: counted from 1; 0: all.
            weights: what acts in place of the head's own: zero (a context of zeros), uniform (the same weight on each
                source subword, `</s>` included), from_alignment, or a matrix (T, S), as `AttentionMap` has it: row t
                acts where subword t is predicted. A row of NaN, and positions beyond T, keep the model's own weights.
            alignment: of from_alignment: of one pair, as `align` returns it; the row of each subword of a linked target
                word has equal weights on the subwords of the source words that it is linked to.

        Raises:
            ValueError: no such layer or head, weights that are no distributions, a model without attention, or another
                engine than torch.
        """
        is_for_links = isinstance(weights, str) and weights == "from_alignment"
        if type(alignment) is not (AlignmentResult if is_for_links else type(None)):
            raise ValueError("alignment: is for weights=from_alignment, which needs what align(source, target) returns")
        translator = self._translator
        if alignment is not None:
            texts = " ".join(alignment.source), " ".join(alignment.target)
            (source,), (target,) = translator.encode_pairs([texts])
            words = translator.pair_words(texts, source, target)
            if not all(map(words_known, texts, words)):
                raise ValueError(f"alignment: its words are not those of the model: {WORDS_CHANGED}")
            weights = rows_of_links(alignment.links, *words)
        translator = translator.intervene([Intervention(layer, head, weights)])
        return Model(translator, self.config, self._name)

    def _align(self, pairs: list[tuple[str, str]], targets: list[list[int]] | None = None) -> list[Any]:
        aligner = Aligner(self._translator, AlignmentConfig(), self._translator.stored_source.source)
        sources, encoded = self._translator.encode_pairs(pairs)
        aligned = aligner.align_ids(pairs, sources, targets or encoded)
        if pairs and not aligned:
            raise ValueError(f"{self._name}: this model has no attention to the source (model.attention.score=none)")
        return aligned


def _texts(texts: Any) -> list[str]:
    items: list[Any] = [texts] if isinstance(texts, str | bytes) or not isinstance(texts, Iterable) else list(texts)
    if wrong := [text for text in items if not isinstance(text, str)]:
        raise TypeError(f"{wrong[0]!r}: a text is needed, or a list of texts")
    return items


def _search_config(default: SearchConfig, options: dict[str, Any]) -> SearchConfig:
    hints = leaves(default)
    for name, value in options.items():
        if name not in hints:
            raise TypeError(f"{name}: unknown option; did you mean {suggest(name, hints) or ', '.join(hints)}?")
        try:
            options[name] = coerce(hints[name], value)
        except TypeError:
            raise TypeError(f"{name}={value!r}: {describe_type(hints[name])}") from None
    config = replace(default, **options)
    config.validate()
    return config


def load(
    path: Any, *, device: str = "auto", engine: str = "torch", plugins: Sequence[str] = (), **search: Any
) -> Model:
    """Load a trained model.

    Args:
        path: a run directory (its best checkpoint) or a checkpoint file, or a list of them, which is an ensemble.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        engine: what decodes: torch, auto, ctranslate2 or ctranslate2_int8, as for `python -m nmt.translate`.
        plugins: Python files or modules with components of your own, without which the model was not trained.
        search: options of `nmt.search.SearchConfig` in place of those of training, as in beam_size=8.

    Raises:
        FileNotFoundError: there is no such file, or the folder is no run.
        TypeError: an option is unknown.
        ValueError: an option is not allowed, the file is no checkpoint, its plugins are missing, or the models of an
            ensemble have different vocabularies.
    """
    if plugins:
        importlib.import_module("nmt.plugins").load_plugins(plugins)
    paths = [path] if isinstance(path, str | os.PathLike) or not isinstance(path, Iterable) else list(path)
    if wrong := [item for item in paths if not isinstance(item, str | os.PathLike)]:
        raise TypeError(f"{wrong[0]!r}: the path of a run directory or checkpoint file is needed, or a list of them")
    if not paths:
        raise ValueError("path: the list is empty; name a run directory or checkpoint file")
    check_choice("", TranslateConfig(engine=engine), "engine", ENGINES)
    target = resolve_device(str(device))
    contents = [checkpoint.load(checkpoint.resolve(os.fspath(item)), target) for item in paths]
    config = Config.from_checkpoint(contents[0])
    translator = Translator.from_checkpoints(contents, _search_config(config.search, search), target)
    translator.engine = make_engine(translator, config, engine)
    return Model(translator, config, " + ".join(map(str, paths)))


class Run:
    """A run directory, as it is when this is made.

    path: of the directory.
    config: every option.
    metrics: the rows of metrics.jsonl.
    scores: the scores.json of each test set, as in `run.scores["test"]["bleu"]["score"]`; {} before an evaluation.

    Raises:
        FileNotFoundError: the folder is no run directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "config.yaml").is_file():
            raise FileNotFoundError(f"{path}: no run directory; it has no config.yaml")
        self.config = Config.from_dict(yaml.safe_load((self.path / "config.yaml").read_text("utf-8")))
        self.metrics, self.scores = read_metrics(self.path / "metrics.jsonl"), dict[str, dict[str, Any]]()
        for file in [*self.path.glob("report/scores.json"), *sorted(self.path.glob("report/*/scores.json"))]:
            name = "test" if file.parent.name == "report" else file.parent.name
            self.scores[name] = json.loads(file.read_text("utf-8"))

    def __repr__(self) -> str:
        return f"<Run {self.path}>"

    def load(self, **options: Any) -> Model:
        """Load its best checkpoint; the options are those of `nmt.load`."""
        return load(self.path, **options)


def train(*overrides: str, plugins: Sequence[str] = (), quiet: bool = False) -> Run:
    """Train a model and evaluate it, as `python -m nmt.train` does, in this process; the same call continues a run.

    Args:
        overrides: options as on the command line, such as "model=transformer" or "train.max_updates=100".
        plugins: files or modules of your own, as the option `plugins` among the overrides.
        quiet: show warnings only; the log file of the run, train.log, has everything.

    Raises:
        TypeError, ValueError, OSError: with the sentence that the command prints.
        KeyboardInterrupt: interrupted, after everything was saved.
    """
    if not all(isinstance(text, str) for text in overrides):
        raise TypeError('nmt.train takes options as texts, as in nmt.train("seed=2", "train.max_updates=100")')
    arguments = load_named_plugins([*overrides, *([f"plugins=[{','.join(plugins)}]"] if plugins else [])])
    config = compose_config(Config, "train", arguments)
    log = logging.getLogger("nmt")
    handlers, level, propagate = log.handlers.copy(), log.level, log.propagate
    log.setLevel(logging.DEBUG)  # for the run's log file, whoever has set handlers
    try:
        with environment(NMT_QUIET="1" if quiet else ""):
            main(config, arguments)
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGINT:
            raise KeyboardInterrupt("the run is saved; the same call continues it") from None
        raise
    finally:
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)
    return Run(Path(config.runs) / str(config.name))
