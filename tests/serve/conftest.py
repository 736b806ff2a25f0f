"""Small models as runs, a running server of them, and a client."""

import faulthandler
import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from nmt import checkpoint
from nmt.alignment import AlignmentSource, StoredAlignmentSource
from nmt.cli.configs import Config, ServeConfig
from nmt.config import to_dict
from nmt.data import PAD, Tokenizer, TokenizerConfig, collate
from nmt.models import MODELS, build_model

pytest.importorskip("fastapi", reason="FastAPI is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

TEXT = "the old man reads a long book in green garden and small dogs see seven red houses"
WORDS = TEXT.split()
CPU = torch.device("cpu")


def sentences(num: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 7))) for _ in range(num)]


def make_run(
    folder: Path, tokenizer: Tokenizer, architecture: str, carried: StoredAlignmentSource, **options: Any
) -> None:
    """Write a run whose model is partly trained to copy in capitals."""
    config = Config()
    config.model = MODELS[architecture].config()
    small = {
        "d_model": 16,
        "ffn_dim": 16,
        "embedding_dim": 16,
        "hidden_size": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
    }
    for name, value in {**small, **options}.items():
        node, _, last = name.rpartition("__")
        target = getattr(config.model, node) if node else config.model
        if hasattr(target, last):
            setattr(target, last, value)
    config.data.source_lang, config.data.target_lang, config.data.max_length = "en", "de", 40
    config.data.format, config.data.valid = "text", str(folder / "valid")  # whose files are not there
    config.search.max_length_ratio, config.search.max_length_offset = (
        0.7,
        6,
    )  # translations of untrained lines do not end
    config.search.min_length_offset = 3
    config.model.validate()
    torch.manual_seed(3)
    model = build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for update in range(60):
        rows = sentences(8, update)
        targets = tokenizer.encode_target([row.upper() for row in rows])
        batch = collate(tokenizer.encode_source(rows), targets)
        logits, _ = model(batch.source, batch.source_mask, batch.inputs)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    content = {
        "config": to_dict(config),
        "tokenizer": tokenizer.state_dict(),
        "model": model.state_dict(),
        "alignment_source": carried.to_dict(),
    }
    (folder / "checkpoints").mkdir(parents=True)
    checkpoint.save(folder / "checkpoints" / "best.pt", content)
    (folder / "report").mkdir()
    lines = [json.dumps({"source": source}) + "\n" for source in ("the " * 30, "the old man", "seven red houses")]
    (folder / "report" / "sentences.jsonl").write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return runs of a Transformer with two layers and two heads, an RNN with one head, and one without attention."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [(row, row.upper()) for row in sentences(200, -1)]
    tokenizer = Tokenizer.train(TokenizerConfig(type="bpe", vocab_size=400), rows)
    selected = StoredAlignmentSource(AlignmentSource(2, 1, 0, False), "AER on the validation set")
    heads = {f"{node}__heads": 2 for node in ("attention", "encoder_self_attention", "decoder_self_attention")}
    make_run(folder / "deep", tokenizer, "transformer", selected, **heads)
    make_run(
        folder / "plain", tokenizer, "rnn", StoredAlignmentSource(), attention__score="additive", attention__dim=16
    )
    make_run(folder / "none", tokenizer, "rnn", StoredAlignmentSource(), attention__score="none")
    return folder


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of an error response."""
        assert list(self.json) == ["error"]
        text = self.json["error"]
        assert text
        assert "\n" not in text
        assert "Traceback" not in text
        return str(text)


class Client:
    def __init__(self, port: int, worker: Any) -> None:
        self.port = port
        self.worker = worker  # of its server
        self.jobs = worker._jobs  # submitted and not finished
        self.stop: Callable[[], None]  # stops its server

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def post(self, path: str, content: Any = None, *, raw: bytes | None = None, **headers: str) -> Reply:
        body = json.dumps(content).encode() if raw is None else raw
        return self.ask("POST", path, body, **{"Content_Type": "application/json", **headers})


Serve = Callable[..., Client]


@contextmanager
def serving(runs: Path, models: list[str], change: Callable[[Any], None], **options: Any) -> Iterator[Client]:
    from nmt.serve.app import make_app
    from nmt.serve.model_thread import ModelWorker
    from nmt.serve.models import load_models
    from nmt.serve.server import listen, make_server

    config = ServeConfig(checkpoint=[str(runs / name) for name in models], port=0, device="cpu", **options)
    config.validate()
    served = load_models(config, [f"{name}=" for name in options])
    change(served)
    listening = listen(config.host, config.port)
    worker = ModelWorker(config.queue_size, config.timeout)
    server = make_server(make_app(served, config, worker), config.timeout, worker.cancel_all)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Client(listening.getsockname()[1], worker)
    finally:
        server.should_exit = True
        thread.join(20)
        worker.close()
        listening.close()
        if thread.is_alive():
            faulthandler.dump_traceback()  # shows where it hangs
        assert not thread.is_alive()


@pytest.fixture
def serve(runs: Path) -> Iterator[Serve]:
    """Return a function that starts a server of some runs, with options; `change` may alter the models."""
    stacks: list[ExitStack] = []

    def start(*names: str, change: Callable[[Any], None] = lambda served: None, **options: Any) -> Client:
        stack = ExitStack()
        client = stack.enter_context(serving(runs, list(names or ("deep", "plain", "none")), change, **options))
        client.stop = stack.close
        stacks.append(stack)
        return client

    yield start
    for stack in reversed(stacks):
        stack.close()


@pytest.fixture(scope="session")
def client(runs: Path) -> Iterator[Client]:
    """Return a client of one server of all runs with the default limits, shared by tests that leave it intact."""
    with serving(runs, ["deep", "plain", "none"], lambda served: None) as shared:
        yield shared


@pytest.fixture
def slow() -> Callable[[Any], None]:
    """Return a change of models that makes every step slow."""

    def change(served: Any) -> None:
        for model in served:
            step = model.translator.model.step

            def slowly(*arguments: Any, step: Any = step, **options: Any) -> Any:
                time.sleep(0.05)
                return step(*arguments, **options)

            model.translator.model.step = slowly

    return change
