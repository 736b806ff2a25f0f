"""python -m nmt.evaluate: evaluates a trained model on a test set into a report folder."""

from collections.abc import Sequence
from pathlib import Path

from nmt import checkpoint
from nmt.cli.compose import merge_with_checkpoint, run_command, to_yaml
from nmt.cli.configs import Config, EvaluateConfig
from nmt.cli.run_directory import command_line, report_folder, run_directory
from nmt.evaluation.evaluator import Evaluator
from nmt.evaluation.external_scores import read_external_scores
from nmt.evaluation.report import ReportData
from nmt.evaluation.results import EvaluationInputs, EvaluationSet, load_test_sets, read_hypotheses
from nmt.inference.translator import Translator
from nmt.runtime.device import resolve_device
from nmt.runtime.process import setup_process
from nmt.training import logger


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    """Evaluates `data.test`, by default that of the run, or of an ensemble that of its first run."""
    setup_process(config.num_threads)
    device = resolve_device(config.device)
    named = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    paths = [checkpoint.resolve(path) for path in named]
    contents = [checkpoint.load(path, device) for path in paths]
    trained = Config.from_dict(contents[0]["config"])
    merged = merge_with_checkpoint(trained, config, overrides)
    run = run_directory(paths[0])
    about = ReportData(
        name=" + ".join(str(content["config"].get("name") or "") for content in contents),
        command=command_line("evaluate", overrides),
        config=to_yaml(merged),
        history=logger.read_metrics(run / "metrics.jsonl") if len(paths) == 1 else (),
        texts=contents[0].get("texts", {}),
    )
    translator = Translator.from_checkpoints(contents, merged.search, device)
    del contents
    given = {override.partition("=")[0] for override in overrides}
    if "data.test" in given and "data.extra_tests" not in given:
        sets = [EvaluationSet.read(merged.data, "test")]  # the run's further test sets were not asked for
    else:
        sets = load_test_sets(merged.data)
    if not sets:
        raise ValueError("data.test: not given, and the run has no test set; say which one, as data.test=PREFIX")
    directory, inputs = report_folder(run, config, overrides), _given(config, overrides, sets)
    Evaluator(translator, merged.metrics, merged.alignment, trained.data).evaluate_sets(sets, directory, about, inputs)


def _given(config: EvaluateConfig, overrides: Sequence[str], sets: Sequence[EvaluationSet]) -> list[EvaluationInputs]:
    """What is given for each test set; all of it is read before anything is translated."""
    one_set = [f"hypotheses={config.hypotheses}"] if config.hypotheses is not None else []
    one_set += [f"baselines={name}" for name in config.baselines if not Path(name).is_dir()]
    one_set += [f"external_scores={item}" for item in config.external_scores]
    if len(sets) > 1 and one_set:
        names = ", ".join(test.name for test in sets)
        raise ValueError(f"{one_set[0]}: a file is of one test set and there are {len(sets)} ({names}): give data.test")
    found = []
    for test in sets:
        own = EvaluationInputs()
        if config.hypotheses is not None:
            own.hypotheses = read_hypotheses(config.hypotheses, test)
        for name in config.baselines:
            path = Path(name)
            if path.is_dir():
                elsewhere = EvaluateConfig(checkpoint=name, data=config.data)
                path = report_folder(path, elsewhere, overrides) / test.folder / "hypotheses.txt"
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: no such file; evaluate {name} on {test.name} first")
            own.baselines[name] = read_hypotheses(path, test)
        for name, _, file in (item.partition(":") for item in config.external_scores):
            own.external_scores[name] = read_external_scores(file, len(test.pairs))
        found.append(own)
    return found


if __name__ == "__main__":
    run_command(main, EvaluateConfig, "evaluate")
