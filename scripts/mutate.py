"""Change random places of the code, one at a time, and count the changes that no test notices.

    python scripts/mutate.py --sample 300 --seed 1 --jobs 2

The tests run once under a line tracer, in child processes too, to learn which test runs which line. Each mutant is then
written into a copy of the tree and tried on the passing tests that run its line, until one fails: those of the mirrored
file first, the shortest first. The parent has imported the large libraries and forks for each mutant. Results are JSON
lines in a folder named after a digest of code and tests, so that the same command given again goes on where it stopped.
"""

import argparse
import contextlib
import hashlib
import importlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mutation_operators import Mutant, changed, diff, name_of, sample

MODULES = [
    *("nmt/attention/*.py", "nmt/search/*.py", "nmt/alignment/*.py", "nmt/checkpoint.py"),
    *(f"nmt/compare/{name}.py" for name in ("statistics", "comparison", "grouping")),
    *(f"nmt/data/{name}.py" for name in ("batching", "batch_sampler", "corpus", "preprocessing", "cache")),
    *(f"nmt/data/{name}.py" for name in ("subword_sampling", "word_alignments")),
    *("nmt/evaluation/significance.py", "nmt/training/losses.py", "nmt/training/objective.py", "nmt/training/optim.py"),
    *(f"nmt/training/{name}.py" for name in ("trainer", "validation", "early_stopping", "rescoring", "distributed")),
    *(f"nmt/training/{name}.py" for name in ("checkpointing", "progress", "ema")),
]
EXCLUDED = "nmt/attention/additive_kernel_triton.py"  # needs a GPU
PRELOADED = ["numpy", "torch", "scipy.stats", "hydra", "sentencepiece", "sacrebleu", "datasets", "matplotlib.pyplot"]
BEAT = "beat"
MEMORY = 8 << 30  # bytes of a process
TRACED = """import atexit, coverage, os
tracer = coverage.Coverage(**{}, context=os.environ.get("PYTEST_CURRENT_TEST"))
tracer.set_option("run:disable_warnings", ["no-data-collected"])
tracer.start()
atexit.register(lambda: (tracer.stop(), tracer.save()))
"""  # for processes that tests start


class Recorder:
    """Labels what runs, and keeps time, outcome and fixtures of tests; a shared fixture has its own label."""

    def __init__(self, file: str, tracer: Any) -> None:
        self.file, self.label = file, tracer.switch_context
        self.tests = defaultdict[str, list[Any]](lambda: [0.0, True, []])
        self.label(file)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.label(nodeid)

    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> None:
        shared = fixturedef.scope != "function"
        self.label(f"{self.file} {fixturedef.argname}" if shared else request.node.nodeid)

    def pytest_runtest_call(self, item: Any) -> None:
        self.label(item.nodeid)

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        seconds, passed, _ = self.tests[item.nodeid]
        self.tests[item.nodeid] = [seconds + call.duration, passed and call.excinfo is None, list(item.fixturenames)]


def fork(copy: Path, body: Callable[[], int]) -> int:
    """Run the body in a forked process with the copy as its working directory and first place of imports."""
    if pid := os.fork():
        return pid
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))  # a mutant may append for ever
        os.setsid()
        os.chdir(copy)
        scratch(copy).mkdir(exist_ok=True)
        os.environ.update(PYTHONPATH=str(copy), MUTATE=str(copy), PYTEST_DEBUG_TEMPROOT=str(scratch(copy)))
        sys.path.insert(0, str(copy))
        sys.argv = ["pytest"]
        with (copy / "log.txt").open("wb") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os._exit(body())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


def scratch(copy: Path) -> Path:
    """Return the folder of the tests' temporary files."""
    return copy.with_name(f"{copy.name}-files")


def end(pid: int, copy: Path) -> None:
    """End a forked process and all that it started, also in sessions of their own; remove its files."""
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"\0MUTATE={copy}\0".encode() in b"\0" + path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)
    shutil.rmtree(scratch(copy), ignore_errors=True)


class Heartbeat:
    """Touches a file at the start of each test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def pytest_runtest_logstart(self) -> None:
        self.path.touch()


def schedule(tasks: list[Any], copies: list[Path], body: Callable[[Any, Path], int], limit: Callable[[Any], float],
             finish: Callable[[Any, Path, int | None, float], None]) -> None:  # fmt: skip
    """Run each task in a forked process on a free copy; one that takes longer than its limit for a single test, in
    seconds, ends with status None."""
    waiting, free, running = tasks[::-1], list(copies), dict[int, tuple[Any, Path, float]]()
    try:
        while waiting or running:
            while waiting and free:
                task, copy = waiting.pop(), free.pop()
                running[fork(copy, lambda task=task, copy=copy: body(task, copy))] = task, copy, time.time()
            time.sleep(0.02)
            for pid, (task, copy, begun) in list(running.items()):
                beat, seconds = scratch(copy) / BEAT, time.time() - begun
                idle = min(seconds, time.time() - beat.stat().st_mtime) if beat.exists() else seconds
                done, status = os.waitpid(pid, os.WNOHANG)
                if done or idle > limit(task):
                    end(pid, copy)
                    if not done:
                        os.waitpid(pid, 0)
                    del running[pid]
                    free.append(copy)
                    finish(task, copy, status if done else None, seconds)
    finally:
        for pid, (_, copy, _) in running.items():
            end(pid, copy)


def record(root: Path, copies: list[Path], targets: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run all tests under the tracer; return seconds by passing test, tests by label, and labels by file and line."""
    try:
        import coverage
    except ModuleNotFoundError:
        raise SystemExit("error: coverage.py is not installed: python -m pip install -e '.[dev]'") from None
    import pytest

    files = sorted({path.relative_to(root).as_posix() for pattern in options.tests for path in root.glob(pattern)})
    seconds: dict[str, float] = {}
    users, lines = defaultdict[str, list[str]](list), defaultdict[str, set[str]](set)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"data_file": f"{folder}/lines", "data_suffix": True, "config_file": False}
        for copy in copies:
            include = settings | {"include": [str(copy / path) for path in targets]}
            (copy / "sitecustomize.py").write_text(TRACED.format(include))

        def body(file: str, copy: Path) -> int:
            tracer = coverage.Coverage(**settings, include=[str(copy / path) for path in targets])
            tracer.start()
            recorder = Recorder(file, tracer)
            code = pytest.main([file, *options.pytest], plugins=[recorder])
            tracer.stop()
            tracer.save()
            Path(f"{folder}/tests-{os.getpid()}").write_text(json.dumps(recorder.tests))
            return int(code)

        def finish(file: str, copy: Path, status: int | None, duration: float) -> None:
            print(f"{file}: {duration:.0f} s{' (some fail, or none)' if status else ''}", flush=True)

        schedule(files, copies, body, lambda _: 1800, finish)
        for path in Path(folder).glob("tests-*"):
            for test, (duration, passed, fixtures) in json.loads(path.read_text()).items():
                file = test.partition("::")[0]
                seconds |= {test: duration} if passed else {}
                for label in [test, file, *(f"{file} {fixture}" for fixture in fixtures)] if passed else []:
                    users[label].append(test)
        for path in Path(folder).glob("lines.*"):
            data = coverage.CoverageData(str(path))
            data.read()
            for name in data.measured_files():
                copy = next(copy for copy in copies if Path(name).is_relative_to(copy))
                for line, labels in data.contexts_by_lineno(name).items():
                    lines[f"{Path(name).relative_to(copy)}:{line}"] |= {
                        re.sub(r"::.* \(setup\)$| \(\w+\)$", "", label) for label in labels
                    }
    for copy in copies:
        (copy / "sitecustomize.py").unlink()
    return {"seconds": seconds, "users": users, "lines": {line: sorted(labels) for line, labels in lines.items()}}


def select(mutant: Mutant, known: dict[str, Any], limit: float) -> tuple[list[str], bool]:
    """Return tests that run the mutant, nearest and shortest first, of at most so many seconds, and whether all."""
    keys = [f"{mutant.path}:{line}" for line in mutant.lines] or [
        k for k in known["lines"] if k.startswith(mutant.path + ":")
    ]
    labels = {label for key in keys for label in known["lines"].get(key, ())}
    if not mutant.lines:  # whoever imports the file would be all
        labels = {label for label in labels if "::" in label or " " in label} or labels
    path = Path(mutant.path.replace("nmt", "tests", 1))
    seconds = known["seconds"]

    def rank(test: str) -> tuple[int, float]:
        file = Path(test.partition("::")[0])
        return 2 - (file.parent == path.parent) - (file == path.with_name(f"test_{path.name}")), seconds[test]

    tests = sorted({test for label in labels for test in known["users"].get(label, ())}, key=rank)
    chosen, total = [], 0.0
    for test in tests:
        if not chosen or total + seconds[test] <= limit:
            chosen.append(test)
            total += seconds[test]
    by_file = defaultdict(list)  # a file's tests together, for its fixtures
    for test in chosen:
        by_file[rank(test)[0], test.partition("::")[0]].append(test)
    groups = sorted(by_file.items(), key=lambda group: (group[0][0], sum(seconds[test] for test in group[1])))
    return [test for _, group in groups for test in group], len(chosen) == len(tests)


def run_mutants(mutants: list[Mutant], sources: dict[str, str], known: dict[str, Any], copies: list[Path],
                options: argparse.Namespace, results: Path) -> None:  # fmt: skip
    """Try the mutants that have no result yet, and append each result."""
    import pytest

    tests = {mutant: select(mutant, known, options.limit) for mutant in mutants}
    begun, count = time.monotonic(), 0

    def body(mutant: Mutant, copy: Path) -> int:
        (copy / mutant.path).write_text(changed(mutant, sources[mutant.path]) or "")
        os.utime(copy / mutant.path, (mutants.index(mutant), mutants.index(mutant)))  # compiled files are known by time
        beat = Heartbeat(scratch(copy) / BEAT)
        for _, group in itertools.groupby(tests[mutant][0], key=lambda test: test.partition("::")[0]):
            if code := pytest.main(["-x", "-q", "--tb=line", *options.pytest, *group], plugins=[beat]):
                return int(code)
        return 0

    def limit(mutant: Mutant) -> float:
        return options.grace + 5 * max((known["seconds"][test] for test in tests[mutant][0]), default=0.0)

    def finish(mutant: Mutant, copy: Path, status: int | None, seconds: float) -> None:
        nonlocal count
        count += 1
        (copy / mutant.path).write_text(sources[mutant.path])
        os.utime(copy / mutant.path, (10**9, 10**9))
        outcome = "timeout" if status is None else "killed" if status else "survived"
        if not tests[mutant][0]:
            outcome = "no test"
        elif outcome == "survived" and not tests[mutant][1]:
            outcome = "survived within the limit"
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", (copy / "log.txt").read_text(errors="replace"), re.M)
        result = {"id": name_of(mutant), "outcome": outcome, "path": mutant.path, "line": mutant.line}
        result |= {"operator": mutant.operator, "seconds": round(seconds, 1), "tests": len(tests[mutant][0])}
        result |= {"by": failed[1] if failed and status else "", "diff": diff(mutant, sources[mutant.path])}
        with results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        left = (time.monotonic() - begun) / count * (len(mutants) - count) / 60
        print(f"{count}/{len(mutants)}, {left:.0f} min left: {outcome}: {name_of(mutant)} {result['by']}", flush=True)

    schedule(mutants, copies, body, limit, finish)


def report(results: list[dict[str, Any]], folder: Path) -> None:
    """Print a table by module and write the survivors as diffs."""
    table = defaultdict[str, Counter[str]](Counter)
    for result in results:
        for row in (result["path"], "all"):
            table[row][result["outcome"]] += 1
    outcomes = ["killed", "timeout", "survived", "survived within the limit", "no test"]
    print("| module | mutants | " + " | ".join(outcomes) + " |\n|---|" + "--:|" * (len(outcomes) + 1))
    for row in sorted(table, key=lambda row: (row == "all", row)):
        print(
            f"| {row} | {table[row].total()} | " + " | ".join(str(table[row][outcome]) for outcome in outcomes) + " |"
        )
    alive = [result for result in results if result["outcome"] not in outcomes[:2]]
    text = "".join(f"# {result['outcome']}: {result['operator']}\n{result['diff']}\n" for result in alive)
    (folder / "survivors.diff").write_text(text)
    print(f"noticed {1 - len(alive) / max(len(results), 1):.1%}; survivors: {folder / 'survivors.diff'}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=300, help="mutants, one to a line (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="of the draw (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (default: 1)")
    parser.add_argument("--limit", type=float, default=40, help="seconds of tests for each mutant (default: 40)")
    parser.add_argument("--grace", type=float, default=20, help="a test hangs after these and 5 times its seconds")
    parser.add_argument("--preloaded", nargs="*", default=PRELOADED, help="libraries that the parent imports")
    parser.add_argument(
        "--modules", nargs="+", default=MODULES, help="patterns of files (default: where it matters most)"
    )
    parser.add_argument(
        "--tests", nargs="+", default=["tests/**/test_*.py"], help="patterns of files (default: all tests)"
    )
    parser.add_argument("--slow", action="store_true", help="run the slow tests too")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the tree (default: this one)")
    parser.add_argument("--out", type=Path, help="folder of the results (default: runs/mutation in the tree)")
    return parser.parse_args()


def main() -> None:
    begun, options = time.monotonic(), parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = options.root.resolve()
    paths = sorted({path.relative_to(root).as_posix() for pattern in options.modules for path in root.glob(pattern)})
    sources = {path: (root / path).read_text() for path in paths if path != EXCLUDED}
    options.pytest = ["-q", "-p", "no:cacheprovider", *(["-m", "slow or not slow"] if options.slow else [])]
    digest = hashlib.sha256(repr((sorted(sources), options.tests, options.slow)).encode())
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    files = [path for path in sorted(set(listed.stdout.splitlines())) if (root / path).is_file()]
    for path in files:
        if path.startswith(("nmt/", "tests/", "configs/")):
            digest.update(path.encode() + (root / path).read_bytes())
    folder = (options.out or root / "runs/mutation") / digest.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.update(OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # loading plugins takes a second
    for name in options.preloaded:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutate-", ignore_cleanup_errors=True) as work:
        copies = [Path(work).resolve() / str(job) for job in range(options.jobs)]
        for copy in copies:
            for path in files:
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / path, copy / path)
        if not (folder / "map.json").exists():
            known = record(root, copies, list(sources), options)
            (folder / "map.part").write_text(json.dumps(known))
            (folder / "map.part").rename(folder / "map.json")
            print(f"{len(known['seconds'])} tests recorded in {(time.monotonic() - begun) / 60:.1f} min", flush=True)
        known, results = json.loads((folder / "map.json").read_text()), folder / "results.jsonl"
        mutants = sample(sources, options.sample, options.seed)
        done = {json.loads(line)["id"]: json.loads(line) for line in results.open()} if results.exists() else {}
        todo = [mutant for mutant in mutants if name_of(mutant) not in done]
        run_mutants(todo, sources, known, copies, options, results)
        done = {json.loads(line)["id"]: json.loads(line) for line in results.open()}
    report([done[name_of(mutant)] for mutant in mutants], folder)
    print(f"{(time.monotonic() - begun) / 60:.1f} min")


if __name__ == "__main__":
    main()
