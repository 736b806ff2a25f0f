"""python -m nmt.evaluate: evaluate a trained model on test sets and write reports."""

from pathlib import Path

from nmt import checkpoint
from nmt.cli.compose import merge_with_checkpoint, run_command, to_yaml
from nmt.cli.configs import Config, EvaluateConfig
from nmt.cli.run_directory import command_line, report_folder, run_directory
from nmt.data.corpora import directions, of_direction
from nmt.evaluation.evaluator import Evaluator
from nmt.evaluation.external_scores import read_external_scores
from nmt.evaluation.metrics import SENTENCE_FIELDS, build_metrics
from nmt.evaluation.report import ReportData, SplitStats
from nmt.evaluation.report.identity import model_facts
from nmt.evaluation.results import EvaluationInputs, EvaluationSet, load_test_sets, read_hypotheses, stored_digests
from nmt.export.ctranslate2_engine import make_engine
from nmt.inference.translator import Translator
from nmt.plugins import loaded
from nmt.runtime.device import resolve_device
from nmt.runtime.process import setup_process
from nmt.training import logger
from nmt.training.warm_start import run_fingerprints


def main(config: EvaluateConfig, overrides: list[str]) -> None:
    """Evaluate on `data.test`, by default the test set of the run, or of the first run of an ensemble."""
    given = overrides
    if config.markup is not None:
        if any(override.startswith("data.test=") for override in overrides):
            raise ValueError(f"markup={config.markup}: takes the place of data.test; give one of the two")
        config.data.test, overrides = config.markup, [*overrides, f"data.test={config.markup}"]
    setup_process(config.num_threads)
    device = resolve_device(config.device)
    checkpoints = config.checkpoint if isinstance(config.checkpoint, list) else [config.checkpoint]
    paths = [checkpoint.resolve(path) for path in checkpoints]
    contents = [checkpoint.load(path, device) for path in paths]
    trained, *_ = configs = [Config.from_checkpoint(content) for content in contents]
    merged = merge_with_checkpoint(trained, config, overrides)
    run = run_directory(paths[0])
    about = ReportData(
        name=" + ".join(str(content["config"].get("name") or "") for content in contents),
        command=command_line("evaluate", given),
        config=to_yaml(merged),
        history=logger.read_metrics(run / "metrics.jsonl") if len(paths) == 1 else (),
        fingerprints=run_fingerprints(contents[0]) | {"plugins": list(map(list, loaded(merged.plugins)))},
    )
    translator = Translator.from_checkpoints(contents, merged.search, device)
    translator.engine = make_engine(translator, merged, config.engine if config.hypotheses is None else "torch")
    with checkpoint.interpreting(contents[0]):
        about.data = [SplitStats(*split) for split in contents[0].get("splits", ())]
        about.notes = [*map(str, contents[0].get("notes", ()))] if len(contents) == 1 else []
        about.corpora = dict(contents[0].get("corpora", {})) if len(contents) == 1 else {}
        about.facts = model_facts(contents, configs, translator, about.history)
    about.facts += [f"hypotheses of {config.hypotheses}"] * (config.hypotheses is not None)
    del contents
    overridden = {override.partition("=")[0] for override in overrides}
    if overridden & {"data.source_lang", "data.target_lang"} and len(directions(trained.data)) > 1:  # that one alone
        merged.data = of_direction(merged.data, (merged.data.source_lang, merged.data.target_lang))
    if "data.test" in overridden and "data.extra_tests" not in overridden:
        merged.data.extra_tests = []  # of the run
    sets = load_test_sets(merged.data)
    if not sets:
        raise ValueError("data.test: not given, and the run has no test set; say which one, as data.test=PREFIX")
    if config.markup is not None:
        sets = [test.without_markup() for test in sets]
    report = report_folder(run, config, overrides)
    config.metrics = merged.metrics
    inputs = _read_inputs(config, overrides, sets)  # before anything is translated
    evaluator = Evaluator(translator, merged.metrics, merged.alignment, trained.data, config.tag)
    evaluator.evaluate_sets(sets, report, about, inputs)


def _read_inputs(config: EvaluateConfig, overrides: list[str], sets: list[EvaluationSet]) -> list[EvaluationInputs]:
    """Read the hypotheses, baselines and external scores for each test set."""
    files = [f"hypotheses={config.hypotheses}"] if config.hypotheses is not None else []
    files += [f"baselines={name}" for name in config.baselines if not Path(name).is_dir()]
    files += [f"external_scores={item}" for item in config.external_scores]
    if len(sets) > 1 and files:
        names = ", ".join(test.name for test in sets)
        raise ValueError(f"{files[0]}: a file is of one test set and there are {len(sets)} ({names}): give data.test")
    taken = {*SENTENCE_FIELDS, *build_metrics(config.metrics)}
    all_inputs = []
    for test in sets:
        inputs = EvaluationInputs()
        if config.hypotheses is not None:
            inputs.hypotheses = read_hypotheses(config.hypotheses, test)
        for name in config.baselines:
            path = Path(name)
            if path.is_dir():
                report = report_folder(path, EvaluateConfig(checkpoint=name, data=config.data), overrides)
                path = report / test.folder / "hypotheses.txt"
                if not path.is_file():
                    raise FileNotFoundError(f"{path}: no such file; evaluate {name} on {test.name} first")
                sources = test.digests()["sources"]
                if stored_digests(path.parent).get("sources", sources) != sources:
                    raise ValueError(f"{path}: translations of another text; evaluate {name} on {test.name} again")
            inputs.baselines[name] = read_hypotheses(path, test)
        for name, _, file in (item.partition(":") for item in config.external_scores):
            if name in {*taken, *inputs.external_scores}:
                raise ValueError(f"external_scores={name}:{file}: {name} is taken; choose another name")
            inputs.external_scores[name] = read_external_scores(file, len(test.pairs))
        all_inputs.append(inputs)
    return all_inputs


if __name__ == "__main__":
    run_command(main, EvaluateConfig, "evaluate")
