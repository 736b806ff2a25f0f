"""Export of a trained model to CTranslate2, Hugging Face transformers or ONNX.

The result is a folder that does not need this project: the model, its tokenizer, `export.json` with its description, a
README.md, and a translate.py that translates standard input. The folder is written atomically, and only after its own
engine has reproduced our log-probabilities.
"""

import dataclasses
import importlib
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from nmt import __version__
from nmt.cli.configs import Config
from nmt.config import to_dict
from nmt.data import BOS, EOS, PAD, UNK
from nmt.data.corpora import corpus_tags, default_direction, directions, join
from nmt.export import formats, output_folder, verification
from nmt.export.model_card import readme
from nmt.inference.translator import Translator
from nmt.search import SearchConfig

__all__ = ["ExportResult", "export"]

CT2_PATIENCE = 2
"""CTranslate2 stops after patience * beam_size finished hypotheses. With 1, its default, it stops well before no better
one is possible."""

LENGTH_OPTIONS = ("max_length_ratio", "max_length_offset")
EXPORTED_SEARCH_OPTIONS = ("beam_size", "n_best", "batch_size", "batch_tokens", "length_penalty", *LENGTH_OPTIONS)


class ExportResult(NamedTuple):
    """folder: the folder written. files: sizes in bytes. difference: see `verification.max_log_prob_difference`.
    notes: options of the search that the exported model does not have."""

    folder: Path
    files: dict[str, int]
    difference: float
    notes: list[str]


def export(translator: Translator, config: Config, name: str, output: Path, max_length: int) -> ExportResult:
    """Write a model, its tokenizer and its programs into a folder.

    Args:
        translator: the model, on the CPU, and its search options.
        config: the configuration of its training.
        name: a key of `formats.FORMATS`.
        output: a folder that does not exist, is empty, or is an earlier export, which is replaced.
        max_length: tokens of the longest sentence, for formats with a table of positions.

    Raises:
        ValueError: the format does not support the model, a package is not installed, or the exported model does not
            compute the same function.
        OSError: `output` holds other files, or cannot be written.
    """
    formats.ensure_supported(config, name)
    if config.model.architecture == "transformer" and config.model.positions == "learned":
        max_length = config.model.max_positions
    with output_folder.atomic_directory(output) as temporary:
        manifest = _manifest(translator, config, name, max_length)
        output_folder.write_manifest(temporary, manifest)  # the exported tokenizer reads it
        exported = importlib.import_module(f"nmt.export.to_{name}").write(translator, temporary, manifest)
        for script, copy in ((f"translate_{name}.py", "translate.py"), ("text.py", "text.py")):
            shutil.copyfile(Path(__file__).parent / "scripts" / script, temporary / copy)
        difference = verification.max_log_prob_difference(translator, exported, max_length, config.data)
        check = {"sentences": verification.NUM_SENTENCES, "largest difference of a log-probability": difference}
        manifest["check"] = check
        notes = _notes(translator.config, name, manifest["max_target"])
        (temporary / "README.md").write_text(readme(name, manifest, notes), encoding="utf-8")
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        manifest["files"] = {file: size for file, size in files.items() if file != output_folder.MANIFEST}
        output_folder.write_manifest(temporary, manifest)
    return ExportResult(output, files, difference, notes)


def _manifest(translator: Translator, config: Config, name: str, max_length: int) -> dict[str, Any]:
    """Describe the contents of the folder, for people and for the programs in it."""
    tokenizer, model = translator.tokenizer, translator.model
    search = {option: getattr(translator.config, option) for option in ("beam_size", "length_penalty", *LENGTH_OPTIONS)}
    has_table = name != "onnx" and getattr(config.model, "positions", "") != "rotary"
    source_lang, target_lang = default_direction(config.data)
    return {
        "format": name,
        "written by": f"nmt {__version__}",
        "run": config.name,
        "source language": source_lang,
        "target language": target_lang,
        **(_describe_tags(tokenizer.tags, config) if tokenizer.tags else {}),
        "tokenizer": tokenizer.type,
        "one vocabulary for both languages": tokenizer.joint,
        "vocabulary": {"source": tokenizer.source_size, "target": tokenizer.target_size},
        "special": {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS},
        "search": search | ({"patience": CT2_PATIENCE} if name == "ctranslate2" else {}),
        # the longest sentences in tokens, end token included; null: any
        "max_source": max_length if has_table else model.max_source_length,
        "max_target": max_length if has_table else model.max_target_length,
        "model": to_dict(config.model),
    }


def _describe_tags(tags: tuple[str, ...], config: Config) -> dict[str, Any]:
    """Describe the directions of a model with tags; their ids are the last of a vocabulary, in order."""
    pairs = directions(config.data)
    languages = list(dict.fromkeys(target for _, target in pairs))
    side = "target" if config.data.tags == "decoder" else "source"
    return {
        "directions": [join(pair) for pair in pairs],
        "target languages": languages,
        "tags": {"side": side, "names": list(tags), "corpora": corpus_tags(config.data)},
    }


def _notes(search: SearchConfig, name: str, max_target: int | None) -> list[str]:
    """Name the search options that are set and that the exported model does not have."""
    notes = [
        f"search.{field.name}={getattr(search, field.name)} is not exported: the exported model is searched without it"
        for field in dataclasses.fields(SearchConfig)
        if field.name not in EXPORTED_SEARCH_OPTIONS and getattr(search, field.name) != field.default
    ]
    if name == "huggingface":  # whatever their values: its lengths do not depend on the sentence
        lengths = " and ".join(f"search.{option}={getattr(search, option)}" for option in LENGTH_OPTIONS)
        effect = f"a translation may have {max_target:,} tokens, however short its sentence"
        notes.append(f"{lengths} are not exported: {effect}")
    return notes
