"""Distributed training: the same updates as one process, also when memory runs out or a rank dies."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import nmt
from nmt import checkpoint, train
from nmt.cli.compose import Config, run_command
from nmt.data import collate, pin_memory, select_rows
from nmt.training import distributed, oom, signals
from nmt.training.distributed import DistributedContext, fill_shard, init_distributed
from nmt.training.launcher import _cause
from nmt.training.signals import GracefulShutdown

ROOT = str(Path(nmt.__file__).parent.parent)
UPDATES = 20
# Adam divides by the size of the gradient: with a smaller epsilon, one that is nothing but rounding (of a bias before a
# softmax) would move its weight as far as any other.
TINY = f"""
    data.synthetic.train=300 data.synthetic.valid=4 data.synthetic.test=2 data.synthetic.long=1 data.tokenizer.type=bpe
    data.tokenizer.vocab_size=400 data.tokenizer.subword_regularization=0.1 train.batch_tokens=512
    train.max_updates={UPDATES} train.valid_every=100 train.save_every=5 train.log_every=5 train.precision=fp32
    train.early_stopping_metric=loss train.label_smoothing=0.1 train.gradient_accumulation=2
    optim.learning_rate=1e-3 optim.warmup_updates=5 optim.epsilon=1e-6 search.beam_size=1 search.max_length_ratio=1
    search.max_length_offset=2 model.dropout=0 device=cpu
""".split()
MODELS = {
    "rnn": "{embedding_dim: 16, hidden_size: 16, attention: {dim: 16}}",
    "transformer": "{d_model: 16, ffn_dim: 32, attention: {heads: 2}}",
}
KILLED_AFTER = 5
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "nmt.train"]


def start(arguments: list[str], folder: Path, **streams: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, text=True, **streams)


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of two runs, of two ranks each, that torchrun started."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "configs/experiment").mkdir(parents=True)
    for name, options in MODELS.items():
        text = f"# @package _global_\ndefaults:\n  - override /model: {name}\nmodel: {options}\n"
        (folder / f"configs/experiment/small_{name}.yaml").write_text(text)
    sweep = ["-m", "experiment=small_rnn,small_transformer", "name=torchrun", *TINY]
    finish(start([*TORCHRUN, *sweep], folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return folder


def of_torchrun(work: Path, model: str) -> Path:
    (run,) = (path for path in (work / "runs/torchrun").iterdir() if model in path.name)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    content = checkpoint.load(run / "checkpoints/last.pt")
    assert content["position"]["update"] == UPDATES
    return dict(content["model"])


def losses(run: Path) -> list[tuple[int, float | None, float | None]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["update"], row.get("loss"), row.get("valid_loss")) for row in rows]


@pytest.mark.parametrize("model", ["rnn", pytest.param("transformer", marks=pytest.mark.slow)])
def test_two_ranks_make_the_updates_of_one(work: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    run_command(train.main, Config, "train", [f"experiment=small_{model}", f"name=one_{model}", *TINY])
    single, double = weights(work / f"runs/one_{model}"), weights(of_torchrun(work, model))
    assert max(float((single[name] - double[name]).abs().max()) for name in single) < 1e-6
    for a, b in zip(losses(work / f"runs/one_{model}"), losses(of_torchrun(work, model)), strict=True):
        assert a == pytest.approx(b, abs=1e-5)
    assert (of_torchrun(work, model) / "report/report.html").exists()
    log = (of_torchrun(work, model) / "train.log").read_text()
    assert [log.count(line) for line in ("update 20  epoch", "valid at update 20:")] == [1, 1]  # logged by one rank


def test_a_rank_that_dies_ends_the_run_which_continues_as_if_nothing_had_happened(work: Path) -> None:
    arguments = ["-m", "nmt.train", "name=killed", "train.devices=2", "experiment=small_rnn", *TINY]
    process = start(arguments, work, stderr=subprocess.PIPE)
    last = work / "runs/killed/checkpoints/last.pt"
    deadline = time.monotonic() + 200
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "rank 1 of 2 was ended by SIGKILL" in errors[0]
    assert "the same command continues the run" in errors[0]
    assert not any(Path(f"/proc/{rank}/cmdline").exists() and "spawn" in cmdline(rank) for rank in ranks)
    reached = checkpoint.load(last)["position"]["update"]
    assert KILLED_AFTER <= reached < UPDATES
    finish(start(arguments, work, stderr=subprocess.PIPE))
    assert f"continues at update {reached}" in (work / "runs/killed/train.log").read_text()
    whole, continued = weights(of_torchrun(work, "rnn")), weights(work / "runs/killed")
    assert all(torch.equal(whole[name], continued[name]) for name in whole)
    assert losses(work / "runs/killed") == losses(of_torchrun(work, "rnn"))


@pytest.mark.slow
def test_three_ranks_that_were_interrupted_sum_as_if_they_had_not_been(work: Path) -> None:
    """The rounding of sums of three numbers depends on their order, which depends on DDP's buckets."""
    options = ["train.devices=3", "experiment=small_rnn", "optim.schedule=constant", *TINY]
    for name, updates in (("whole", UPDATES), ("parts", 7), ("parts", UPDATES)):
        arguments = ["-m", "nmt.train", f"name=three_{name}", *options, f"train.max_updates={updates}"]
        finish(start(arguments, work, stderr=subprocess.PIPE))
    whole, parts = (weights(work / f"runs/three_{name}") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def cmdline(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()


def children(process: int) -> list[int]:
    """Return the ranks among the child processes."""
    processes = [
        int(child) for path in Path(f"/proc/{process}/task").glob("*/children") for child in path.read_text().split()
    ]
    return sorted(child for child in processes if "spawn_main" in cmdline(child) or "nmt.train" in cmdline(child))


SCRIPT = '''
import sys
import torch
from torch import nn
from nmt.data import collate, select_rows
from nmt.training.distributed import DistributedContext, init_distributed
from nmt.training.launcher import launch_ranks
from nmt.training.oom import MicroBatches

ROWS = [[[5, 6, 7]] * 6, [[8, 9]] * 5, [[4]]]  # the last batch is an empty shard for the second rank


class Fails(torch.autograd.Function):
    """An operation that runs out of memory in the middle of a backward pass."""

    @staticmethod
    def forward(ctx, x, fails):
        ctx.fails = fails
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        if ctx.fails:
            raise torch.OutOfMemoryError("CUDA out of memory, or so it seems")
        return grad, None


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.unused = nn.Embedding(20, 8), nn.Linear(8, 20), nn.Linear(2, 2)
        self.max_rows = {"forward": 99, "backward": 99}

    def forward(self, batch):
        if len(batch.indices) > self.max_rows["forward"]:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate a lot")
        hidden = Fails.apply(self.first(batch.inputs), len(batch.indices) > self.max_rows["backward"])
        losses = nn.functional.cross_entropy(self.second(hidden).transpose(1, 2), batch.labels, reduction="none")
        return (losses * (batch.labels != 0)).sum()


def gradients(distributed, batches, max_rows):
    torch.manual_seed(distributed.rank)  # the weights of the main process are used
    model = Model()
    if distributed.size == 1:
        torch.manual_seed(0)
        model = Model()
    grad_sync = distributed.wrap(model)
    results = []
    for _ in range(3):
        if distributed.size > 1:
            model.max_rows = dict(max_rows.get(distributed.rank, model.max_rows))
        rows = slice(distributed.rank, None, distributed.size)
        shares = [select_rows(batch, rows)._replace(num_tokens=batch.num_tokens) for batch in batches]
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        micro_batches = MicroBatches(shares, grad_sync, lambda: None, torch.device("cpu"), scaler)
        for micro_batch in micro_batches:
            with micro_batches.catch_oom():
                loss = grad_sync.call(micro_batch)
                micro_batches.backward(loss, loss.detach()[None])
        total = distributed.all_reduce(torch.stack(micro_batches.losses).sum(0))
        results.append([total, *(p.grad for p in model.parameters() if p.grad is not None and p.grad.any())])
    return results, micro_batches.num_split


def task(outcome):
    torch.set_num_threads(1)
    distributed = init_distributed(2, "cpu")
    batches = [collate(rows, rows) for rows in ROWS]
    cases = [({}, 0), ({0: {"forward": 2, "backward": 99}}, 2), ({1: {"forward": 99, "backward": 1}}, 3)]
    for order in ([0, 1, 2], [2, 1, 0]):
        for max_rows, num_split in cases:
            actual, split = gradients(distributed, [batches[i] for i in order], max_rows)
            expected, _ = gradients(DistributedContext(), [batches[i] for i in order], {})
            for a, b in zip(actual, expected, strict=True):
                for x, y in zip(a, b, strict=True):
                    torch.testing.assert_close(x, y)
            assert split == num_split or (num_split == 3 and split >= 3), (max_rows, split)
    if distributed.is_main:
        print("equal")
    if outcome == "fail" and not distributed.is_main:
        raise ValueError("an error of the second rank")


if __name__ == "__main__":
    launch_ranks(task, (sys.argv[1],), 2)
'''


def test_memory_that_runs_out_on_one_rank_neither_hangs_nor_changes_the_gradient(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(SCRIPT)
    process = start(["ranks.py", "fail"], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=200)
    assert out == "equal\n", err
    assert "ValueError: an error of the second rank" in err
    assert process.returncode == 1


WAITING = """
import sys, time
from nmt.training.distributed import init_distributed
from nmt.training.launcher import launch_ranks, report_lost_rank
from nmt.training.signals import GracefulShutdown

def task():
    distributed = init_distributed(2, "cpu")
    with report_lost_rank(True), GracefulShutdown(True) as stop, distributed.leave_together():
        stop.stop_at_once("everything is saved")
        if distributed.is_main:
            print("evaluates", flush=True)
            time.sleep(300)

if __name__ == "__main__":
    from nmt.runtime.errors import report_errors
    with report_errors():
        launch_ranks(task, (), 2)
"""


@pytest.mark.parametrize("killed", ["rank", pytest.param("launcher", marks=pytest.mark.slow)])
def test_nobody_waits_for_ever_while_the_main_process_evaluates(killed: str, tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(WAITING)
    process = start(["ranks.py"], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "evaluates\n"
    ranks = children(process.pid)
    os.kill(ranks[1] if killed == "rank" else process.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)  # to the end of every process: all of them hold the pipes
    if killed == "rank":
        assert process.returncode == 1
        (error,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert "rank 1 of 2 was ended by SIGKILL" in error
    assert "Traceback" not in err


def test_joining_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process is never started."""
    variables = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, "JOIN_TIMEOUT", timedelta(seconds=1))
    monkeypatch.setattr(distributed, "end_with_parent", lambda _: None)
    with pytest.raises(TimeoutError, match=r"rank 0 of 2 could not join the others .*; they wait 0.01\d* min"):
        init_distributed(2, "cpu")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


SLOW = ["data.synthetic.test=600", "data.tokenizer.type=char", "search.beam_size=8"]
"""A test set that takes long to translate."""


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["-m", "nmt.train", "train.devices=2"], TORCHRUN])
@pytest.mark.parametrize("killed", ["rank", "launcher", "SIGHUP", "SIGTERM", "SIGINT"])
def test_an_evaluation_that_is_interrupted_ends_in_time_and_is_done_again(
    killed: str, launcher: list[str], work: Path, tmp_path: Path
) -> None:
    shutil.copytree(work / "configs", tmp_path / "configs")
    arguments = [*launcher, "name=run", "experiment=small_rnn", *TINY, *SLOW]
    process = start(arguments, tmp_path, stderr=subprocess.PIPE)
    log, deadline = tmp_path / "runs/run/train.log", time.monotonic() + 200
    while not (log.exists() and "reached after" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    last = log.parent / "checkpoints/last.pt"
    before = last.read_bytes()
    number = signal.SIGKILL if killed in ("rank", "launcher") else signal.Signals[killed]
    os.kill(children(process.pid)[1] if killed == "rank" else process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert last.read_bytes() == before
    if "torch.distributed.run" not in launcher:
        assert "Traceback" not in err
        assert process.returncode == {"rank": 1, "launcher": -9}.get(killed, 128 + number)
        assert sum(line.startswith("error: ") for line in err.splitlines()) == (killed == "rank")
    finish(start([*arguments, "search.beam_size=1"], tmp_path, stderr=subprocess.PIPE))
    assert (log.parent / "report/report.html").exists()


def test_the_error_of_a_rank_is_reported_as_the_cause() -> None:
    def recorded(text: str) -> dict[str, Any]:
        return {"message": text, "extraInfo": {"py_callstack": "Traceback"}}

    mistake = _cause("rank 1 of 2", 1, recorded("ValueError: no such file"))
    assert (type(mistake), str(mistake)) == (ValueError, "no such file")
    assert "rank 0 of 2 failed (TypeError: x)" in str(_cause("rank 0 of 2", 1, recorded("TypeError: x")))
    assert "rank 1 of 2 ended with exit code 3" in str(_cause("rank 1 of 2", 3, "<NONE>"))


def test_a_number_of_devices_that_was_not_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"train.devices=4: the launcher started 2 processes; leave train.devices out"):
        init_distributed(4, "cpu")
    with pytest.raises(ValueError, match=r"train.devices=2: this machine has \d CUDA devices"):
        init_distributed(2, "cuda")
    with pytest.raises(ValueError, match=r"device=cuda:1: each of 2 processes has a device of its own"):
        DistributedContext(1, 2, 1, 2).device(torch.device("cuda:1"))


def test_ranks_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [DistributedContext(0, size, 0, size).threads(0) for size in (1, 2, 3, 16)] == [0, 4, 2, 1]
    assert DistributedContext(0, 2, 0, 2).threads(3) == 3


def test_a_signal_that_a_launcher_repeats_counts_once(clock_of: Callable[..., list[float]]) -> None:
    now = clock_of(signals)
    with GracefulShutdown(is_distributed=True) as stop:
        signal.raise_signal(signal.SIGINT)
        now[0] += 1
        signal.raise_signal(signal.SIGINT)
        assert stop.received == signal.SIGINT
        assert not stop.requested  # before the ranks are synchronized
        stop.synchronize(stop.received)
        assert stop.requested
        now[0] += 10
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_the_main_process_goes_first_then_one_of_each_machine_then_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank takes part in as many collectives, and works before the one at which those after it wait."""
    events: list[str] = []
    monkeypatch.setattr(DistributedContext, "all_gather", lambda *_: events.append("wait"))
    turns = []
    for rank, local_rank in ((0, 0), (4, 0), (1, 1), (5, 1)):
        events.clear()
        with DistributedContext(rank, 8, local_rank, 4).main_process_first():
            events.append("work")
        turns.append(events.index("work"))
        assert events.count("wait") == 3
    assert turns == [0, 1, 2, 2]


def test_what_was_pinned_stays_pinned_in_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank's share is used as the loader pinned it, and the halves of a batch that does not fit are pinned anew."""
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(oom, "batch_to_device", lambda batch, _: batch)
    cuda, scaler = torch.device("cuda"), torch.amp.GradScaler("cpu", enabled=False)
    batch = pin_memory(collate([[4, 5], [6], [7]], [[4], [5], [6]]), cuda)
    grad_sync = DistributedContext().wrap(torch.nn.Linear(1, 1))
    micro_batches = oom.MicroBatches([batch], grad_sync, lambda: None, cuda, scaler)
    rows = []
    for micro_batch in micro_batches:
        rows.append(len(micro_batch.indices))
        assert all(any(tensor is one for one in pinned) for tensor in micro_batch[:5])
        with micro_batches.catch_oom():
            if rows[-1] == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
    assert rows == [3, 2, 1]


def test_nccl_knows_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", started.append)
    monkeypatch.setattr(distributed, "end_with_parent", lambda _: None)
    monkeypatch.setattr(dist, "new_group", lambda **_: None)
    monkeypatch.setattr(dist.distributed_c10d, "_set_pg_timeout", lambda *_: None)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **named: started.extend([name, named["device_id"]]))
    for kind in ("cuda", "cpu"):
        init_distributed(4, kind)
    assert started == [1, "nccl", torch.device("cuda:1"), "gloo", None]


LEAVING = """
import atexit, sys
import torch.distributed as dist
from nmt.training.distributed import init_distributed, leave_at_exit
from nmt.training.launcher import launch_ranks

def task(runs):
    atexit.register(lambda: print("left" if not dist.is_initialized() else "still joined", flush=True))
    for number in range(runs):  # as in a sweep
        ranks = init_distributed(2, "cpu")
        assert ranks.all_gather((ranks.rank,)) == [[0], [1]]
        if number != 2:  # in which an error comes first
            leave_at_exit()

if __name__ == "__main__":
    launch_ranks(task, (int(sys.argv[1]),), 2)
"""


@pytest.mark.parametrize(("runs", "expected"), [(2, "left"), (3, "still joined")])
def test_the_group_is_left_in_order_at_the_end_of_the_process(runs: int, expected: str, tmp_path: Path) -> None:
    """After the last run, and not after an error."""
    (tmp_path / "leaving.py").write_text(LEAVING)
    process = start(["leaving.py", str(runs)], tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert finish(process).splitlines() == [expected] * 2


@pytest.mark.slow
def test_two_ranks_in_fp16_make_the_updates_of_one(work: Path) -> None:
    """The scaled gradients are summed before the scale is taken out of them, and all ranks have the same scale."""
    options = ["experiment=small_rnn", *TINY, "train.precision=fp16", "optim.epsilon=1e-4", "train.log_every=1"]
    for devices in (1, 2):
        arguments = ["-m", "nmt.train", f"name=fp16_{devices}", *options, f"train.devices={devices}"]
        finish(start(arguments, work, stderr=subprocess.PIPE))
    one, two = (weights(work / f"runs/fp16_{devices}") for devices in (1, 2))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-3
    states = [checkpoint.load(work / f"runs/fp16_{d}/checkpoints/last.pt")["position"]["scaler_state"] for d in (1, 2)]
    assert states == [[65536.0, UPDATES]] * 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU needs a C++ compiler")
def test_compiled_parts_and_several_devices(work: Path) -> None:
    options = ["train.devices=2", "experiment=small_transformer", *TINY, "train.gradient_accumulation=1"]
    for name, compiled in (("plain", "false"), ("compiled", "true")):
        arguments = ["-m", "nmt.train", f"name=two_{name}", *options, f"train.compile={compiled}"]
        finish(start(arguments, work, stderr=subprocess.PIPE))
    plain, compiled = (weights(work / f"runs/two_{name}") for name in ("plain", "compiled"))
    assert max(float((plain[name] - compiled[name]).abs().max()) for name in plain) < 1e-4
    assert "torch.compile made" in (work / "runs/two_compiled/train.log").read_text()
    assert "torch.compile" not in (work / "runs/two_plain/train.log").read_text()


def test_a_rank_beyond_the_rows_of_a_batch_has_one_without_labels() -> None:
    batch = collate([[4, 5], [6]], [[4], [5]])
    shares = [fill_shard(select_rows(batch, slice(rank, None, 4))) for rank in range(4)]
    assert [len(share.label_indices) for share in shares] == [2, 2, 0, 0]
    assert all(
        share.source.shape == (1, 3) and share.source_mask.tolist() == [[True, False, False]] for share in shares[2:]
    )
    assert [len(share.labels) for share in shares] == [1, 1, 1, 1]
    assert torch.equal(torch.cat([share.labels for share in shares[:2]]).sum(), batch.labels.sum())
    assert all(not share.labels.any() for share in shares[2:])
