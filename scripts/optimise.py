"""Searches for good options with Optuna: proposes values, trains, and ends early what does badly.

usage: python scripts/optimise.py NAME OPTION=RANGE … [name=value …] [--trials N] [--metric bleu|chrf|loss|aer]
           [--seed N]

RANGE: LOW..HIGH a number, LOW..HIGH:log one on a logarithmic scale, A|B|C one of several; whole numbers at both ends
    give whole numbers. Arguments without a range are those of `python -m nmt.train`, the same for every trial.
example: python scripts/optimise.py rates optim.learning_rate=1e-4..1e-2:log 'model.cell=lstm|gru' --trials 30

Every trial is a run in runs/NAME/, made by `python -m nmt.train` in a process of its own. Its validations are told to
Optuna; a trial below the median of the others at the same update is stopped (MedianPruner). The study is kept in
runs/NAME/optuna.log, so the same command goes on with it; a trial that was interrupted is taken up again.

This looks for one good setting and looks at the validation set to find it: not a fair comparison of options, which is
what sweeps and `nmt.compare` are for.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nmt.cli.run_directory import run_name
from nmt.cli.sweep.process_launcher import PARENT, reason_of
from nmt.runtime.files import locked
from nmt.training import logger
from nmt.training.config import STOP_METRICS

WARM_UP = 3
"""Trials that are never ended early, so that there is something to compare with."""


class Space(NamedTuple):
    """The values an option may take: choices, or numbers from low to high."""

    option: str
    choices: list[str]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def draw(self, trial: Any) -> str:
        """The value that a trial proposes, as the command line has it."""
        if self.choices:
            return str(trial.suggest_categorical(self.option, self.choices))
        if self.whole:
            return str(trial.suggest_int(self.option, int(self.low), int(self.high), log=self.log))
        return f"{trial.suggest_float(self.option, self.low, self.high, log=self.log):.6g}"


def parse(text: str) -> Space | None:
    """The range that an argument gives; None for an argument of the training.

    Raises ValueError when the range is none.
    """
    option, _, value = text.partition("=")
    if "|" in value:
        return Space(option, [choice.strip() for choice in value.split("|")])
    found = re.fullmatch(r"(.+)\.\.(.+?)(:log)?", value)
    if found is None or "/" in value:
        return None
    try:
        low, high = float(found[1]), float(found[2])
    except ValueError:
        return None
    log = found[3] is not None
    if low >= high or (log and low <= 0):
        raise ValueError(f"{text}: the range needs a lower end below its upper one" + (", above 0 for log" * log))
    whole = all(re.fullmatch(r"-?\d+", end) for end in found.groups()[:2])
    return Space(option, [], low, high, log, whole)


def train(trial: Any, arguments: list[str], directory: Path, metric: str) -> float:
    """One trial: its best validation, or Optuna's TrialPruned when it was ended early.

    Raises:
        ChildProcessError: the run failed.
        ValueError: its validations do not have the metric.
        KeyboardInterrupt: the run has saved before; at a second one it has not.
    """
    import optuna

    reported, is_pruned, key = 0, False, f"valid_{metric}"
    before = validations(directory)  # perhaps made under other metrics.names
    lines: deque[str] = deque(maxlen=100)
    with subprocess.Popen(
        [sys.executable, "-m", "nmt.train", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C comes to this process, which passes it on once
        env={**os.environ, PARENT: str(os.getpid())},
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:  # a validation is a log line, so there is nothing to see before one comes
                lines.append(line.rstrip("\n"))
                for row in validations(directory):
                    if key not in row and row not in before:
                        raise ValueError(lacking(metric, row))
                    if key in row and row["update"] > reported:
                        trial.report(row[key], row["update"])
                        reported = row["update"]
                if reported and not is_pruned and trial.should_prune():
                    process.send_signal(signal.SIGTERM)
                    is_pruned = True
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                print("the trial saves and stops (once more: stop at once)", flush=True)
            if not is_pruned:  # a second signal would mean: at once, as the end of this process does
                process.send_signal(signal.SIGTERM)
            process.communicate()
            raise
    if is_pruned:
        raise optuna.TrialPruned
    if process.returncode:
        raise ChildProcessError(reason_of(process.returncode, lines))
    rows = validations(directory)
    values = [row[key] for row in rows if key in row]
    if not values:
        raise ValueError(lacking(metric, rows[-1] if rows else {}))
    return max(values) if STOP_METRICS[metric] > 0 else min(values)


def validations(directory: Path) -> list[dict[str, Any]]:
    """The rows of the validations of a run so far."""
    return [row for row in logger.read(directory / "metrics.jsonl") if "valid_loss" in row]


def lacking(metric: str, row: dict[str, Any]) -> str:
    """That a validation does not have the metric, and what would give it."""
    there = ", ".join(name for name in STOP_METRICS if f"valid_{name}" in row) or "none"
    needed = "add it to metrics.names, as in metrics.names=[bleu,chrf]"
    if metric == "aer":
        needed = "it needs a file of gold alignments beside the validation text, and a model with attention"
    return f"--metric {metric}: validation gives only {there}; {needed}; another metric needs another NAME"


def search(given: argparse.Namespace) -> None:
    """Makes or continues a study.

    Raises:
        BlockingIOError: another process does.
        ValueError: there is no range, the study is of another metric, or a trial does not have this one.
    """
    spaces = [space for text in given.arguments if (space := parse(text)) is not None]
    fixed = [text for text in given.arguments if parse(text) is None]
    if not spaces:
        raise ValueError("no option has a range, such as optim.learning_rate=1e-4..1e-2:log")
    runs = next((text.partition("=")[2] for text in fixed if text.startswith("runs=")), "runs")
    with contextlib.ExitStack() as owned:
        try:
            owned.enter_context(locked(Path(runs) / given.name))
        except BlockingIOError as error:
            who = str(error).partition(";")[0]
            raise BlockingIOError(f"{who}; wait until it has ended, or give this study another NAME") from None
        optimise(given, spaces, fixed, Path(runs))


def optimise(given: argparse.Namespace, spaces: Sequence[Space], fixed: Sequence[str], runs: Path) -> None:
    """The trials that are left, of a study that belongs to this process alone.

    Args:
        given: the command line.
        spaces, fixed: its arguments with a range, and those of all trials.
        runs: the folder that the folder of the study lies in.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backend = JournalFileBackend(str(runs / given.name / "optuna.log"))
    study = optuna.create_study(
        study_name=given.name,
        storage=optuna.storages.JournalStorage(backend),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_UP),
        direction="maximize" if STOP_METRICS[given.metric] > 0 else "minimize",
        load_if_exists=True,
    )
    metric = study.user_attrs.get("metric", given.metric)
    if metric != given.metric:  # the values of its trials, and whether more is better
        raise ValueError(f"--metric {given.metric}: the study {given.name} is of {metric}; give another NAME")
    study.set_user_attr("metric", metric)
    # Another seed in every sitting, or the proposals of the first one would come again.
    study.sampler = optuna.samplers.TPESampler(seed=given.seed + 1000 * len(study.trials))
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # left by a study that was interrupted
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)

    def objective(trial: Any) -> float:
        drawn = [f"{space.option}={space.draw(trial)}" for space in spaces]
        name = f"{given.name}/{run_name((), drawn)}"
        print(f"trial {trial.number}: {' '.join(drawn)}", flush=True)
        begin = time.monotonic()
        try:
            value = train(trial, [*fixed, *drawn, f"name={name}"], runs / name, given.metric)
        except optuna.TrialPruned:
            print(f"trial {trial.number}: ended early after {time.monotonic() - begin:.0f} s", flush=True)
            raise
        except ChildProcessError as error:
            print(f"trial {trial.number}: failed: {error}", flush=True)
            raise
        except KeyboardInterrupt:
            study.enqueue_trial(trial.params)
            raise
        print(f"trial {trial.number}: {given.metric} {value:.4g} in {time.monotonic() - begin:.0f} s", flush=True)
        return value

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    left = given.trials - len(study.get_trials(states=ended))
    if left > 0:
        study.optimize(objective, n_trials=left, catch=(ChildProcessError,))
    tell_best(study, given.metric)


def tell_best(study: Any, metric: str) -> None:
    """What was found, and how many trials it took."""
    import optuna

    counts = {state.name.lower(): len(study.get_trials(states=[state])) for state in optuna.trial.TrialState}
    print(", ".join(f"{number} {state}" for state, number in counts.items() if number))
    try:
        best = study.best_trial
    except ValueError:
        raise ValueError("no trial was finished") from None
    print(f"best: {metric} {best.value:.4g} with {' '.join(f'{name}={value}' for name, value in best.params.items())}")


def main() -> None:
    """Reads the command line; a mistake costs one line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the study, whose runs lie in runs/NAME/")
    parser.add_argument("arguments", nargs="*", metavar="OPTION=RANGE or name=value")
    parser.add_argument("--trials", type=int, default=20, help="how many in all, those of earlier sittings counted")
    parser.add_argument("--metric", choices=STOP_METRICS, default="bleu", help="of the validation set")
    parser.add_argument("--seed", type=int, default=1, help="of the proposals")
    try:
        search(parser.parse_intermixed_args())
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None
    except ImportError:
        raise SystemExit('error: needs Optuna: run pip install "nmt-attention[optimise]"') from None
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
