"""The training corpora of a run, the directions that it learns, and the tags that tell a model which is meant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

from nmt.config import check_choice, check_range, coerce, describe_type, suggest
from nmt.data.tags import TERM_TAGS

if TYPE_CHECKING:
    from nmt.data.config import DataConfig
    from nmt.data.tokenizer import Tokenizer

TAG_PLACES = ("none", "source", "decoder")
Direction = tuple[str, str]  # source and target language


OWN_OPTIONS = (
    *("format", "source_lang", "target_lang", "hf_dataset", "hf_config", "column", "columns"),
    *("max_length", "max_length_ratio", "max_pairs", "train_alignments"),
)
"""Options of `data` that an entry of `data.corpora` may have of its own, beside its path, weight and tag."""


class Corpus(NamedTuple):
    """One corpus in one direction.

    name: that of its entry; of an entry in several directions "NAME/en-de"; of `data.languages` alone "en-de".
    config: with its text as `train`, its languages and its options.
    """

    name: str
    entry: str
    config: DataConfig
    weight: float | None
    tag: str | None

    @property
    def direction(self) -> Direction:
        return self.config.source_lang, self.config.target_lang


def training_corpora(config: DataConfig) -> list[Corpus]:
    """Return the corpora of `data.corpora` and `data.languages`, in order; [] where `data.train` is all there is.

    Raises:
        ValueError: an entry has an unknown option, or a value that is not allowed.
    """
    if not (config.corpora or config.languages):
        return []
    corpora = []
    for name, values in (config.corpora or {"": {}}).items():
        entry = {"path": config.train} | _parse_entry(config, name, values)
        weight, tag = entry.pop("weight", None), entry.pop("tag", None)
        if entry.get("format", config.format) != config.format:
            entry = {"column": type(config)().column, "columns": type(config)().columns} | entry
        own = not config.languages or "source_lang" in entry or "target_lang" in entry
        mine = [(entry.pop("source_lang", config.source_lang), entry.pop("target_lang", config.target_lang))]
        directions = mine if own else [d for d in permutations(config.languages, 2) if join(d) not in config.zero_shot]
        options = {"train": entry.pop("path"), **entry}
        for direction in directions:
            full_name = "/".join(filter(None, [name, "" if own else join(direction)]))
            corpora.append(Corpus(full_name, name, replace(of_direction(config, direction), **options), weight, tag))
    return corpora


def vocabulary_corpora(config: DataConfig) -> list[Corpus]:
    """Return the corpora that a tokenizer is trained on: those with a text that none before has, on the same side where
    the languages have vocabularies of their own."""
    seen, chosen = set[Any](), []
    for part in training_corpora(config):
        sides = enumerate(part.direction)
        texts = {(str(part.config.train), lang, part.tag, config.tokenizer.joint or side) for side, lang in sides}
        chosen += [part] if texts - seen else []
        seen |= texts
    return chosen


def join(direction: Direction) -> str:
    """Return the name of a direction, such as en-de."""
    return "-".join(direction)


def directions(config: DataConfig) -> list[Direction]:
    """Return the directions that a model translates: those of its corpora, then those of `data.zero_shot`."""
    found = dict.fromkeys(corpus.direction for corpus in training_corpora(config))
    pairs = {join(pair): pair for pair in permutations(config.languages, 2)}
    found |= dict.fromkeys(pairs[name] for name in config.zero_shot if name in pairs)
    return list(found) or [(config.source_lang, config.target_lang)]


def describe_directions(config: DataConfig) -> str:
    """Return a model's languages and directions for a reader, such as "en → de" or "en, de, fr: 6 directions"."""
    if len(pairs := directions(config)) == 1:
        return f"{pairs[0][0]} → {pairs[0][1]}"
    names = dict.fromkeys([*config.languages, *(language for pair in pairs for language in pair)])
    return f"{', '.join(names)}: {len(pairs)} directions"


def default_direction(config: DataConfig) -> Direction:
    """Return the direction of `data.source_lang` and `data.target_lang` where the model has it, else its first."""
    own = config.source_lang, config.target_lang
    return own if own in (known := directions(config)) else known[0]


def of_direction(config: DataConfig, direction: Direction) -> DataConfig:
    """Return the options of one direction of a model with several."""
    values: dict[str, Any] = {"corpora": {}, "languages": [], "zero_shot": [], "stages": [], "temperature": 1.0}
    return replace(config, source_lang=direction[0], target_lang=direction[1], **values)


def of_split(config: DataConfig, split: str) -> tuple[DataConfig, str]:
    """Return the options and the rest of a split's name of which a direction is the end, as in "test@en-de"."""
    name, at, end = split.rpartition("@")
    pair = {join(pair): pair for pair in directions(config)}.get(end) if at else None
    return (config, split) if pair is None else (of_direction(config, pair), name)


def tag_names(config: DataConfig) -> list[str]:
    """Return all tags: one for each target language, if there are several, then those of the corpora."""
    if config.tags == "none":
        return []
    languages = dict.fromkeys([target for _, target in directions(config)])
    names = [language_tag(language) for language in languages] if len(languages) > 1 else []
    return [*dict.fromkeys(names + [f"<{tag}>" for tag in corpus_tags(config)])]


def reserved_names(config: DataConfig) -> list[str]:
    """Return the names of all ids behind the vocabulary: the tags, then those that annotate terms."""
    return [*tag_names(config), *TERM_TAGS[: 3 * bool(config.augment.terms)]]


def corpus_tags(config: DataConfig) -> list[str]:
    """Return the values of `tag` of the corpora."""
    tags = (corpus.tag for corpus in training_corpora(config) if corpus.tag)
    return [] if config.tags == "none" else list(dict.fromkeys(tags))


def language_tag(language: str) -> str:
    """Return the tag of a target language, <2de> (Johnson et al. 2017, section 3)."""
    return f"<2{language}>"


def tokenizer_for(config: DataConfig, tokenizer: Tokenizer, target_lang: str, tag: str | None = None) -> Tokenizer:
    """Return a model's tokenizer with the tag of a target language, then that of a corpus, where `data.tags` has them.

    Raises:
        ValueError: the model has no such tag.
    """
    if tag and tag not in (known := corpus_tags(config)):
        raise ValueError(f"tag={tag}: " + (f"must be one of {', '.join(known)}" if known else "there are no tags"))
    if not tokenizer.tags:
        return tokenizer
    names = [language_tag(target_lang), *([f"<{tag}>"] if tag else [])]
    tags = [name for name in names if name in tokenizer.tags and config.tags != "none"]
    return tokenizer.tagged(target=tags) if config.tags == "decoder" else tokenizer.tagged(source=tags)


class StageOptions(NamedTuple):
    """One stage of `data.stages`: weights by corpus; until `passes` passes through the corpus `of`, or `updates`, or
    without either to the end of the run."""

    mix: dict[str, float]
    passes: float = 0.0
    of: str = ""
    updates: int = 0


def parse_stages(config: DataConfig) -> list[StageOptions]:
    """Return the stages of `data.stages`.

    Raises:
        ValueError: one names an unknown corpus, has no weight above 0, ends never or not as it is last.
    """
    parts, stages = training_corpora(config), []
    known = dict.fromkeys(name for part in parts for name in (part.name, part.entry) if name)
    for number, stage in enumerate(config.stages, start=1):
        where = f"data.stages: stage {number}"
        if not (isinstance(stage, Mapping) and isinstance(stage.get("mix"), Mapping) and {*stage} <= {"mix", "until"}):
            raise ValueError(f"{where}: {stage}: must be {{mix: {{NAME: WEIGHT}}, until: 2 epochs of NAME}}")
        mix = {str(name): weight for name, weight in stage["mix"].items()}
        for name in mix:
            if name not in known:
                nearest = suggest(name, known)
                names = f"did you mean {nearest}?" if nearest else f"there is {', '.join(known)}"
                raise ValueError(f"{where}: no corpus of data.corpora is named {name}; {names}")
        if not all(isinstance(w, int | float) and 0 <= w < math.inf for w in mix.values()) or not any(mix.values()):
            raise ValueError(f"{where}: mix={mix}: weights must be numbers, none below 0 and one above")
        until, is_last = stage.get("until"), number == len(config.stages)
        if (until is None) != is_last:
            reason = "is the last, which lasts until train.max_updates or patience end the run; leave until out"
            raise ValueError(f"{where}: {reason if is_last else 'never ends; add until: 2 epochs of NAME'}")
        match = re.fullmatch(r"(\d+(?:\.\d+)?) epochs? of (\S+)|(\d+) updates?", str(until or "1 update"))
        if match is None or not float(match[1] or match[3]) or (match[2] and not mix.get(match[2])):
            form = f'"2 epochs of {next(iter(mix))}", of a corpus of this stage, or "5000 updates"'
            raise ValueError(f"{where}: until={until}: must be {form}")
        end = (float(match[1] or 0), match[2] or "", int(match[3] or 0)) if until else ()
        stages.append(StageOptions(mix, *end))
    return stages


def validate_corpora(config: DataConfig) -> None:
    """Raise ValueError for corpora, languages, directions or tags that are not allowed, naming the option."""
    check_choice("data", config, "tags", TAG_PLACES)
    check_range("data", config, ["temperature"], above=0)
    if len(set(config.languages)) != len(config.languages) or len(config.languages) == 1 or "" in config.languages:
        raise ValueError(f"data.languages=[{','.join(config.languages)}]: must be two or more different languages")
    if config.corpora and config.train:
        raise ValueError(f"data.train={config.train}: has no effect beside data.corpora; give one of the two")
    corpora = training_corpora(config)
    known = [join(direction) for direction in permutations(config.languages, 2)]
    for name in config.zero_shot:
        if name not in known:
            such = f", such as {known[0]}" if known else ", which has none"
            raise ValueError(f"data.zero_shot: {name}: must be a direction of data.languages{such}")
    ends = sorted({target for _, target in directions(config)})
    if config.tags == "none" and len({source for source, _ in directions(config)}) < len(directions(config)):
        text = "only a tag tells the model which is wanted; set data.tags=source or decoder"
        raise ValueError(f"data.tags=none: the targets are in {', '.join(ends)}, and {text}")
    if config.languages and not corpora:
        raise ValueError(f"data.zero_shot=[{','.join(config.zero_shot)}]: leaves no direction to train")
    given = [part.weight for part in corpora if part.weight is not None]
    if corpora and not any(1 if part.weight is None else part.weight for part in corpora):
        raise ValueError("data.corpora: all weights are 0; give at least one corpus a share")
    if given and config.temperature != 1:
        raise ValueError(f"data.temperature={config.temperature:g}: the corpora have weights; give one of the two")
    for part in corpora:
        if f"<{part.tag}>" in (*map(language_tag, ends), *TERM_TAGS[: 3 * bool(config.augment.terms)]):
            raise ValueError(f"data.corpora.{part.entry}.tag={part.tag}: is that of a language or term; choose another")
    if config.stages and not corpora:
        raise ValueError("data.stages: needs data.corpora={NAME: {path: PREFIX}, …}, which the stages mix")
    if config.stages and (given or config.temperature != 1):
        raise ValueError("data.stages: has weights of its own; leave those of data.corpora and data.temperature out")
    parse_stages(config)
    if corpora and config.train_alignments:
        raise ValueError("data.train_alignments: belongs to one text; give it to each entry of data.corpora")


def _parse_entry(config: DataConfig, name: str, values: Any) -> dict[str, Any]:
    """Return what an entry of `data.corpora` has of its own."""
    where, hints = f"data.corpora.{name}", get_type_hints(type(config)) | {"path": Any, "weight": float, "tag": str}
    hints = {option: hints[option] | None for option in ("path", "weight", "tag", *OWN_OPTIONS)}
    if not re.fullmatch(r"[\w-]*", name):
        raise ValueError(f"{where}: the name of a corpus must be of letters and digits")
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}={values}: must be a mapping, {{path: PREFIX, weight: 1}}")
    entry = dict[str, Any]()
    for key, value in values.items():
        option = "format" if key == "data" else key
        if option not in hints:
            nearest = suggest(option, hints)
            hint = f"did you mean {nearest}?" if nearest else f"must be one of {', '.join(hints)}"
            raise ValueError(f"{where}.{key}: no such option of a corpus; {hint}")
        try:
            entry |= {} if value is None else {option: coerce(hints[option], value)}
        except TypeError:
            raise ValueError(f"{where}.{key}={value}: {describe_type(hints[option])}") from None
    if name and not entry.get("path") and entry.get("format") not in ("hub", "builtin"):
        raise ValueError(f"{where}: needs a path: {{path: PREFIX}}")
    if not 0 <= entry.get("weight", 0) < math.inf:
        raise ValueError(f"{where}.weight={entry['weight']}: must be at least 0 and below inf")
    if not re.fullmatch(r"\w[\w-]*", entry.get("tag", "web")):
        raise ValueError(f"{where}.tag={entry['tag']}: must be of letters and digits")
    return entry
