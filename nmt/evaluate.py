"""python -m nmt.evaluate: evaluates a trained model on a test set into a report folder."""

from nmt import checkpoint, evaluator, records, runtime
from nmt.config import command, overlay, to_yaml
from nmt.evaluator import EvaluationSet
from nmt.options import from_primitive
from nmt.runs import command_line, report_folder
from nmt.schema import Config, EvaluateConfig
from nmt.translator import Translator


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    """Evaluates `data.test`, by default that of the run."""
    runtime.prepare(config.threads)
    device = runtime.device(config.device)
    path = checkpoint.locate(config.checkpoint)
    content = checkpoint.load(path, device)
    merged = overlay(from_primitive(Config, content["config"]), config, overrides)
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    about = evaluator.About(
        name=merged.name or "",
        command=command_line("evaluate", overrides),
        config=to_yaml(merged),
        history=records.read(run / "metrics.jsonl"),
    )
    translator = Translator.from_checkpoint(content, merged.search, device)
    if any(override.startswith("data.test=") for override in overrides):
        sets = [EvaluationSet.read(merged.data, "test")]  # the run's further test sets were not asked for
    else:
        sets = evaluator.evaluation_sets(merged.data)
    if not sets:
        raise ValueError("data.test: not given, and the run has no test set; say which one, as data.test=PREFIX")
    evaluator.evaluate_sets(translator, merged.metrics, sets, report_folder(run, config, overrides), about)


if __name__ == "__main__":
    command(main, EvaluateConfig, "evaluate")
