"""The configuration trees of the commands; each part is a dataclass beside the code it configures."""

import math
import re
from dataclasses import dataclass, field
from typing import Any

from nmt.alignment import FORMATS as ALIGNMENT_FORMATS
from nmt.alignment import METHODS, AlignmentConfig, candidates
from nmt.attention import NONE
from nmt.data.sources import DataConfig
from nmt.evaluation.metrics import METRICS, MetricsConfig
from nmt.models import without_effect
from nmt.models.rnn import RNNConfig
from nmt.models.transformer_layers import TransformerDecoderConfig
from nmt.search import SearchConfig
from nmt.training.config import STOP_METRICS
from nmt.training.optim import OptimConfig
from nmt.training.trainer import TrainConfig


@dataclass
class Config:
    """Everything that `python -m nmt.train` can be told."""

    name: str | None = None
    """Run directory inside `runs`; None: made from the options given."""
    runs: str = "runs"
    seed: int = 1
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """Processor threads; 0: as many as torch chooses."""
    data: DataConfig = field(default_factory=DataConfig)
    model: Any = field(default_factory=RNNConfig)
    """The configuration of one of `MODELS`."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed (of this node, or of two of its parts together)."""
        _check_machine(self.device, self.threads)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or more")
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
        self._check_stop_metric()
        if self._num_attending():
            self._check_guided()
            self._check_reading()
        else:
            self._check_without_attention()

    def idle(self) -> list[str]:
        """Options that are set and change nothing, with their values."""
        found = without_effect(self.model) + self.train.idle()
        unread = self.data.alignment and not self.train.guided_alignment
        return found + ([f"data.alignment={self.data.alignment}"] if unread else [])

    def _num_attending(self) -> int:
        """Layers of the model that attend to the source."""
        model = self.model
        has_layers = isinstance(model, TransformerDecoderConfig)  # a recurrent decoder has one attention
        layers = range(model.decoder_layers if has_layers else 1)
        return sum(model.attention.layer(layer).score != NONE for layer in layers)

    def _check_stop_metric(self) -> None:
        metric, names = self.train.stop_metric, self.metrics.names
        if metric in METRICS and metric not in names:
            other = next((name for name in names if name in STOP_METRICS), "loss")
            raise ValueError(
                f"train.stop_metric={metric}: metrics.names=[{','.join(names)}] leaves it out; add it there, or let "
                f"another choose the best checkpoint, as train.stop_metric={other}"
            )

    def _check_without_attention(self) -> None:
        """Refuses what needs attention to the source."""
        wanted = {f"train.{option}": getattr(self.train, option) for option in ("coverage_loss", "guided_alignment")}
        wanted |= {"search.coverage_penalty": self.search.coverage_penalty}
        why = "needs a model with attention; set it to {0}, or choose a score other than model.attention.score=none"
        for option, value in wanted.items():
            if value:
                raise ValueError(f"{option}={value:g}: {why.format('0')}")
        if self.train.stop_metric == "aer":
            raise ValueError(f"train.stop_metric=aer: {why.format('bleu, chrf or loss')}")

    def _check_guided(self) -> None:
        model, train = self.model, self.train
        if not train.guided_alignment:
            return
        for what, there in (("layer", self._num_attending()), ("head", model.attention.heads)):
            if getattr(train, f"guided_{what}") > there:
                raise ValueError(
                    f"train.guided_{what}={getattr(train, f'guided_{what}')}: attention to the source has {there} "
                    f"{what}{'s' if there > 1 else ''}; give one of them, or 0 for the mean of all"
                )
        if train.guided_layer and isinstance(model, TransformerDecoderConfig) and model.layer_drop:
            raise ValueError(
                f"train.guided_layer={train.guided_layer}: model.layer_drop={model.layer_drop:g} leaves out layers of "
                "which it may be one; set either to 0"
            )

    def _check_reading(self) -> None:
        try:
            candidates(self.alignment, self._num_attending(), self.model.attention.heads)
        except ValueError as error:
            raise ValueError(f"{error}; give one of them, or auto") from None


@dataclass
class EvaluateConfig:
    """What `python -m nmt.evaluate` can be told; whatever is not given comes from the checkpoint."""

    checkpoint: Any = ""
    """A run directory (its best checkpoint) or a checkpoint file, or a list of them: an ensemble, whose alignments are
    those of its first model that has attention, and which needs `output`."""
    output: str | None = None
    """Folder for the report; None: see `report_folder`."""
    hypotheses: str | None = None
    """A file of translations of the test set, one on each line, to judge in the place of the model's own."""
    baselines: list[str] = field(default_factory=list)
    """Other systems to compare with: runs that were evaluated on the same test set, or files of their translations."""
    outside: list[str] = field(default_factory=list)
    """Scores that other programs gave to the translations, as NAME:FILE; see `nmt.evaluation.external_scores`."""
    data: DataConfig = field(default_factory=DataConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoints(self.checkpoint)
        _check_machine(self.device, self.threads)
        if isinstance(self.checkpoint, list) and len(self.checkpoint) > 1 and self.output is None:
            raise ValueError("output: must be given, as output=FOLDER: an ensemble's report belongs to no single run")
        if self.output == "":
            raise ValueError(
                "output=: the report needs a folder; leave the option out for the one in the run directory"
            )
        for item in self.outside:
            name, _, file = item.partition(":")
            if name in METRICS or not (name.isidentifier() and file):
                raise ValueError(
                    f"outside={item}: must be NAME:FILE, with a name that is no metric's of ours, as in comet:FILE"
                )


FORMATS = ("text", "jsonl")


@dataclass
class TranslateConfig:
    """What `python -m nmt.translate` can be told; whatever is not given comes from the checkpoint."""

    checkpoint: Any = ""
    """A run directory (its best checkpoint) or a checkpoint file, or a list of them: an ensemble."""
    format: str = "text"
    """text: the best translation of each line; jsonl: one JSON object for each line."""
    max_length: int = 0
    """Source tokens beyond which a line is translated in parts, cut at sentence marks; 0: data.max_length of training.
    Never more than the model can take."""
    search: SearchConfig = field(default_factory=SearchConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoints(self.checkpoint)
        if self.format not in FORMATS:
            raise ValueError(f"format={self.format}: must be one of {', '.join(FORMATS)}")
        if self.max_length < 0:
            raise ValueError(f"max_length={self.max_length}: must be 0 (as in training) or more")
        _check_machine(self.device, self.threads)


@dataclass
class AlignConfig:
    """What `python -m nmt.align` can be told; whatever is not given comes from the checkpoint."""

    checkpoint: str = ""
    """A run directory (its best checkpoint) or a checkpoint file."""
    source: str | None = None
    """Source text, one sentence on each line; with `target` None: the run's test set."""
    target: str | None = None
    """Its translation, line by line."""
    gold: str | None = None
    """Word alignments to compare with, one line for each pair: i-j sure, ipj possible."""
    reverse: str | None = None
    """A run or checkpoint of the other direction; its links are joined with those of `checkpoint`."""
    symmetrize: str = "grow-diag-final-and"
    """How: intersection, union, grow-diag, grow-diag-final or grow-diag-final-and."""
    output: str | None = None
    """Folder for the files; None: align-<source> in the run directory."""
    formats: list[str] = field(default_factory=lambda: ["pharaoh", "npz", "jsonl", "parquet"])
    """Kinds of files."""
    weights: bool = True
    """Write the attention of every layer and head where the format can (npz, parquet)."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        _check_machine(self.device, self.threads)
        if (self.source is None) != (self.target is None):
            given, missing = ("source", "target") if self.target is None else ("target", "source")
            raise ValueError(f"{missing}: must be given beside {given}, or neither, for the run's own test set")
        if self.gold is not None and self.source is None:
            raise ValueError("gold: needs source and target; the run's own test set brings its own")
        if self.output == "":
            raise ValueError("output=: the files need a folder; leave the option out for one in the run directory")
        if self.symmetrize not in METHODS:
            raise ValueError(f"symmetrize={self.symmetrize}: must be one of {', '.join(METHODS)}")
        if not self.formats:
            raise ValueError(f"formats=[]: name at least one of {', '.join(ALIGNMENT_FORMATS)}")
        for name in self.formats:
            if name not in ALIGNMENT_FORMATS:
                raise ValueError(f"formats={name}: must be one of {', '.join(ALIGNMENT_FORMATS)}")


EXPORTS = ("ctranslate2", "huggingface", "onnx")


@dataclass
class ExportConfig:
    """What `python -m nmt.export` can be told; how the exported model searches comes from the checkpoint."""

    checkpoint: str = ""
    """A run directory (its best checkpoint) or a checkpoint file."""
    format: str = ""
    """ctranslate2, huggingface or onnx; what each can carry is shown by --formats."""
    output: str = ""
    """Folder to be made; an earlier export there is replaced."""
    longest: int = 1024
    """Tokens of the longest sentence that ctranslate2 and huggingface can take: the rows of their table of sinusoids. A
    model with learned positions has a table of its own, and onnx has none."""
    search: SearchConfig = field(default_factory=SearchConfig)
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoint(self.checkpoint)
        _check_machine("cpu", self.threads)
        if self.format not in EXPORTS:
            raise ValueError(f"format={self.format}: must be one of {', '.join(EXPORTS)}; --formats tells them apart")
        if not self.output:
            raise ValueError("output=: must be given: output=FOLDER")
        if self.longest < 2:
            raise ValueError(f"longest={self.longest}: must be at least 2")


@dataclass
class ServeConfig:
    """What `python -m nmt.serve` can be told; whatever is not given comes from each checkpoint."""

    checkpoint: Any = ""
    """A run directory (its best checkpoint) or a checkpoint file, or a list of them, side by side."""
    host: str = "127.0.0.1"
    """Address to listen at. Any but this machine's own lets others in, who are not asked who they are."""
    port: int = 8000
    """0: a free one."""
    names: list[str] = field(default_factory=list)
    """Further names under which the server may be asked; its address, any other number and localhost always may."""
    max_bytes: int = 262_144
    """Bytes of a request at most."""
    max_lines: int = 50
    """Sentences of a request at most."""
    max_characters: int = 2000
    """Characters of a sentence at most."""
    max_beam: int = 20
    """Hypotheses kept at every step, and translations of each sentence, at most."""
    max_weights: int = 500_000
    """Numbers in one answer about attention at most."""
    max_seconds: float = 30.0
    """Seconds from a request to its answer at most; as long as a client may take to send or to receive."""
    max_waiting: int = 16
    """Requests that wait while one is worked on, at most."""
    max_length: int = 0
    """As for `TranslateConfig`."""
    search: SearchConfig = field(default_factory=SearchConfig)
    device: str = "auto"
    threads: int = 0

    def validate(self) -> None:
        """Raise ValueError for a value that is not allowed."""
        _check_checkpoints(self.checkpoint)
        if not self.host:
            raise ValueError("host=: an address is needed, such as host=127.0.0.1")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port={self.port}: must be 0 (a free one) to 65535")
        for option in ("bytes", "lines", "characters", "beam", "weights"):
            if getattr(self, f"max_{option}") < 1:
                raise ValueError(f"max_{option}={getattr(self, f'max_{option}')}: must be at least 1")
        if not 0 < self.max_seconds < math.inf:
            raise ValueError(f"max_seconds={self.max_seconds}: must be a number above 0")
        for option in ("waiting", "length"):
            if getattr(self, f"max_{option}") < 0:
                raise ValueError(f"max_{option}={getattr(self, f'max_{option}')}: must be 0 or more")
        _check_machine(self.device, self.threads)


def _check_checkpoints(named: object) -> None:
    for checkpoint in (named or [""]) if isinstance(named, list) else [named]:
        _check_checkpoint(checkpoint)


def _check_checkpoint(checkpoint: object) -> None:
    if not isinstance(checkpoint, str) or not checkpoint:
        raise ValueError("checkpoint: must be given: checkpoint=runs/NAME or checkpoint=FILE.pt")


def _check_machine(device: str, threads: int) -> None:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ValueError(f"device={device}: must be auto, cpu, cuda or cuda:N")
    if threads < 0:
        raise ValueError(f"threads={threads}: must be 0 (torch's own choice) or more")
