"""The options of training."""

import math
from dataclasses import dataclass
from typing import Any

from nmt.config import check_choice, check_range
from nmt.runtime.device import PRECISIONS
from nmt.training.checkpointing import CheckpointConfig
from nmt.training.divergence import DivergenceConfig
from nmt.training.objective import LossConfig

EARLY_STOPPING_METRICS = {"bleu": 1, "chrf": 1, "loss": -1, "aer": -1}
"""Metrics that may select the best checkpoint: 1 = higher is better."""

AUTO = "auto"


@dataclass
class TrainConfig(LossConfig, CheckpointConfig, DivergenceConfig):
    """Options of training: its length and batches, the loss, checkpoints, and the guard against divergence.

    max_updates: end after this many updates (0 = no limit, where another one or `patience` ends the run). Whichever
        limit comes first ends a run.
    max_epochs: end after this many passes over the training pairs (0 = no limit). A schedule with an end, as cosine,
        lasts as long as `max_updates` and `max_epochs` let the run last.
    max_minutes: end after this many minutes (0 = no limit), counting all sessions of a run that was interrupted and
        continued.
    batch_tokens: most tokens of a batch on its longer side, padding included, over all devices together; auto = the
        largest that the devices hold, measured once for a run.
    devices: processes that share every batch, each on its own device; they change the speed and nothing else.
    gradient_accumulation: batches per update.
    ema_decay: decay per update of a moving average of the weights, such as 0.999, for validation and best.pt; 0 = off.
    precision: of the computation: fp32; tf32 (GPUs: fp32 with coarser products); bf16; fp16 (GPUs without bf16, as T4
        and V100: the loss is scaled so that gradients stay in range); auto = bf16 where it is faster, else fp32. With
        bf16 and fp16, what has to stay in fp32 uses TF32 on a GPU.
    compile: run layers, and the loop of a recurrent decoder, through torch.compile: for GPUs; on a CPU it takes a
        minute or two and a C++ compiler, and gains nothing. The log says when graphs were compiled.
    deterministic: let torch and its libraries use deterministic algorithms only, so that a GPU repeats a run bit for
        bit, as a CPU does without it; slower, and more memory.
    log_every: updates between log lines.
    valid_every: updates between validations; a run also ends with one.
    save_every: updates between checkpoints; a run also ends with one.
    valid_bleu_sentences: translate only the first sentences of the validation set for BLEU; 0 = all. As long as nearly
        no translation ends by itself, up to 64 of them are translated and scored, which the log says.
    early_stopping_metric: selects the best checkpoint: bleu, chrf, loss or aer (where gold exists). Between equal
        scores the lower loss decides; BLEU below 1 counts as 0.
    early_stopping_set: name of the validation set in `data.valid` that selects the best checkpoint; null = the first.
    patience: end after this many validations without a better one; 0 = never.
    """

    max_updates: int = 2500
    max_epochs: int = 0
    max_minutes: float = 0.0
    batch_tokens: Any = 1536
    devices: int = 1
    gradient_accumulation: int = 1
    ema_decay: float = 0.0
    precision: str = "auto"
    compile: bool = False
    deterministic: bool = False
    log_every: int = 100
    valid_every: int = 500
    save_every: int = 500
    valid_bleu_sentences: int = 0
    early_stopping_metric: str = "bleu"
    early_stopping_set: str | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        # From the command line it is text: OmegaConf has no type for a number or a word.
        if isinstance(self.batch_tokens, str) and self.batch_tokens.strip().isdecimal():
            self.batch_tokens = int(self.batch_tokens)

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        CheckpointConfig.validate(self)
        self.validate_divergence()
        if self.batch_tokens != AUTO and (type(self.batch_tokens) is not int or self.batch_tokens < 1):
            raise ValueError(f"train.batch_tokens={self.batch_tokens}: must be a whole number of at least 1, or {AUTO}")
        counts = ["devices", "gradient_accumulation", "log_every", "valid_every", "save_every"]
        check_range("train", self, counts, minimum=1)
        counts = ["max_updates", "max_epochs", "valid_bleu_sentences", "patience", "guided_layer", "guided_head"]
        check_range("train", self, counts, minimum=0)
        if not (self.max_updates or self.max_epochs or self.max_minutes or self.patience):
            ends = "train.max_epochs, train.max_minutes or train.patience"
            raise ValueError(f"train.max_updates=0: must be at least 1, unless {ends} ends the run")
        weights = ["coverage_loss_weight", "r_drop_alpha", "guided_alignment_weight"]
        check_range("train", self, ["max_minutes", *weights], minimum=0, below=math.inf)
        rates = ["ema_decay", "label_smoothing", "word_dropout", "target_word_dropout"]
        check_range("train", self, rates, minimum=0, below=1)
        check_choice("train", self, "precision", PRECISIONS)
        check_choice("train", self, "early_stopping_metric", EARLY_STOPPING_METRICS)
