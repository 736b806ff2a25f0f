"""A trained model in the form that other programs run: CTranslate2, Hugging Face transformers, ONNX.

The result is a folder that needs nothing of this project: the model, its tokenizer, `export.json` that describes it,
a README.md, and a translate.py that translates standard input. It appears whole or not at all, and only after its own
engine has given the same log-probabilities as ours.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from nmt import __version__
from nmt.cli.configs import Config
from nmt.config import to_dict
from nmt.data import BOS, EOS, PAD, UNK
from nmt.export import formats, output_folder, verification, vocabularies
from nmt.export.model_card import readme
from nmt.inference.translator import Translator
from nmt.search import SearchConfig

__all__ = ["ExportResult", "export"]

CT2_PATIENCE = 2
"""CTranslate2 ends a search when so many times the beam have been finished. With 1, its default, it ends well before
nothing better can come."""

LENGTHS = ("max_length_ratio", "max_length_offset")
EXPORTED_SEARCH_OPTIONS = ("beam_size", "n_best", "batch_size", "batch_tokens", "length_penalty", *LENGTHS)


class ExportResult(NamedTuple):
    """folder: what was written. files: sizes in bytes. difference: see `check.difference`. notes: what the user should
    know of options that the exported model does not have."""

    folder: Path
    files: dict[str, int]
    difference: float
    notes: list[str]


def export(translator: Translator, config: Config, name: str, output: Path, longest: int) -> ExportResult:
    """Write a model and what belongs to it into a folder.

    Args:
        translator: the model, on the CPU, and how it searches.
        config: it was trained with.
        name: a key of `formats.FORMATS`.
        output: a folder that does not exist, is empty, or is an earlier export, which is replaced.
        longest: tokens of the longest sentence that formats with a table of positions can take.

    Raises:
        ValueError: the format cannot carry the model, a package is not installed, or the exported model is not the
            same function as ours.
        OSError: `output` holds other things, or cannot be written.
    """
    formats.ensure_supported(config, name)
    if config.model.architecture == "transformer" and config.model.positions == "learned":
        longest = config.model.max_positions
    with output_folder.atomic_directory(output) as temporary:
        manifest = _manifest(translator, config, name, longest)
        _write_manifest(temporary, manifest)  # the exported tokenizer reads it
        loaded = _write(translator, config, name, temporary, longest, manifest)
        for script, copied in ((f"translate_{name}.py", "translate.py"), ("text.py", "text.py")):
            shutil.copyfile(Path(__file__).parent / "scripts" / script, temporary / copied)
        difference = verification.max_log_prob_difference(translator, loaded, longest)
        manifest["check"] = {"sentences": verification.SENTENCES, "largest difference of a log-probability": difference}
        notes = _notes(translator.config, name, manifest["max_target"])
        (temporary / "README.md").write_text(readme(name, manifest, notes), encoding="utf-8")
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        manifest["files"] = {file: size for file, size in files.items() if file != output_folder.MANIFEST}
        _write_manifest(temporary, manifest)
    return ExportResult(output, files, difference, notes)


def _write(
    translator: Translator, config: Config, name: str, temporary: Path, longest: int, manifest: dict[str, Any]
) -> verification.ExportedModel:
    """Write the model, and load it with its own engine."""
    if name == "huggingface":
        from nmt.export import to_huggingface

        languages = (config.data.source_lang or "", config.data.target_lang or "")
        to_huggingface.write(translator, temporary, longest, languages)
        return to_huggingface.HFRunner(temporary)
    vocabularies.write(translator.tokenizer, temporary)
    if name == "ctranslate2":
        from nmt.export import to_ctranslate2

        to_ctranslate2.write(translator, temporary, longest)
        return to_ctranslate2.CTranslate2Runner(temporary)
    from nmt.export import to_onnx

    manifest["interface"] = to_onnx.write(translator, temporary)
    _write_manifest(temporary, manifest)
    return to_onnx.OnnxRunner(temporary)


def _write_manifest(temporary: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    (temporary / output_folder.MANIFEST).write_text(text, encoding="utf-8")


def _manifest(translator: Translator, config: Config, name: str, longest: int) -> dict[str, Any]:
    """Describe what the folder holds, for people and for the programs in it."""
    search, tokenizer, model = translator.config, translator.tokenizer, translator.model
    has_table = name != "onnx" and getattr(config.model, "positions", "") != "rotary"
    manifest: dict[str, Any] = {
        "format": name,
        "written by": f"nmt {__version__}",
        "run": config.name,
        "source language": config.data.source_lang,
        "target language": config.data.target_lang,
        "tokenizer": tokenizer.kind,
        "one vocabulary for both languages": tokenizer.joint,
        "vocabulary": {"source": tokenizer.source_size, "target": tokenizer.target_size},
        "special": {"pad": PAD, "unk": UNK, "bos": BOS, "eos": EOS},
        "search": {option: getattr(search, option) for option in ("beam_size", "length_penalty", *LENGTHS)},
        # the longest sentences in tokens, the end token counted; null: any
        "max_source": longest if has_table else model.max_source,
        "max_target": longest if has_table else model.max_target,
        "model": to_dict(config.model),
    }
    if name == "ctranslate2":
        manifest["search"]["patience"] = CT2_PATIENCE
    return manifest


def _notes(search: SearchConfig, name: str, max_target: int | None) -> list[str]:
    """Name the options of the search that are set and that the exported model does not have."""
    default = SearchConfig()
    values = {field.name: getattr(search, field.name) for field in dataclasses.fields(SearchConfig)}
    notes = [
        f"search.{option}={value} stays behind: the exported model is searched without it"
        for option, value in values.items()
        if option not in EXPORTED_SEARCH_OPTIONS and value != getattr(default, option)
    ]
    if name == "huggingface":  # whatever their values: it knows no lengths that depend on the sentence
        lengths = " and ".join(f"search.{option}={values[option]}" for option in LENGTHS)
        notes.append(f"{lengths} stay behind: a translation may have {max_target:,} tokens, however short its sentence")
    return notes
