"""python -m nmt.export: write a trained model as a folder for other programs."""

import sys
from pathlib import Path

import torch

from nmt import checkpoint
from nmt.cli.compose import load_experiment, merge_with_checkpoint, run_command
from nmt.cli.config_groups import group_choices
from nmt.cli.configs import Config, ExportConfig
from nmt.export import export, formats
from nmt.inference.translator import Translator
from nmt.runtime.errors import report_errors
from nmt.runtime.process import setup_process


def main(config: ExportConfig, overrides: list[str]) -> None:
    """Export one model and print a summary."""
    setup_process(config.num_threads)
    path = checkpoint.resolve(config.checkpoint)
    content = checkpoint.load(path, "cpu")
    merged = merge_with_checkpoint(Config.from_checkpoint(content), config, overrides)
    formats.ensure_supported(merged, config.format)
    translator = Translator.from_checkpoint(content, merged.search, torch.device("cpu"))
    exported = export(translator, merged, config.format, Path(config.output), config.max_length)
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


def print_formats() -> None:
    """Print the options that each format supports, and the formats of each experiment."""
    configs = {f"experiment={name}": load_experiment(name) for name in group_choices("experiment")}
    print(formats.format_support_table({"(the defaults)": load_experiment()} | configs))


if __name__ == "__main__":
    if "--formats" in sys.argv[1:]:
        with report_errors():
            print_formats()
    else:
        run_command(main, ExportConfig, "export")
