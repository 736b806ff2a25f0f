"""Begin a run with the weights and the vocabulary of a trained model, and choose which parts learn, and how fast."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nmt import checkpoint
from nmt.attention import AttentionLayer
from nmt.attention.dropout import ByteMaskDropout
from nmt.config import check_choice, suggest
from nmt.data import Tokenizer
from nmt.data.vocabulary import SPECIAL_TOKENS, TokenizerModel
from nmt.models import Seq2Seq

VOCABULARY_TENSORS = {
    "source_embedding.weight": "source",
    "target_embedding.weight": "target",
    "output.weight": "target",
    "output.bias": "target",
}
"""Tensors with a row for each entry of a vocabulary, and the side whose vocabulary it is."""


@dataclass
class InitConfig:
    """The start of a run: random weights, or those of a trained model, its parent.

    Optimizer, schedule, best score, patience and the order of the data are those of a new run in any case. Once the run
    has a checkpoint of its own it goes on from there, and its parent is not read any more.

    checkpoint: the parent: a run directory or a checkpoint file. Its vocabulary is the run's too (see `vocabulary`),
        its model's options are not (config=RUN takes these over).
    modules: parts that are taken from the parent, a list such as [encoder,embeddings]: encoder, decoder, embeddings,
        output, attention (all attentions), or the path of a module or parameter; []: all.
    on_mismatch: when a tensor is missing in the parent or has another shape there: error, or skip = it stays as it is
        initialized, such as what belongs to another score or has another width.
    vocabulary: keep = the parent's tokenizer, tags too; map = a new one, by data.tokenizer and the training text: a
        piece that both have keeps its rows, a new piece gets the mean of the parent's pieces that spell it, a new tag
        that of all.
    """

    checkpoint: str | None = None
    modules: list[str] = field(default_factory=list)
    on_mismatch: str = "error"
    vocabulary: str = "keep"

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("init", self, "on_mismatch", ("error", "skip"))
        check_choice("init", self, "vocabulary", ("keep", "map"))
        given = [name for name, value in dataclasses.asdict(self).items() if value != getattr(InitConfig(), name)]
        if self.checkpoint is None and given:
            value = getattr(self, given[0])
            raise ValueError(f"init.{given[0]}={value}: needs a parent; name one with init.checkpoint=RUN")


class Parent(NamedTuple):
    """A trained model from which a run begins."""

    path: Path
    content: dict[str, Any]
    tokenizer: Tokenizer

    @classmethod
    def load(cls, name: str) -> "Parent":
        """Read the parent that `init.checkpoint` names; raise ValueError, naming the option."""
        try:
            path = checkpoint.resolve(name)
            content = checkpoint.load(path)
            with checkpoint.interpreting(content):
                return cls(path, content, Tokenizer.from_state_dict(content["tokenizer"]))
        except (ValueError, OSError) as error:
            reason = str(error).removeprefix(f"checkpoint={name}: ")
            raise ValueError(f"init.checkpoint={name}: {reason}") from error

    def describe(self) -> dict[str, str]:
        """Return what identifies the parent, for checkpoints and reports."""
        digest = checkpoint.state_digest(self.content["model"])
        return {"checkpoint": str(self.path), "model": digest, "vocabulary": self.tokenizer.digest}


def parameter_names(model: nn.Module, name: str, option: str) -> set[str]:
    """Return the names of the state that belong to a part of a model, such as "encoder" or "attention".

    Raises:
        ValueError: the model has no such part; the nearest is named.
    """
    groups: dict[str, list[str]] = {
        "embeddings": ["source_embedding", "target_embedding"],
        "attention": [path for path, module in model.named_modules() if isinstance(module, AttentionLayer)],
    }
    state = list(model.state_dict())
    found = {key for path in groups.get(name, [name]) for key in state if key == path or key.startswith(f"{path}.")}
    if not found:
        paths = [*groups, *(path for path, _ in model.named_modules() if path), *state]
        similar = suggest(name, paths)
        hint = (
            f"did you mean {similar}?" if similar else f"it has {', '.join([*groups, *dict(model.named_children())])}"
        )
        raise ValueError(f"{option}={name}: the model has no such part; {hint}")
    return found


class VocabularyMap(NamedTuple):
    """The entries of an old vocabulary behind each of a new one; see `map_vocabulary`.

    pieces: for each entry the old entries whose mean it becomes, none for those that stay as they are.
    """

    pieces: list[list[int]]

    @property
    def counts(self) -> tuple[int, int, int]:
        """The number of entries that are copied, averaged and left as they are."""
        lengths = [len(piece) for piece in self.pieces]
        return sum(n == 1 for n in lengths), sum(n > 1 for n in lengths), sum(n == 0 for n in lengths)

    def rows(self, old: Tensor, initial: Tensor) -> Tensor:
        """Return the tensor of the new vocabulary, (V, …), from that of the old one and its own initial values."""
        result = initial.clone()
        for index, piece in enumerate(self.pieces):
            if piece:
                result[index] = old[piece[0]] if len(piece) == 1 else old[piece].double().mean(0).to(old.dtype)
        return result


def map_vocabulary(old: TokenizerModel, new: TokenizerModel) -> VocabularyMap:
    """Map every entry of `new` to the same entry of `old`, or to the fewest of `old` that spell it; a tag that `old`
    does not have to all of its text, so that the model begins with no preference for it or against it."""
    old_tags, tags = (getattr(model, "tags", ()) for model in (old, new))
    old, new = (getattr(model, "base", model) for model in (old, new))
    keys = [
        [(model.surfaces[i], model.subword(i).startswith("<0x")) for i in range(model.size)] for model in (old, new)
    ]
    same = {key: index for index, key in reversed(list(enumerate(keys[0]))) if index >= len(SPECIAL_TOKENS)}
    spelled = {surface: index for (surface, _), index in same.items() if surface}
    longest = max(map(len, spelled), default=0)
    pieces: list[list[int]] = [[index] for index in range(len(SPECIAL_TOKENS))]
    for surface, is_byte in keys[1][len(SPECIAL_TOKENS) :]:
        index = same.get((surface, is_byte))
        pieces.append([index] if index is not None else _spell(surface or b"", spelled, longest))
    text = list(range(len(SPECIAL_TOKENS), old.size))
    pieces += [[old.size + old_tags.index(tag)] if tag in old_tags else text for tag in tags]
    return VocabularyMap(pieces)


def _spell(surface: bytes, pieces: Mapping[bytes, int], longest: int) -> list[int]:
    """Return the fewest pieces that together are `surface`, the longer first where as many do; [] for none."""
    best: list[list[int] | None] = [[], *[None] * len(surface)]
    for end in range(1, len(surface) + 1):
        for start in range(max(0, end - longest), end):
            before, index = best[start], pieces.get(surface[start:end])
            if (
                before is not None
                and index is not None
                and (best[end] is None or len(before) + 1 < len(best[end] or []))
            ):
                best[end] = [*before, index]
    return best[-1] or []


def warm_start(model: Seq2Seq, parent: Parent, config: InitConfig, tokenizer: Tokenizer) -> tuple[set[str], list[str]]:
    """Load the parent's weights into a new model; return the names of the tensors that were loaded, and notes.

    Raises:
        ValueError: a part has no counterpart in the model, a tensor does not fit and `on_mismatch` is error, or nothing
            at all fits.
    """
    own, stored, notes = model.state_dict(), dict(parent.content["model"]), []
    wanted = set(own)
    if config.modules:
        wanted = set().union(*(parameter_names(model, name, "init.modules") for name in config.modules))
    if config.vocabulary == "map":
        maps = {
            side: map_vocabulary(getattr(parent.tokenizer, side), getattr(tokenizer, side))
            for side in ("source", "target")
        }
        for name, side in VOCABULARY_TENSORS.items():
            if name in wanted and name in stored and name in own and stored[name].shape[1:] == own[name].shape[1:]:
                stored[name] = maps[side].rows(stored[name], own[name].cpu())
        if added := [tag for tag in tokenizer.tags if tag not in parent.tokenizer.tags]:
            notes.append(f"init.vocabulary=map: new tags begin as the mean of all text pieces: {', '.join(added)}")
        for side in ("vocabulary",) if tokenizer.joint else ("source", "target"):
            counts = maps["source" if side == "vocabulary" else side].counts
            notes.append(
                f"init.vocabulary=map: {side}: {counts[0]} pieces copied, {counts[1]} averaged, {counts[2]} drawn"
            )
    misfits = {name: _misfit(name, own[name], stored.get(name)) for name in sorted(wanted)}
    misfits |= {name: why for name in sorted(wanted) if (why := _tie_conflict(name, own, stored)) and not misfits[name]}
    unused = [] if config.modules else sorted(stored.keys() - own.keys())
    problems = [f"{name} {why}" for name, why in misfits.items() if why] + [
        f"{name} is not in this model" for name in unused
    ]
    if problems and config.on_mismatch == "error":
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ValueError(
            f"init.checkpoint={parent.path}: {problems[0]}{more}: take over the parent's model with config=RUN, choose "
            "parts with init.modules=[encoder,…], or leave what does not fit as initialized: init.on_mismatch=skip"
        )
    loaded = {name for name, why in misfits.items() if not why}
    if not loaded:
        raise ValueError(f"init.checkpoint={parent.path}: nothing of it fits this model ({problems[0]})")
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(stored[name])
    if problems:
        some = "; ".join(problems[:3]) + ("; …" if len(problems) > 3 else "")
        notes.append(f"init.on_mismatch=skip: {len(problems)} tensors were not taken ({some})")
    return loaded, notes


def _misfit(name: str, own: Tensor, stored: Any) -> str:
    if not isinstance(stored, Tensor):
        return "is missing there"
    if stored.shape != own.shape:
        return f"has shape {[*stored.shape]} there and {[*own.shape]} here"
    return "" if stored.is_floating_point() and stored.isfinite().all() else "does not hold finite numbers there"


def _tie_conflict(name: str, own: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str:
    """Return why a tensor that is tied to an earlier one here cannot be loaded, or ""."""
    first = next(other for other in own if own[other].data_ptr() == own[name].data_ptr())
    if first == name or first not in stored or name not in stored or torch.equal(stored[first], stored[name]):
        return ""
    return f"is another matrix than {first} there, and the same here (model.tie_embeddings)"


def set_learning(model: nn.Module, scales: Mapping[str, float]) -> dict[str, float]:
    """Freeze the parts of a model whose learning rate has the factor 0; return the factor of every other parameter.

    A part that is frozen as a whole drops nothing in training either: it gives what it gives in translation. Where two
    parts overlap, the factor of the smaller one counts.

    Args:
        scales: factors by part, see `parameter_names`; tied matrices are one parameter.

    Raises:
        ValueError: there is no such part, or nothing is left to be trained.
    """
    factors: dict[int, tuple[int, float]] = {}
    own = dict(model.named_parameters(remove_duplicate=False))
    for part, scale in scales.items():
        names = parameter_names(model, part, "optim.lr_scales") & own.keys()
        for name in names:
            known = factors.get(id(own[name]))
            if known is None or len(names) <= known[0]:
                factors[id(own[name])] = len(names), scale
    result = {}
    for name, parameter in model.named_parameters():
        _, scale = factors.get(id(parameter), (0, 1.0))
        parameter.requires_grad_(scale > 0)
        if scale:
            result[name] = scale
    if not result:
        raise ValueError(f"optim.lr_scales={dict(scales)}: every parameter is frozen, there is nothing to train")
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            for inner in module.modules():
                if isinstance(inner, ByteMaskDropout):
                    inner.rate, inner.num_dropped = 0.0, 0
                elif hasattr(inner, "layer_drop"):
                    inner.layer_drop = 0.0  # type: ignore[assignment]
    return result


def check_scales(scales: Mapping[str, Any]) -> None:
    """Raise ValueError unless every factor of `optim.lr_scales` is a number of at least 0."""
    for part, scale in scales.items():
        is_number = isinstance(scale, int | float) and not isinstance(scale, bool) and math.isfinite(scale)
        if not is_number or scale < 0:
            raise ValueError(f"optim.lr_scales.{part}={scale}: must be a number of at least 0; 0 freezes that part")


def parts_table(model: nn.Module, loaded: Collection[str]) -> list[str]:
    """Return lines that say for each part of a model how many parameters were loaded, initialized and frozen."""
    rows: dict[str, list[int]] = {}
    for part in dict(model.named_children()):
        numbers = [0, 0, 0]
        for name, parameter in model.named_parameters():
            if name.startswith(f"{part}."):
                numbers[0 if name in loaded else 1] += parameter.numel()
                numbers[2] += 0 if parameter.requires_grad else parameter.numel()
        if any(numbers):
            rows[part] = numbers
    words = ("loaded", "initialized", "frozen")
    return [
        f"{part}: " + ", ".join(f"{n:,} parameters {word}" for n, word in zip(row, words, strict=True) if n)
        for part, row in rows.items()
    ]


def run_fingerprints(content: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return for the report the files that a run was made of, [name, SHA-256] each: texts, plugins and its parent."""
    parent = content.get("parent")
    own = {} if parent is None else {"init.checkpoint": [[parent["checkpoint"], parent["model"]]]}
    return {**content.get("texts", {}), "plugins": content.get("plugins", []), **own}
