"""The device of a `gpu_day`, its clock, and the models, batches and updates that its parts share."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nmt.attention import SCORES, AttentionConfig
from nmt.data import Batch, BatchLoader, collate
from nmt.models import MODELS, Seq2Seq, build_model
from nmt.training.optim import OptimConfig
from nmt.training.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
RECURRENT: tuple[dict[str, str], ...] = (
    {"architecture": "rnn", "decoder": "luong", "cell": "lstm"},
    {"architecture": "rnn", "decoder": "input_feeding", "cell": "gru"},
    {"architecture": "rnn", "decoder": "bahdanau", "cell": "lstm"},
)
TRANSFORMER = {"architecture": "transformer"}

Named = list[tuple[str, Callable[[], Any]]]
"""Cases of a part, with their names."""


@dataclass
class Day:
    """The device, the size and the time limit of what is measured.

    device: compared with the CPU.
    tiny: small models and few repetitions, to try the program.
    pretended: the device is that of tests/gpu: right or wrong can be found, not its speed.
    end: of the part that runs, in seconds of time.monotonic.
    failed: what was found to be wrong.
    """

    device: torch.device
    tiny: bool
    pretended: bool
    end: float = float("inf")
    failed: list[str] = field(default_factory=list)

    @property
    def is_gpu(self) -> bool:
        """Return whether the device is a real GPU."""
        return self.device.type == "cuda" and not self.pretended

    def left(self) -> float:
        """Return the seconds that are left to the part."""
        return self.end - time.monotonic()

    def check(self, is_right: bool, message: str) -> None:
        """Note what is wrong, and go on."""
        if not is_right:
            self.failed.append(message)

    def each(self, cases: Named, *, right: bool, seconds: float = 0.0) -> dict[str, Any]:
        """Return what each of the cases finds; one that raises is told, and wrong where `right` is asked for.

        Cases for which less than `seconds` are left are told as left out.
        """
        found: dict[str, Any] = {}
        for name, case in cases:
            if self.left() < seconds:
                found[name] = "left out: no time"
                continue
            try:
                found[name] = case()
            except TimeoutError:
                raise
            except Exception as error:
                found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                self.check(not right, f"{name}: {found[name]}")
        return found

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, function: Callable[[], Any], repeats: int = 10, calls: int = 5) -> float:
        """Return the median time of a call, of a few measurements of several calls in a row."""
        times = []
        for _ in range(2 if self.tiny else repeats + 1):
            begin = time.perf_counter()
            for _ in range(1 if self.tiny else calls):
                function()
            self.wait()
            times.append(1000 * (time.perf_counter() - begin) / (1 if self.tiny else calls))
        return round(sorted(times[1:])[len(times[1:]) // 2], 4)  # the first one prepares


def config(architecture: str, **changes: Any) -> Any:
    """Return the configuration of a small model; options that the architecture does not have are left out."""
    kind = MODELS[architecture].config
    names = {f.name for f in dataclasses.fields(kind)}
    small = {"embedding_dim": 32, "hidden_size": 32, "d_model": 32, "ffn_dim": 48, "dropout": 0.0}
    made = kind(**{name: value for name, value in {**small, **changes}.items() if name in names})
    made.validate()
    return made


def attentions(score: str, **options: Any) -> dict[str, AttentionConfig]:
    """Return one attention for all places of a model, with a window only where it can be."""
    cross = AttentionConfig(score=score, heads=2, dim=32, max_positions=8, window_size=3, top_k=3, **options)
    window = "global" if cross.window == "global" else "sliding"
    inner = dataclasses.replace(cross, window=window, coverage=False)
    return {"attention": cross, "encoder_self_attention": inner, "decoder_self_attention": inner}


def cases() -> Iterator[tuple[str, Any]]:
    """Yield every score in every architecture, and normalizers, windows and the rest in some."""
    hybrids = {"architecture": "rnn_transformer", "cell": "gru"}, {"architecture": "transformer_rnn", "cell": "lstm"}
    for how in (*RECURRENT, TRANSFORMER, *hybrids):
        for score in SCORES:
            yield f"{' '.join(how.values())} {score}", config(**how, **attentions(score))
    for how in (RECURRENT[0], TRANSFORMER):
        for score in ("scaled", "additive"):
            for normalizer in ("sparsemax", "entmax15", "top_k"):
                yield (
                    f"{' '.join(how.values())} {score} {normalizer}",
                    config(**how, **attentions(score, normalizer=normalizer)),
                )
            for window in ("local_m", "local_p"):
                yield f"{' '.join(how.values())} {score} {window}", config(**how, **attentions(score, window=window))
    for how in (RECURRENT[2], TRANSFORMER):
        yield f"{' '.join(how.values())} coverage", config(**how, **attentions("additive", coverage=True))
    yield "transformer rotary swiglu rms", config(**TRANSFORMER, positions="rotary", activation="swiglu", norm="rms")
    yield "transformer learned post", config(**TRANSFORMER, positions="learned", norm_position="post")


def model(configuration: Any, size: int, *, seed: int = 0, scale: float = 1.0) -> Seq2Seq:
    """Return a model on the CPU, the same for the same arguments."""
    torch.manual_seed(seed)
    made = build_model(configuration, size, size, joint=True)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(scale)
    return made


def sentences(lengths: Sequence[int], size: int, seed: int = 0) -> list[list[int]]:
    """Return sentences of random ids."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, size, (length,), generator=generator).tolist() for length in lengths]


def reversal(seed: int, size: int = 200, rows: int = 64) -> Batch:
    """Return sentences with themselves backwards as their translations."""
    generator = torch.Generator().manual_seed(seed)
    sources = sentences(torch.randint(3, 12, (rows,), generator=generator).tolist(), size, seed)
    return collate(sources, [source[::-1] for source in sources])


def pinned(batch: Batch, device: torch.device) -> Batch:
    """Return a batch as `BatchLoader` makes it for a device."""
    return Batch(*(tensor.pin_memory() for tensor in batch[:5]), *batch[5:]) if device.type == "cuda" else batch


def trainer(made: Seq2Seq, device: torch.device, optim: OptimConfig | None = None, **options: Any) -> Trainer:
    """Return the trainer of a model, for its method `step` alone: it has no data and writes nothing."""
    made = made.to(device).train()
    return Trainer(
        made,
        cast(BatchLoader, None),
        None,
        TrainConfig(max_updates=10000, **options),
        optim or OptimConfig(learning_rate=2e-3, schedule="constant", warmup_updates=10),
        seed=1,
        device=device,
        directory=Path("never-written"),
        header={},
    )


def distance(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """Return the norm of the difference of two lists of tensors, relative to that of the second."""
    pairs = [(f.detach().cpu().double(), e.detach().cpu().double()) for f, e in zip(found, expected, strict=True)
             if f is not None and e is not None]  # fmt: skip
    difference = sum(float((f - e).square().sum()) for f, e in pairs) ** 0.5
    return difference / max(sum(float(e.square().sum()) for _, e in pairs) ** 0.5, 1e-30)
