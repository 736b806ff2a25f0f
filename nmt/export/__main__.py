"""python -m nmt.export: a trained model as a folder that other programs run."""

import sys
from pathlib import Path

import torch

from nmt import checkpoint
from nmt.cli.compose import command, overlay, preset
from nmt.cli.config_groups import choices
from nmt.cli.configs import Config, ExportConfig
from nmt.export import export, formats
from nmt.inference.translator import Translator
from nmt.options import from_primitive
from nmt.runtime.process import setup_process


def main(config: ExportConfig, overrides: list[str]) -> None:
    """Export one model and print what was written."""
    setup_process(config.threads)
    path = checkpoint.locate(config.checkpoint)
    content = checkpoint.load(path, "cpu")
    merged = overlay(from_primitive(Config, content["config"]), config, overrides)
    formats.check(merged, config.format)
    translator = Translator.from_checkpoint(content, merged.search, torch.device("cpu"))
    exported = export(translator, merged, config.format, Path(config.output), config.longest)
    parameters = sum(parameter.numel() for parameter in translator.model.parameters())
    folder, size = exported.folder, sum(exported.files.values()) / 1e6
    print(
        f"{path}: {merged.model.architecture} with {parameters:,} parameters exported to {folder}/ "
        f"({config.format}, {len(exported.files)} files, {size:.1f} MB); "
        f"its log-probabilities differ from ours by at most {exported.difference:.1e}",
        *exported.notes,
        f"to translate: python {folder}/translate.py < source.txt > target.txt (more in {folder}/README.md)",
        sep="\n",
    )


def tell_formats() -> None:
    """Print what each format can carry, and which of the named configurations can be exported in which."""
    presets = {"(the defaults)": preset(), **{f"experiment={name}": preset(name) for name in choices("experiment")}}
    print(formats.overview(presets))


if __name__ == "__main__":
    if "--formats" in sys.argv[1:]:
        tell_formats()
    else:
        command(main, ExportConfig, "export")
