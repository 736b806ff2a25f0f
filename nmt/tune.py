"""`python -m nmt.tune`: tune options with Optuna: sample values, train, and prune bad trials.

Every trial is a run in runs/NAME/, trained by `python -m nmt.train` in a process of its own. Its validations are
reported to Optuna; a trial below the median of the others at the same update is stopped (MedianPruner). The study is
stored in runs/NAME/optuna.log, so the same command continues it; an interrupted trial is tried again.
"""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from nmt.cli.compose import compose_config
from nmt.cli.config_groups import load_named_plugins
from nmt.cli.configs import Config
from nmt.cli.flags import hydra_hint
from nmt.cli.help import SUMMARIES
from nmt.cli.hydra_groups import search_space
from nmt.cli.run_directory import run_name
from nmt.cli.sweep.process_launcher import failure_reason, start_command
from nmt.config import suggest
from nmt.runtime.errors import check_arguments, report_errors
from nmt.runtime.files import directory_lock
from nmt.training import logger
from nmt.training.config import EARLY_STOPPING_METRICS

MACHINE_OPTIONS = ("device", "num_threads", "runs")
"""Options that may change when a study is continued; all others, and the ranges, are the same for all its trials."""
WARM_UP = 3
"""Number of trials that are never pruned, for comparison."""
HELP = """
A range is written as in Hydra, quoted for the shell: 'interval(LOW,HIGH)' a number, 'tag(log, interval(LOW,HIGH))' one
on a logarithmic scale, 'range(1,5)' a whole number from 1 to 4, a,b,c one of these. Other arguments are those of
python -m nmt.train, the same for every trial. The result is one good setting, chosen on the validation set; for a fair
comparison of options, use sweeps and python -m nmt.compare.

example: python -m nmt.tune rates 'optim.learning_rate=tag(log, interval(1e-4,1e-2))' model.cell=lstm,gru --trials 30
"""


def parse(text: str) -> tuple[str, Any] | None:
    """Return an option and the distribution of its values, or None for an argument of training; raise ValueError."""
    from optuna import distributions

    if hint := hydra_hint(f"tune {text}"):
        raise ValueError(f"{text}: {hint}")
    space = search_space(text)
    return (text.partition("=")[0], getattr(distributions, space[0])(**space[1])) if space else None


def argument(option: str, value: Any) -> str:
    """Return the argument of training that sets an option to a sampled value."""
    return f"{option}={value:.6g}" if isinstance(value, float) else f"{option}={value}"


def _value(distribution: Any) -> Any:
    """Return one of the values of a distribution, for a check before the first trial."""
    if hasattr(distribution, "choices"):
        return distribution.choices[0]
    low, high = distribution.low, distribution.high
    return (low + high) / 2 if isinstance(low, float) else low  # an end, as 0, may be excluded


def train(trial: Any, arguments: list[str], directory: Path, metric: str) -> float:
    """Run one trial and return its best validation.

    Raises:
        TrialPruned: Optuna pruned it.
        ChildProcessError: the run failed.
        ValueError: its validations do not have the metric.
        KeyboardInterrupt: after the run has saved, or at once at a second interrupt.
    """
    import optuna

    reported, is_pruned, key = 0, False, f"valid_{metric}"
    earlier = validations(directory)  # may have other metrics.names
    lines: deque[str] = deque(maxlen=100)
    with start_command("train", arguments, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:  # every validation is also logged
                lines.append(line.rstrip("\n"))
                for row in validations(directory):
                    if key not in row and row not in earlier:
                        raise ValueError(missing(metric, row))
                    if key in row and row["update"] > reported:
                        trial.report(row[key], row["update"])
                        reported = row["update"]
                if reported and not is_pruned and trial.should_prune():
                    process.send_signal(signal.SIGTERM)
                    is_pruned = True
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                print("the trial saves and stops (once more: stop at once)", flush=True)
            if not is_pruned:  # a second signal would stop the run without saving
                process.send_signal(signal.SIGTERM)
            process.communicate()
            raise
    if is_pruned:
        raise optuna.TrialPruned
    if process.returncode:
        raise ChildProcessError(failure_reason(process.returncode, lines))
    rows = validations(directory)
    values: list[float] = [row[key] for row in rows if key in row]
    if not values:
        raise ValueError(missing(metric, rows[-1] if rows else {}))
    return max(values) if EARLY_STOPPING_METRICS[metric] > 0 else min(values)


def validations(directory: Path) -> list[dict[str, Any]]:
    """Return the validations of a run so far."""
    return [row for row in logger.read_metrics(directory / "metrics.jsonl") if "valid_loss" in row]


def missing(metric: str, row: dict[str, Any]) -> str:
    """Return an error message for a validation without the metric."""
    available = ", ".join(name for name in EARLY_STOPPING_METRICS if f"valid_{name}" in row) or "none"
    remedy = "add it to metrics.names, as in metrics.names=[bleu,chrf]"
    if metric == "aer":
        remedy = "it needs a file of gold alignments beside the validation text, and a model with attention"
    return f"--metric {metric}: validation gives only {available}; {remedy}; another metric needs another NAME"


def search(options: argparse.Namespace) -> None:
    """Start or continue a study.

    Raises:
        BlockingIOError: it belongs to another process.
        ValueError: an argument is wrong, the study has others or another metric, or a trial does not have this one.
    """
    if "=" in options.name:
        parse(options.name)
        example = shlex.join(["python", "-m", "nmt.tune", "my_study", options.name])
        raise ValueError(f"{options.name}: the first argument is the name of the study, as in {example}")
    space = dict(parsed for text in options.arguments if (parsed := parse(text)) is not None)
    fixed = [text for text in options.arguments if parse(text) is None]
    if not space:
        raise ValueError("no option has a range, such as 'optim.learning_rate=interval(1e-4,1e-2)'")
    sampled = [argument(option, _value(distribution)) for option, distribution in space.items()]
    compose_config(Config, "train", load_named_plugins([*fixed, *sampled, f"name={options.name}"]))
    runs = Path(next((text.partition("=")[2] for text in fixed if text.startswith("runs=")), "runs"))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(directory_lock(runs / options.name))
        except BlockingIOError as error:
            owner = str(error).partition(";")[0]
            raise BlockingIOError(f"{owner}; wait until it has ended, or give this study another NAME") from None
        study = open_study(options, runs)
        run_trials(study, options, space, fixed, runs)
        report_best(study, options.metric)


def open_study(options: argparse.Namespace, runs: Path) -> Any:
    """Return a new or continued Optuna study, with interrupted trials enqueued again."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = JournalFileBackend(str(runs / options.name / "optuna.log"))
    study = optuna.create_study(
        study_name=options.name,
        storage=optuna.storages.JournalStorage(backend),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP),
        direction="maximize" if EARLY_STOPPING_METRICS[options.metric] > 0 else "minimize",
        load_if_exists=True,
    )
    metric = study.user_attrs.get("metric", options.metric)
    if metric != options.metric:
        raise ValueError(f"--metric {options.metric}: the study {options.name} is of {metric}; give another NAME")
    study.set_user_attr("metric", metric)
    texts = {text.partition("=")[0]: text for text in options.arguments}
    given = sorted(text for option, text in texts.items() if option not in MACHINE_OPTIONS)
    stored = study.user_attrs.get("arguments", [] if study.trials else given)
    if now := " ".join(text for text in given if text not in stored):
        before = " ".join(text for text in stored if text not in given)
        other = f"with {before}" if before else "without it"
        raise ValueError(f"{now}: the study {options.name} was begun {other}; give another NAME")
    if missing_now := " ".join(text for text in stored if text not in given):
        reason = f"the study {options.name} was begun with it; give it again, or another NAME"
        raise ValueError(f"{missing_now} is missing: {reason}")
    study.set_user_attr("arguments", given)
    # Another seed each time, otherwise the same proposals would be repeated.
    study.sampler = optuna.samplers.TPESampler(seed=options.seed + 1000 * len(study.trials))
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # interrupted
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def run_trials(
    study: Any, options: argparse.Namespace, space: dict[str, Any], fixed: Sequence[str], runs: Path
) -> None:
    """Run the remaining trials, with the `fixed` arguments and values sampled from `space`."""
    import optuna
    from optuna.trial import TrialState

    for _ in range(options.trials - len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))):
        trial = study.ask(space)
        sampled = [argument(option, trial.params[option]) for option in space]
        name = f"{options.name}/{run_name((), sampled)}"
        print(f"trial {trial.number}: {' '.join(sampled)}", flush=True)
        started = time.monotonic()
        try:
            value = train(trial, [*fixed, *sampled, f"name={name}"], runs / name, options.metric)
            study.tell(trial, value)
            outcome = f"{options.metric} {value:.4g} in {time.monotonic() - started:.0f} s"
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            outcome = f"pruned after {time.monotonic() - started:.0f} s"
        except (ValueError, OSError) as error:
            study.tell(trial, state=TrialState.FAIL)
            if not isinstance(error, ChildProcessError):
                raise
            outcome = f"failed: {error}"
        print(f"trial {trial.number}: {outcome}", flush=True)


def report_best(study: Any, metric: str) -> None:
    """Print the number of trials by state, and the best trial."""
    import optuna

    counts = Counter(trial.state for trial in study.trials)
    print(", ".join(f"{counts[state]} {state.name.lower()}" for state in optuna.trial.TrialState if counts[state]))
    try:
        best = study.best_trial
    except ValueError:
        raise ValueError("no trial was finished") from None
    print(f"best: {metric} {best.value:.4g} with {' '.join(f'{name}={value}' for name, value in best.params.items())}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        flag = message.removeprefix("unrecognized arguments: ").partition("=")[0]
        nearest = suggest(flag, ("--trials", "--metric", "--seed")) if flag != message else None
        hint = f"did you mean {nearest}?" if nearest else "python -m nmt.tune --help shows the options"
        raise ValueError(f"{message}; {hint}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; report an error in one line, and exit as `report_errors` does."""
    parser = _Parser("python -m nmt.tune", description=SUMMARIES["tune"], epilog=HELP)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="NAME", help="of the study, whose runs are in runs/NAME/")
    parser.add_argument("arguments", nargs="*", metavar="OPTION=RANGE or name=value")
    parser.add_argument(
        "--trials", type=int, default=20, help="number of all trials, earlier ones too; default %(default)s"
    )
    parser.add_argument(
        "--metric", choices=EARLY_STOPPING_METRICS, default="bleu", help="of the validation set; default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the proposals; default %(default)s")
    with report_errors():
        check_arguments(sys.argv[1:] if arguments is None else arguments)
        try:
            search(parser.parse_intermixed_args(arguments))
        except KeyboardInterrupt:
            print("stopped; the same command continues", file=sys.stderr)
            raise
        except ImportError:
            raise ValueError('needs Optuna: run pip install "nmt-attention[tune]"') from None


if __name__ == "__main__":
    main()
