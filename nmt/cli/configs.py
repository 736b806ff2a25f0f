"""The configuration trees of the commands; each part is a dataclass beside the code it configures."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nmt import checkpoint
from nmt.alignment import FORMATS as ALIGNMENT_FORMATS
from nmt.alignment import METHODS, AlignmentConfig, candidate_sources
from nmt.attention import NO_ATTENTION
from nmt.config import check_choice, check_range, from_dict, from_environment, get_node, leaves, validate
from nmt.data.cleaning.filters import FilterOptions
from nmt.data.config import DataConfig
from nmt.data.corpora import directions, tag_names, training_corpora
from nmt.data.tokenizer import TOKENIZERS
from nmt.evaluation.metrics import METRICS, MetricsConfig
from nmt.models import MODELS, unused_options
from nmt.models.rnn import RNNConfig
from nmt.models.transformer_layers import TransformerDecoderConfig
from nmt.search import SearchConfig
from nmt.training.config import EARLY_STOPPING_METRICS
from nmt.training.optim import OptimConfig
from nmt.training.trainer import TrainConfig
from nmt.training.warm_start import InitConfig

MAPPINGS = ("data.corpora", "data.valid", "data.test", "optim.lr_scales")
"""Options with members, which are set one by one too."""
PATH_OPTIONS = (
    *("runs", "data.train", "data.valid", "data.test", "data.extra_tests", "data.train_alignments", "data.hf_dataset"),
    "data.corpora",
    *("data.cache_dir", "checkpoint", "output", "hypotheses", "baselines", "external_scores", "source", "target"),
    *("gold", "reverse", "plugins", "metrics.plugins", "init.checkpoint", "input", "text", "data.tokenizer.model"),
    *("tests", "markup", "glossary"),
)
"""Options that name files, folders and data sets: `~` is the home folder there, and what came from the environment is
not stored."""


def map_paths(config: object, change: Callable[[str, str], str]) -> None:
    """Replace every text in the path options of a configuration by the result of `change(option, text)`."""
    known = leaves(config)
    for option in [option for option in PATH_OPTIONS if option in known]:
        parent, _, name = option.rpartition(".")
        value = getattr(get_node(config, parent), name)
        setattr(get_node(config, parent), name, map_texts(value, partial(change, option)))


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return an option's value with every text in it, also in lists and mappings, replaced by `change(text)`."""
    if isinstance(value, list):
        return [map_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {key: map_texts(item, change) for key, item in value.items()}
    return change(value) if isinstance(value, str) else value


@dataclass
class PluginOptions:
    """The option that every command has.

    plugins: Python files or modules, a list [a.py,b.c], with scores and other choices of your own (docs/plugins.md).
    """

    plugins: list[str] = field(default_factory=list)


MAX_THREADS = 1024
"""More than this no machine has; torch ends the process where the system refuses a thread."""
ENGINES = ("torch", "auto", "ctranslate2", "ctranslate2_int8")


@dataclass
class MachineOptions(PluginOptions):
    """Options of the commands that run a model.

    device: where the model runs; auto = a GPU if there is one.
    num_threads: processor threads; 0 = as many as torch chooses.
    """

    device: str = "auto"
    num_threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ValueError(f"device={self.device}: must be auto, cpu, cuda or cuda:N")
        check_range("", self, ["num_threads"], minimum=0, maximum=MAX_THREADS)


@dataclass
class EngineOptions(MachineOptions):
    """The option of the commands that translate.

    engine: what decodes: torch; ctranslate2, which needs early_stopping=beam (docs/decoding.md); ctranslate2_int8, with
        8-bit weights, less exact; auto = ctranslate2 where it has all that is asked for. On the page of nmt.serve
        translations grow with torch only.
    """

    engine: str = "torch"

    def validate(self) -> None:
        super().validate()
        check_choice("", self, "engine", ENGINES)


@dataclass
class TagOptions(MachineOptions):
    """The option of the commands that give a model its tags.

    tag: of a corpus in training, such as web, whose kind of text the model shall write; by default none.
    """

    tag: str | None = None


@dataclass
class DirectionOptions(TagOptions):
    """The option of the commands whose text is in one direction, of which a model may have several.

    target_lang: language to translate into, of a model with several; by default the run's data.target_lang.
    """

    target_lang: str | None = None


@dataclass
class Config(MachineOptions):
    """Options of `python -m nmt.train`.

    name: run directory inside `runs`; made from the options when not given.
    runs: folder of all runs.
    seed: seed of all random numbers.
    model: the options of the architecture, which model=NAME chooses.
    """

    name: str | None = None
    runs: str = "runs"
    seed: int = 1
    data: DataConfig = field(default_factory=DataConfig)
    model: Any = field(default_factory=RNNConfig)
    init: InitConfig = field(default_factory=InitConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Config":
        """Return a stored configuration; raises as `nmt.config.from_dict`.

        Paths that came from the environment come from today's. The name of a data set does not: it leaves this machine.
        """
        config = from_dict(cls, stored, models={name: spec.config for name, spec in MODELS.items()})
        map_paths(config, lambda option, text: text if option == "data.hf_dataset" else from_environment(text))
        return config

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> "Config":
        """Return the configuration of a checkpoint; raise ValueError, naming the file, where it is not valid."""
        with checkpoint.interpreting(content):
            config = cls.from_dict(content["config"])
            for name in ("data", "model", "init", "optim", "train", "search", "metrics", "alignment"):
                validate(getattr(config, name))
        return config

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed, or for options that exclude each other."""
        super().validate()
        check_range("", self, ["seed"], minimum=0)
        check_range("", self, ["seed"], maximum=2**64 - 1)  # torch's generators have 64 bits
        if not self.runs:
            raise ValueError("runs=: the folder for the runs needs a name; the default is runs=runs")
        parts = [] if self.name is None else self.name.split("/")
        if any(part in ("", ".", "..") or part != part.strip() for part in parts):
            raise ValueError(f"name={self.name}: must be a folder name inside {self.runs}/, such as name=my_run")
        if self.data.tokenizer.lowercase and not self.metrics.lowercase:
            raise ValueError(
                "data.tokenizer.lowercase=true: translations will have no capitals, and would be compared with "
                "references that do; set metrics.lowercase=true too"
            )
        for part in (self.model, self.train, self.search, self.metrics, self.alignment):
            part.validate()  # before two of them are compared
        has_end = self.train.max_updates or (self.train.max_epochs and not self.data.streaming)
        if self.optim.schedule == "cosine" and not has_end:
            limits = "train.max_updates" + " or train.max_epochs" * (not self.data.streaming)
            text = f"set {limits}, until which it lasts, or choose another schedule"
            raise ValueError(f"optim.schedule=cosine: {text}")
        if self.data.streaming and (weight := self.train.guided_alignment_weight):
            text = "a stream has no word alignments; set it to 0, or data.streaming=false"
            raise ValueError(f"train.guided_alignment_weight={weight:g}: {text}")
        is_learned, longest = getattr(self.model, "positions", "") == "learned", self.data.max_length
        if self.data.streaming and is_learned and longest >= (limit := self.model.max_positions):
            text = f"with data.streaming=true and model.positions=learned it must be below model.max_positions={limit}"
            raise ValueError(f"data.max_length={longest}: {text}")
        if self.data.stages and self.train.max_epochs:
            text = "epochs of different stages differ in length; set train.max_updates or train.patience instead"
            raise ValueError(f"train.max_epochs={self.train.max_epochs}: {text}")
        entries = {f"data.corpora.{part.entry}": part.config for part in training_corpora(self.data)}
        for option, data in (entries or {"data": self.data}).items():
            if data.max_pairs and self.reads_alignments:
                text = "the file of alignments is read whole; cut text and alignments to as many lines instead"
                raise ValueError(f"{option}.max_pairs={data.max_pairs}: {text}")
        self._check_early_stopping()
        num_layers = self._num_attending_layers()
        if not num_layers:
            self._check_without_attention()
            return
        self._check_guided_attention(num_layers)
        try:
            candidate_sources(self.alignment, num_layers, self.model.attention.heads)
        except ValueError as error:
            raise ValueError(f"{error}; give one of them, or auto") from None

    @property
    def reads_alignments(self) -> bool:
        """True where training reads files of word alignments."""
        given = [part.config.train_alignments for part in training_corpora(self.data)] or [self.data.train_alignments]
        return bool(self.train.guided_alignment_weight or (self.data.augment.terms and any(given)))

    def unused_options(self) -> list[str]:
        """Return options that are set and have no effect, with their values."""
        unused = unused_options(self.model) + self.train.unused_options()
        if self.data.train_alignments and not self.reads_alignments:
            unused.append(f"data.train_alignments={self.data.train_alignments}")
        if self.data.temperature != 1 and len(training_corpora(self.data)) < 2:
            unused.append(f"data.temperature={self.data.temperature:g}")
        if self.data.tags == "decoder" and not tag_names(self.data):
            unused.append("data.tags=decoder")
        tokenizer, replace_unknown = self.data.tokenizer, self.search.replace_unknown
        knows_all = tokenizer.byte_fallback and not tokenizer.model and TOKENIZERS[tokenizer.type].is_subword
        if replace_unknown != "none" and knows_all:
            unused.append(f"search.replace_unknown={replace_unknown}")
        return unused

    def _num_attending_layers(self) -> int:
        model = self.model
        has_layers = isinstance(model, TransformerDecoderConfig)  # a recurrent decoder has one attention
        layers = range(model.decoder_layers if has_layers else 1)
        return sum(model.attention.for_layer(layer).score != NO_ATTENTION for layer in layers)

    def _check_early_stopping(self) -> None:
        if self.train.early_stopping_set is not None:
            if len(directions(self.data)) > 1:
                text = "the mean over the directions chooses the best checkpoint; leave it out"
                raise ValueError(f"train.early_stopping_set={self.train.early_stopping_set}: {text}")
            sets = list(self.data.valid) if isinstance(self.data.valid, dict) else []
            allowed = sets or ["the names of a mapping data.valid={NAME: PREFIX}"]
            check_choice("train", self.train, "early_stopping_set", allowed)
        metric, names = self.train.early_stopping_metric, self.metrics.names
        if metric in METRICS and metric not in names:
            alternative = next((name for name in names if name in EARLY_STOPPING_METRICS), "loss")
            raise ValueError(
                f"train.early_stopping_metric={metric}: metrics.names=[{','.join(names)}] leaves it out; add it there, "
                f"or let another choose the best checkpoint, as train.early_stopping_metric={alternative}"
            )

    def _check_without_attention(self) -> None:
        for option, value in (
            ("train.coverage_loss_weight", self.train.coverage_loss_weight),
            ("train.guided_alignment_weight", self.train.guided_alignment_weight),
            ("search.coverage_penalty", self.search.coverage_penalty),
        ):
            if value:
                raise ValueError(f"{option}={value:g}: {_NEEDS_ATTENTION.format('0')}")
        if self.train.early_stopping_metric == "aer":
            raise ValueError(f"train.early_stopping_metric=aer: {_NEEDS_ATTENTION.format('bleu, chrf or loss')}")

    def _check_guided_attention(self, num_layers: int) -> None:
        model, train = self.model, self.train
        if not train.guided_alignment_weight:
            return
        for unit, number, available in (
            ("layer", train.guided_layer, num_layers),
            ("head", train.guided_head, model.attention.heads),
        ):
            if number > available:
                raise ValueError(
                    f"train.guided_{unit}={number}: attention to the source has {available} "
                    f"{unit}{'s' if available > 1 else ''}; give one of them, or 0 for the mean of all"
                )
        if train.guided_layer and isinstance(model, TransformerDecoderConfig) and model.layerdrop:
            raise ValueError(
                f"train.guided_layer={train.guided_layer}: model.layerdrop={model.layerdrop:g} leaves out layers, of "
                "which it may be one; set either to 0"
            )


_NEEDS_ATTENTION = (
    "needs a model with attention; set it to {0}, or choose a score other than model.attention.score=none"
)


@dataclass
class EvaluateConfig(TagOptions, EngineOptions):
    """Options of `python -m nmt.evaluate`; those not given come from the checkpoint.

    checkpoint: run directory (its best checkpoint) or checkpoint file, or a list [a,b], which is an ensemble. The
        alignments of an ensemble are those of its first model that has attention.
    output: folder of the report, needed for an ensemble; by default report or report-TESTSET in the run directory.
    hypotheses: file of translations of the test set, one per line, to evaluate instead of the model's own.
    markup: prefix of a test set with the same inline tags in source and reference, in place of data.test; its text is
        evaluated without them, and how well attention carries them over (docs/markup.md).
    baselines: runs evaluated on the same test set, or files of translations, to compare with, as a list [a,b].
    external_scores: scores of the translations by other programs, as a list [NAME:FILE]; FILE has one number
        on each line.
    """

    checkpoint: Any = ""
    output: str | None = None
    hypotheses: str | None = None
    markup: str | None = None
    baselines: list[str] = field(default_factory=list)
    external_scores: list[str] = field(default_factory=list)
    data: DataConfig = field(default_factory=DataConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def validate(self) -> None:
        _check_checkpoint(self.checkpoint)
        super().validate()
        if isinstance(self.checkpoint, list) and len(self.checkpoint) > 1 and self.output is None:
            raise ValueError("output: must be given, as output=FOLDER: an ensemble's report belongs to no single run")
        if self.output == "":
            raise ValueError(
                "output=: the report needs a folder; leave the option out for the one in the run directory"
            )
        for item in self.external_scores:
            name, _, file = item.partition(":")
            if name in METRICS or not (name.isidentifier() and file):
                raise ValueError(
                    f"external_scores={item}: must be NAME:FILE, with a name that is none of the built-in metrics', as "
                    "in comet:FILE"
                )


FORMATS = ("text", "jsonl")


@dataclass
class TranslateConfig(DirectionOptions, EngineOptions):
    """Options of `python -m nmt.translate`; those not given come from the checkpoint.

    checkpoint: run directory (its best checkpoint) or checkpoint file, or a list [a,b], which is an ensemble.
    input: file of sentences, which may be compressed (.gz, .xz, .zst); by default they come from standard input.
    output: file of the translations, compressed as its suffix says; it appears when all of them are there. By default
        they go to standard output.
    format: text (the best translation of each line) or jsonl (with scores and alignments).
    input_format: text, or jsonl: each line is an object with a text, and where wanted with how its translation begins,
        a text that it continues, markup, placeholders, target_lang and alignment (docs/markup.md).
    markup: the tags of XML or HTML in the text are carried over to its translation along attention (docs/markup.md).
    placeholders: placeholders such as {name} or %s, addresses and `code` that a translation lacks are put back.
    reverse: run or checkpoint of the other direction, whose attention is added where markup and placeholders are put.
    glossary: file with a source term, a tab and its target term in each line that does not begin with #: a translation
        shall have the target of every term in its text, each time, and how many do is counted (docs/markup.md).
    glossary_mode: hard (a translation contains the targets, exactly as they are) or soft (the model is given them with
        the text, and may inflect them; it has to be trained with data.augment.terms).
    max_length: source tokens beyond which a line is split at sentence boundaries and translated in segments; 0:
        data.max_length of training. Never more than the model can process.
    """

    checkpoint: Any = ""
    input: str | None = None
    output: str | None = None
    format: str = "text"
    input_format: str = "text"
    markup: bool = False
    placeholders: bool = False
    reverse: str | None = None
    glossary: str | None = None
    glossary_mode: str = "hard"
    max_length: int = 0
    search: SearchConfig = field(default_factory=SearchConfig)

    def validate(self) -> None:
        _check_checkpoint(self.checkpoint)
        if self.reverse is not None and not self.markup and self.input_format == "text":
            raise ValueError(f"reverse={self.reverse}: is for markup; set markup=true, or leave it out")
        if self.output == "":
            raise ValueError("output=: the file needs a name; leave the option out for standard output")
        check_choice("", self, "format", FORMATS)
        check_choice("", self, "input_format", FORMATS)
        check_choice("", self, "glossary_mode", ("hard", "soft"))
        check_range("", self, ["max_length"], minimum=0)
        super().validate()


@dataclass
class AlignConfig(DirectionOptions):
    """Options of `python -m nmt.align`; those not given come from the checkpoint.

    checkpoint: run directory (its best checkpoint) or checkpoint file.
    source: source text, one sentence on each line, or without it the run's test set.
    target: its translation, line by line.
    gold: word alignments to compare with, one line for each pair: i-j sure, ipj possible.
    reverse: run or checkpoint of the other direction, whose links are combined with those of `checkpoint`.
    symmetrize: how the links of both directions are combined (Koehn et al. 2005).
    output: folder of the files; by default align-<source> in the run directory.
    formats: the kinds of files to write.
    markup: carry the tags of `source` over to `target`, which has none: tagged.txt and spans.jsonl (docs/markup.md).
    save_weights: write the attention of every layer and head where the format can (npz, parquet).
    """

    checkpoint: str = ""
    source: str | None = None
    target: str | None = None
    gold: str | None = None
    reverse: str | None = None
    symmetrize: str = "grow-diag-final-and"
    output: str | None = None
    formats: list[str] = field(default_factory=lambda: ["pharaoh", "npz", "jsonl", "parquet"])
    markup: bool = False
    save_weights: bool = True
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def validate(self) -> None:
        _check_checkpoint(self.checkpoint)
        super().validate()
        if (self.source is None) != (self.target is None):
            present, missing = ("source", "target") if self.target is None else ("target", "source")
            raise ValueError(f"{missing}: must be given beside {present}, or neither, for the run's own test set")
        if self.gold is not None and self.source is None:
            raise ValueError("gold: needs source and target; the run's own test set brings its own")
        if self.output == "":
            raise ValueError("output=: the files need a folder; leave the option out for one in the run directory")
        check_choice("", self, "symmetrize", METHODS)
        if not self.formats:
            raise ValueError(f"formats=[]: name at least one of {', '.join(ALIGNMENT_FORMATS)}")
        check_choice("", self, "formats", ALIGNMENT_FORMATS, is_list=True)


@dataclass
class ScoreConfig(DirectionOptions):
    """Options of `python -m nmt.score`; those not given come from the checkpoint.

    checkpoint: run directory (its best checkpoint) or checkpoint file, or a list [a,b], which is an ensemble.
    source: source text, one sentence on each line; without it, standard input holds the pairs, as source TAB target
        [TAB target …] or as JSON.
    target: its translation, line by line.
    reverse: run or checkpoint of the other direction, whose scores are added.
    rerank: write the targets of each line best first, by score; with reverse, by the mean of both directions' scores.
    format: text (numbers, separated by tabs), tsv (source and target after them) or jsonl (also those of each token).
    output: file to write; by default standard output.
    """

    checkpoint: Any = ""
    source: str | None = None
    target: str | None = None
    reverse: str | None = None
    rerank: bool = False
    format: str = "text"
    output: str | None = None
    search: SearchConfig = field(default_factory=SearchConfig)

    def validate(self) -> None:
        _check_checkpoint(self.checkpoint)
        super().validate()
        check_choice("", self, "format", ("text", "jsonl", "tsv"))
        if (self.source is None) != (self.target is None):
            raise ValueError("source, target: give both, or neither, for pairs from standard input")
        if self.output is not None and Path(self.output).is_dir():
            raise ValueError(f"output={self.output}: must be a file; leave the option out for standard output")


@dataclass
class TrimConfig(PluginOptions):
    """Options of `python -m nmt.trim`.

    checkpoint: run directory (its best checkpoint) or checkpoint file.
    text: a list [SOURCE,TARGET] of a text in either language; the vocabulary is cut to the pieces that their lines
        need. A joint vocabulary is cut to both; of two, that of the target is kept whole without TARGET.
    output: checkpoint file to create.
    """

    checkpoint: str = ""
    text: list[str] = field(default_factory=list)
    output: str = ""

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        if not (self.output and 1 <= len(self.text) <= 2 and all(self.text)):
            raise ValueError("text and output: must be given: text=SOURCE or text=[SOURCE,TARGET], and output=FILE.pt")


@dataclass
class CleanConfig(MachineOptions):
    """Options of `python -m nmt.clean`.

    source: source text to clean, one sentence on each line.
    target: its translation, line by line.
    source_lang: source language, also the suffix of its cleaned text.
    target_lang: target language, likewise.
    output: prefix of what is written: both sides of the cleaned text, the rejected pairs (.rejected.tsv), and a page
        about them (.html).
    filters: what is rejected; options of a filter are filters.NAME.max=… or filters={NAME: {max: …}}.
    tests: prefixes of test sets, whose sentences the cleaned text must not have.
    checkpoint: run or checkpoint file of a trained model, for the filters model, coverage and dual.
    reverse: run or checkpoint of the other direction, for the filter dual.
    """

    source: str = ""
    target: str = ""
    source_lang: str = "en"
    target_lang: str = "de"
    output: str = ""
    filters: Any = field(default_factory=FilterOptions)
    tests: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    reverse: str | None = None

    def validate(self) -> None:
        if not (self.source and self.target and self.output):
            raise ValueError("source, target and output: must be given: source=FILE target=FILE output=PREFIX")
        if self.source_lang == self.target_lang or not (self.source_lang and self.target_lang):
            raise ValueError(f"source_lang={self.source_lang}, target_lang={self.target_lang}: must be two languages")
        if self.reverse and not self.checkpoint:
            raise ValueError(
                f"reverse={self.reverse}: needs checkpoint=RUN, a model of the corpus's direction, beside it"
            )
        super().validate()
        for options in vars(self.filters).values():
            options.validate()


EXPORTS = ("ctranslate2", "huggingface", "onnx")


@dataclass
class ExportConfig(PluginOptions):
    """Options of `python -m nmt.export`; those of the search come from the checkpoint when not given.

    checkpoint: run directory (its best checkpoint) or checkpoint file.
    format: which programs can load the export; --formats shows what each format supports.
    output: folder to create; an earlier export there is replaced.
    max_length: tokens of the longest sentence that ctranslate2 and huggingface can process: the rows of their table of
        sinusoids. A model with learned positions has a table of its own, and onnx has none.
    num_threads: processor threads; 0 = as many as torch chooses.
    """

    checkpoint: str = ""
    format: str = ""
    output: str = ""
    max_length: int = 1024
    search: SearchConfig = field(default_factory=SearchConfig)
    num_threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        check_range("", self, ["num_threads"], minimum=0, maximum=MAX_THREADS)
        if self.format not in EXPORTS:
            raise ValueError(f"format={self.format}: must be one of {', '.join(EXPORTS)}; --formats compares them")
        if not self.output:
            raise ValueError("output=: must be given: output=FOLDER")
        check_range("", self, ["max_length"], minimum=2)


@dataclass
class ServeConfig(EngineOptions):
    """Options of `python -m nmt.serve`; those not given come from each checkpoint.

    checkpoint: run directory (its best checkpoint) or checkpoint file, or a list [a,b], shown side by side.
    host: address to listen on (all but loopback addresses let other machines connect, without authentication).
    port: port to listen on (0 = a free one).
    allowed_hosts: further host names that requests may use; IP addresses and localhost always work.
    max_bytes: largest size of a request.
    max_sentences: largest number of sentences in a request.
    max_sentence_chars: largest number of characters in a sentence.
    max_beam: largest beam size, and largest number of translations of a sentence.
    max_weights: largest number of attention weights in a response.
    timeout: seconds from a request to its response; a client may take as long to send and to receive.
    queue_size: number of requests that may wait while one is processed.
    max_length: source tokens beyond which a line is split into segments; see translate's.
    glossary: file of terms for all requests that bring none of their own, as of translate, into the run's
        data.target_lang.
    glossary_mode: hard or soft, as of translate.
    """

    checkpoint: Any = ""
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: list[str] = field(default_factory=list)
    max_bytes: int = 262_144
    max_sentences: int = 50
    max_sentence_chars: int = 2000
    max_beam: int = 20
    max_weights: int = 500_000
    timeout: float = 30.0
    queue_size: int = 16
    max_length: int = 0
    glossary: str | None = None
    glossary_mode: str = "hard"
    search: SearchConfig = field(default_factory=SearchConfig)

    def validate(self) -> None:
        _check_checkpoint(self.checkpoint)
        if not self.host:
            raise ValueError("host=: an address is needed, such as host=127.0.0.1")
        check_range("", self, ["port"], minimum=0, maximum=65535)
        limits = ["max_bytes", "max_sentences", "max_sentence_chars", "max_beam", "max_weights"]
        check_range("", self, limits, minimum=1)
        check_range("", self, ["timeout"], above=0, below=math.inf)
        check_range("", self, ["queue_size", "max_length"], minimum=0)
        check_choice("", self, "glossary_mode", ("hard", "soft"))
        super().validate()


def _check_checkpoint(checkpoint: object) -> None:
    names = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("checkpoint: must be given: checkpoint=runs/NAME or checkpoint=FILE.pt")


COMMANDS: dict[str, type[Any]] = {
    "train": Config,
    "evaluate": EvaluateConfig,
    "translate": TranslateConfig,
    "align": AlignConfig,
    "score": ScoreConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
    "trim": TrimConfig,
    "clean": CleanConfig,
}
"""The options of each command."""
