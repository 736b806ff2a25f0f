"""Check pretended CUDA operator by operator; test_pretended_cuda.py reads the JSON line of failures."""

import contextlib
import copy
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pretended_cuda as cuda
import torch
from report import run_checks
from torch import Tensor, nn

ops = torch.ops.aten
CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


@contextlib.contextmanager
def refused(kind: type[Exception], message: str) -> Iterator[None]:
    """Raise AssertionError unless the block raises such an error."""
    try:
        yield
    except kind as error:
        if message not in str(error):
            raise
    else:
        raise AssertionError(f"{message}: no {kind.__name__}")


def numbers(*shape: int) -> Tensor:
    """Return different numbers on cuda:0, whose upload is not counted by a later `counted`."""
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape).cuda()


def places() -> Tensor:
    return torch.tensor([2, 0], device="cuda")


@check
def misplaced_tensors_are_refused() -> None:
    x, index, here = numbers(3, 4), places(), torch.ones(3, 4)
    layer, lstm = nn.Linear(4, 2), nn.LSTM(4, 2).cuda()
    for name, wrong in {
        "add": lambda: x + here,
        "add_": lambda: here.add_(x),
        "matmul": lambda: x @ here.t(),
        "linear": lambda: layer(x),
        "cat": lambda: torch.cat([x, here]),
        "stack": lambda: torch.stack([x, here]),
        "where": lambda: torch.where(x > 0, x, here),
        "mask": lambda: x.masked_fill(here > 0, 0.0),
        "embedding": lambda: nn.functional.embedding(torch.tensor([1]), x),
        "index_select": lambda: x.index_select(0, torch.tensor([1])),
        "gather": lambda: x.gather(0, torch.zeros(1, 4, dtype=torch.long)),
        "index with cuda:0 on the CPU": lambda: here[index],
        "foreach": lambda: torch._foreach_add([x], [here]),
        "attention": lambda: nn.functional.scaled_dot_product_attention(x, x, here),
        "attention mask": lambda: nn.functional.scaled_dot_product_attention(x, x, x, here[:, :3] > 0),
        "lstm": lambda: lstm(x, (torch.zeros(1, 2), torch.zeros(1, 2))),
        "kernel": lambda: cuda.one_launch("kernel", torch.add)(x, here),
        "a number where kernels want tensors": lambda: torch.cat([x.flatten()[:1], torch.tensor(1.0)[None]]),
    }.items():
        with refused(cuda.MixedDevicesError, ""):
            wrong()
            print(name, "took tensors of two devices", file=sys.stderr)
    torch.testing.assert_close(cuda.values(x + torch.tensor(1.0)), cuda.values(x) + 1)  # as CUDA kernels do


@check
def every_kind_of_wait_is_counted() -> None:
    x, mask, counts, index = numbers(3, 4), numbers(3, 4) > 0, torch.tensor([1, 2, 0], device="cuda"), places()
    pinned, into = torch.ones(4).pin_memory(), torch.empty(4, device="cuda")
    for kind, action in (
        ("item", lambda: x.sum().item()),
        ("item", lambda: float(x[0, 0])),
        ("item", lambda: bool(mask.all())),
        ("item", lambda: x[0, 0] if x.any() else None),
        ("tolist", lambda: x.tolist()),
        ("nonzero", lambda: x.nonzero()),
        ("nonzero", lambda: torch.where(mask)),
        ("masked_select", lambda: x.masked_select(mask)),
        ("boolean index", lambda: x[mask]),
        ("boolean index", lambda: x.index_put_((mask,), x[0, :1])),
        ("repeat_interleave without output_size", lambda: counts.repeat_interleave(counts)),
        ("unique", lambda: counts.unique()),
        ("equal", lambda: torch.equal(x, x)),
        ("copy to the processor", lambda: x.cpu()),
        ("copy to the processor", lambda: x.to("cpu", torch.float64)),
        ("copy to the processor", lambda: torch.empty(3, 4).copy_(x)),
        ("copy to the device", lambda: x[:, [0, 2]]),
        ("copy to the device", lambda: torch.tensor([1, 2], device="cuda")),
        ("copy to the device", lambda: torch.ones(3).cuda()),
        ("copy to the device", lambda: into.copy_(torch.ones(4))),
        ("copy to the device", lambda: pinned.to("cuda")),
        ("copy to the device from pageable memory", lambda: torch.ones(3).to("cuda", non_blocking=True)),
        ("copy to the device from pageable memory", lambda: pinned[[0, 1]].to("cuda", non_blocking=True)),
        ("copy to the device from pageable memory", lambda: into.copy_(torch.ones(4), non_blocking=True)),
        ("index sent to the device", lambda: x[torch.tensor([0, 1])]),
        ("synchronize", torch.cuda.synchronize),
    ):
        with cuda.counted() as found:
            action()
        assert [*found.waits.elements()] == [(kind, "the test")], (kind, found)
    for name, action in {
        "index": lambda: x[index],
        "number as index": lambda: x[1:, 2],
        "masked_fill": lambda: x.masked_fill(mask, 0.0),
        "mask and number": lambda: x.__setitem__(mask, 0.0),
        "where": lambda: torch.where(mask, x, 0.0),
        "repeat_interleave with output_size": lambda: counts.repeat_interleave(counts, output_size=3),
        "repeat_interleave of a number": lambda: x.repeat_interleave(2, 0),
        "pinned": lambda: pinned.to("cuda", non_blocking=True),
        "part of pinned": lambda: into[:2].copy_(pinned[1:3], non_blocking=True),
        "factory": lambda: torch.arange(3, device="cuda") + torch.full((3,), 2, device="cuda"),
        "number to the device": lambda: into[0].copy_(torch.tensor(1.0)),
        "sort": lambda: (x.sort(), x.topk(2), x.cumsum(0), x.argmax(-1)),
        "to where it is": lambda: x.to("cuda"),
        "repeat": lambda: x.new_zeros(2).expand(3, 2).reshape(-1),
    }.items():
        with cuda.counted() as found:
            action()
        assert not found.waits, (name, found)


@check
def launches_are_those_of_cuda() -> None:
    x, weights = numbers(2, 5, 4), [numbers(4, 4).requires_grad_() for _ in range(3)]
    gru = nn.GRU(4, 3, batch_first=True).cuda()
    for number, action in (
        (0, lambda: x.view(10, 4).t()[1:].unsqueeze(0).expand(2, -1, -1)),
        (0, lambda: x.unbind(1)),
        (0, lambda: x.new_zeros(0) + 1),
        (1, lambda: x + 1),
        (1, lambda: nn.functional.linear(x, weights[0], x[0, 0])),
        (1, lambda: torch._foreach_add_([x.detach() for _ in range(9)], 1.0)),
        (1, lambda: nn.functional.scaled_dot_product_attention(x, x, x)),
        (2, lambda: gru(x)),  # and its initial state
        (1, lambda: cuda.one_launch("kernel", lambda a: (a.exp() + 1).log())(x)),
    ):
        with cuda.counted() as found:
            action()
        assert found.launches.total() == number, found
    out = gru(x.clone().requires_grad_())[0]
    with cuda.counted() as found:
        torch.autograd.backward(out, torch.ones_like(out.detach()))
    assert found.launches["backward of cudnn_gru float32"] == 1, found


@check
def counting_ends_with_its_block() -> None:
    x = numbers(2)
    with cuda.counted() as found:
        x + 1
    x + 1
    assert found.summary() == {"launches": 1, "waits": 0, "where": {}}, found


@check
def views_share_their_memory() -> None:
    x = numbers(3, 4)
    x[1].zero_()
    x.t()[0].add_(10)
    row = x[2]
    row[1:3] = 7.0
    assert cuda.values(x).tolist()[1] == [10, 0, 0, 0], x
    assert cuda.values(x)[2, 1:3].tolist() == [7, 7], x
    leaf = numbers(3, 4).requires_grad_()
    doubled = leaf * 2
    doubled[0].mul_(3)
    doubled.sum().backward()
    assert cuda.values(leaf.grad).tolist() == [[6] * 4, [2] * 4, [2] * 4], leaf.grad


@check
def a_model_is_moved_as_on_cuda() -> None:
    """Parameters stay the same objects, tied ones tied, and come back; copies are as the original."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(6, 4), nn.LSTM(4, 4, batch_first=True))
    model.register_buffer("constant", torch.ones(2))
    model.output = nn.Linear(4, 6)
    model.output.weight = model[0].weight
    parameters, before = list(model.parameters()), copy.deepcopy(model.state_dict())
    model.to("cuda")
    assert [id(x) for x in model.parameters()] == [id(x) for x in parameters]
    assert model.output.weight is model[0].weight
    for moved in (model, copy.deepcopy(model)):
        assert moved.output.weight is moved[0].weight
        assert {x.device.type for x in moved.state_dict().values()} == {"cuda"}
        assert all(isinstance(x, nn.Parameter) and x.requires_grad for x in moved.parameters())
        torch.testing.assert_close(cuda.values(moved.state_dict()), before)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    torch.testing.assert_close(torch.load(stored, weights_only=True), before)
    model.load_state_dict({name: x + 1 for name, x in before.items()})
    torch.testing.assert_close(cuda.values(model.state_dict()), {name: x + 1 for name, x in before.items()})
    model.to("cpu")
    assert {type(x) for x in model.parameters()} == {nn.Parameter}


@check
def an_update_equals_the_cpu() -> None:
    """Autograd, autocast to fp32, dropout from the same generator, clipping, fused AdamW that may be told to skip."""
    for skip in (0.0, 1.0):
        weights = []
        for place in ("cpu", "cuda"):
            torch.manual_seed(1)
            model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
            model.to(place)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
            optimizer.found_inf = torch.full((), skip, device=place)
            for _ in range(3):
                x = torch.linspace(-1, 1, 20).view(5, 4).to(place)
                loss = nn.functional.cross_entropy(model(x), torch.arange(5, device=place) % 3)
                optimizer.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1, foreach=True)
                optimizer.step()
            weights.append(cuda.values([norm, *model.parameters()]))
        torch.testing.assert_close(*weights)


@check
def autocast_is_that_of_cuda() -> None:
    x, layer = numbers(2, 5, 4), nn.Linear(4, 4).cuda()
    with torch.autocast("cuda", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert torch.softmax(layer(x), -1).dtype == torch.float32  # on a CPU it stays bf16
        assert nn.functional.scaled_dot_product_attention(x, x, x).dtype == torch.bfloat16
    for function in (torch.softmax, torch.log_softmax):
        scores = numbers(3, 4).half().requires_grad_()
        with torch.autocast("cuda", torch.float16), cuda.counted() as counts:
            weights = function(scores, -1)
        assert weights.dtype == torch.float32
        assert [*counts.launches] == ["_softmax" if function is torch.softmax else "_log_softmax"], counts
        gradient = torch.autograd.grad(weights[0, 1], scores)[0]
        here = cuda.values(scores).float().requires_grad_()
        expected = torch.autograd.grad(function(here, -1)[0, 1], here)[0]
        assert gradient.dtype == torch.float16
        torch.testing.assert_close(cuda.values(gradient).float(), expected, rtol=1e-3, atol=1e-4)
    with refused(RuntimeError, "one dtype"):
        nn.functional.scaled_dot_product_attention(x, x, x.bfloat16())


@check
def layers_of_cudnn_equal_torch_and_are_fp16_under_autocast() -> None:
    for kind in (nn.LSTM, nn.GRU):
        torch.manual_seed(0)
        here = kind(4, 3, batch_first=True)
        there, x = copy.deepcopy(here).cuda(), torch.randn(2, 5, 4)
        moved, x = x.cuda().requires_grad_(), x.requires_grad_()
        for layer, inputs in ((here, x), (there, moved)):
            out, last = layer(inputs)
            (out.square().sum() + sum(state.sum() for state in last)).backward()
        torch.testing.assert_close(cuda.values([moved.grad, *(p.grad for p in there.parameters())]),
                                   [x.grad, *(p.grad for p in here.parameters())])  # fmt: skip
        there.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            out, _ = there(moved.detach())
        assert out.dtype == torch.float16, out.dtype
        (out.float() * 1e-9).sum().backward()  # below what fp16 can hold
        assert not cuda.values(there.weight_ih_l0.grad).any()


@check
def fused_cells_equal_torch() -> None:
    for kind, fused in ((nn.LSTMCell, ops._thnn_fused_lstm_cell), (nn.GRUCell, ops._thnn_fused_gru_cell)):
        torch.manual_seed(0)
        cell, x, states = kind(4, 3), torch.randn(2, 4), [torch.randn(2, 3) for _ in range(2 - (kind is nn.GRUCell))]
        leaves = [t.clone().requires_grad_() for t in (x, *states)]
        wanted = cell(leaves[0], tuple(leaves[1:]) if len(states) == 2 else leaves[1])
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        wanted_grads = torch.autograd.grad(sum((y * (1 + n)).square().sum() for n, y in enumerate(wanted)), leaves)
        there = cell.cuda()
        moved = [t.cuda().requires_grad_() for t in (x, *states)]
        gates = nn.functional.linear(moved[0], there.weight_ih), nn.functional.linear(states[0].cuda(), there.weight_hh)
        hidden = nn.functional.linear(moved[1], there.weight_hh)
        with cuda.counted() as found:
            *outputs, _ = fused(gates[0], hidden, moved[-1], there.bias_ih, there.bias_hh)
        assert found.launches.total() == 1, found
        torch.testing.assert_close(cuda.values(outputs), [y.detach() for y in wanted])
        loss = sum((y * (1 + n)).square().sum() for n, y in enumerate(outputs))
        torch.testing.assert_close(cuda.values(torch.autograd.grad(loss, moved)), wanted_grads)
        with refused(RuntimeError, "one dtype"):
            fused(gates[0], hidden.bfloat16(), moved[-1])


@check
def a_graph_is_computed_again_into_the_same_memory() -> None:
    torch.manual_seed(0)
    x, total, layer, cell = numbers(3, 4), torch.zeros(3, 4, device="cuda"), nn.Linear(4, 4).cuda(), nn.GRU(4, 4).cuda()

    def step() -> Tensor:
        total.add_(torch.softmax(layer(x), -1))
        x[1].copy_(total[0])
        return cell(nn.functional.scaled_dot_product_attention(x, x, total))[0].sigmoid()

    with torch.no_grad():
        before = cuda.values((x, total))
        before = before[0].clone(), before[1].clone()
        wanted = []
        for _ in range(3):
            wanted.append([t.clone() for t in cuda.values((x, total, step(), x, total))][2:])
        x.copy_(before[0].pin_memory()), total.copy_(before[1].pin_memory())
        graph = torch.cuda.CUDAGraph()
        with cuda.counted() as counts, torch.cuda.graph(graph):
            out = step()
        assert not counts.launches, "nothing is launched while it is captured"
        torch.testing.assert_close(cuda.values((x, total)), before)
        assert cuda.values(out).isnan().all(), "nothing is computed before the first replay"
        for expected in wanted:
            with cuda.counted() as counts:
                graph.replay()
            assert counts.launches.total() == 1
            assert counts.replayed == 8, counts
            torch.testing.assert_close(list(cuda.values((out, x, total))), expected)
    for wait in (lambda: x.sum().item(), lambda: x[x > 0], lambda: torch.ones(3).to("cuda", non_blocking=True)):
        with refused(RuntimeError, "capturing"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            wait()


@check
def numpy_is_refused() -> None:
    for tensor in (numbers(2), numbers(2).requires_grad_()):
        with refused(TypeError, "cuda:0"):
            tensor.numpy()


def main() -> None:
    def in_device(function: Callable[[], None]) -> Callable[[], Any]:
        def inside() -> None:
            with cuda.device():
                function()

        return inside

    run_checks({name: in_device(function) for name, function in CHECKS.items()})


if __name__ == "__main__":
    main()
