"""Limits, invalid requests, slow clients and shutdown of the server."""

import contextlib
import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

import nmt
from nmt.cli.compose import run_command
from nmt.cli.configs import ServeConfig
from nmt.search import mbr
from nmt.serve import security, server
from nmt.serve.model_thread import ModelWorker
from nmt.serve.server import listen, make_server

STOPPED = "the server is being stopped"
GOOD = {"model": "plain", "text": "the old man", "beam_size": 2}


def alive(client) -> bool:
    reply = client.post("/api/translate", GOOD)
    return reply.status == 200 and len(reply.json["sentences"]) == 1


@pytest.mark.parametrize(
    ("path", "content", "status", "sentence"),
    [
        ("translate", {}, 422, "text or lines must be given"),
        ("translate", {"text": "a", "lines": ["a"]}, 422, "and not both"),
        ("translate", {"text": 5}, 422, "text=5: input should be a valid string"),
        ("translate", {"lines": ["a", None]}, 422, "lines.1=null: input should be a valid string"),
        ("translate", {"lines": ["a\nb"]}, 422, "lines.0: holds a line feed"),
        ("translate", {"lines": "a"}, 422, 'lines="a": input should be a valid list'),
        ("translate", {"text": "a", "model": "other"}, 422, "model=other: must be one of deep, plain, none"),
        ("translate", {"text": "a", "model": 0}, 422, "model=0: input should be a valid string"),
        ("translate", {"text": "a", "beamsize": 2}, 422, "beamsize: unknown; did you mean beam_size?"),
        ("translate", {"text": "a", "beam_size": 0}, 422, "beam_size=0: input should be greater than or equal to 1"),
        ("translate", {"text": "a", "beam_size": 21}, 422, "beam_size=21: at most 20 (max_beam)"),
        ("translate", {"text": "a", "beam_size": 10**30}, 422, "beam_size="),
        ("translate", {"text": "a", "beam_size": "5"}, 422, "valid integer"),
        ("translate", {"text": "a", "beam_size": True}, 422, "valid integer"),
        ("translate", {"text": "a", "beam_size": 2, "n_best": 3}, 422, "n_best=3: cannot be more than beam_size=2"),
        ("translate", {"text": "a", "length_penalty": -1}, 422, "length_penalty=-1"),
        ("translate", {"text": "a", "length_penalty": float("nan")}, 422, "length_penalty"),
        ("translate", {"text": "a\n" * 51}, 413, "51 sentences are more than 50 (max_sentences)"),
        ("translate", {"lines": ["a", "a" * 2001]}, 413, "lines.1: 2,001 characters are more than 2,000"),
        ("translate", ["text"], 422, "the body"),
        ("stream", {"text": "a", "beam_size": 21}, 422, "max_beam"),
        ("attention", {"source": "a", "target": "a", "markup": True}, 422, "markup: unknown; see /openapi.json"),
        ("attention", {"source": "a"}, 422, "tokens or target must be given"),
        ("attention", {"source": "a", "target": "a", "tokens": []}, 422, "and not both"),
        ("attention", {"target": "a"}, 422, "source: must be given"),
        ("attention", {"source": "a", "tokens": [1, 99_999_999]}, 422, "tokens.1=99999999: must be an id from 0 to"),
        ("attention", {"source": "a", "tokens": [-1]}, 422, "tokens.0=-1: must be an id"),
        ("attention", {"source": "a", "tokens": [2**70]}, 422, "tokens"),
        ("attention", {"source": "a", "target": "a", "layer": 3}, 422, "layer=3: must be 0 (the mean) to 2"),
        ("attention", {"source": "a", "target": "a", "head": -1}, 422, "head=-1: must be 0 (the mean) to 2"),
        ("attention", {"source": "a", "target": "a", "model": "none"}, 422, "has no attention to the source"),
        ("attention", {"source": "red " * 60, "target": "a"}, 413, "source: has"),
        ("attention", {"source": "a", "tokens": [5] * 161}, 413, "tokens: has 161 tokens; at most 160"),
    ],
)
def test_invalid_requests(client, path, content, status, sentence):
    reply = client.post(f"/api/{path}", content)
    assert reply.status == status
    assert sentence in reply.error


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b'{"text": "a"', 400),
        (b'{"text": "\xff"}', 400),
        (b"\x00\x01\x02" * 100, 400),
        (b'{"text": "\\ud800"}', 422),
        (b'{"text": "a", "beam_size": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"text":' * 20_000, 400),
        (b'{"text": NaN}', 422),
        (b'{"text": "a"} {"text": "b"}', 400),
        (b'{"text": "a", "model": "\\ud800"}', 422),
        (b'{"text": "a", "\\ud800": 1}', 422),
    ],
)
def test_broken_json(client, raw, status):
    reply = client.post("/api/translate", raw=raw)
    assert reply.status == status, reply.body
    assert reply.error
    assert alive(client)


def test_unknown_paths_and_methods(client):
    assert "/openapi.json" in client.get("/api/other").error
    assert client.get("/../../etc/passwd").status == 404
    assert client.get("/api/translate").status == 405
    assert client.post("/api/translate", GOOD, Content_Type="text/plain").status == 415
    assert client.post("/api/translate", GOOD, Content_Type="application/x-www-form-urlencoded").status == 415
    assert client.post("/api/translate", GOOD, Content_Type="application/json; charset=utf-8").status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1", "a@b.example"]
)
def test_dns_rebinding_is_refused(client, host):
    for path in ("/", "/api/models"):
        reply = client.get(path, Host=host)
        assert reply.status == 403
        assert "Host" in reply.error
        assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_allowed_hosts(client, serve):
    for host in ("localhost", "localhost:9999", "127.0.0.1:1", "[::1]:80", "192.0.2.1"):
        assert client.get("/api/models", Host=host).status == 200
    named = serve("none", allowed_hosts=["translate.example"])
    assert named.get("/", Host="translate.example:80").status == 200
    assert named.get("/", Host="other.example").status == 403


def test_other_origins_are_refused(client):
    origin_here = f"http://127.0.0.1:{client.port}"
    assert client.post("/api/translate", GOOD, Origin=origin_here).status == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost:1",
        f"http://127.0.0.1:{client.port + 1}",
        origin_here + ".a",
    ):
        reply = client.post("/api/translate", GOOD, Origin=origin)
        assert reply.status == 403
        assert "access-control-allow-origin" not in reply.headers
    for site in ("cross-site", "same-site"):
        assert client.get("/api/models", Sec_Fetch_Site=site).status == 403
    assert client.get("/", Sec_Fetch_Site="cross-site").status == 200  # a link to this page
    preflight = client.ask(
        "OPTIONS", "/api/translate", Origin="http://evil.example", Access_Control_Request_Method="POST"
    )
    assert preflight.status == 403


def test_max_bytes(serve):
    client = serve("plain", max_bytes=1000)
    small = json.dumps({"text": "a"}).encode()
    assert client.post("/api/translate", raw=small + b" " * (1000 - len(small))).status == 200
    for size in (1001, 300_000, 3_000_000):
        reply = client.post("/api/translate", raw=small + b" " * (size - len(small)))
        assert reply.status == 413
        assert "1,000 bytes (max_bytes)" in reply.error
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:  # a body without a length
        raw.sendall(b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        raw.sendall(b"Transfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + b" " * 512 + b"\r\n" + b"200\r\n" + b" " * 512)
        raw.sendall(b"\r\n0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert alive(client)


def test_the_other_limits(serve):
    client = serve("plain", "deep", max_sentences=2, max_sentence_chars=10, max_beam=3, max_weights=40)
    assert client.get("/api/models").json["limits"]["max_sentences"] == 2
    assert "(max_sentences)" in client.post("/api/translate", {"lines": ["a"] * 3}).error
    assert "(max_sentence_chars)" in client.post("/api/stream", {"lines": ["a" * 11]}).error
    assert "(max_sentence_chars)" in client.post("/api/attention", {"source": "a", "target": "a" * 11}).error
    assert "(max_beam)" in client.post("/api/translate", {"text": "a", "beam_size": 4}).error
    request = {"model": "deep", "source": "red dogs", "tokens": [5, 6, 7, 8]}
    assert "weights are more than one response may hold (40)" in client.post("/api/attention", request).error
    assert client.post("/api/attention", {**request, "layer": 1, "head": 0}).status == 200


def test_timeout(serve, slow):
    client = serve("deep", change=slow, timeout=1.0)
    begin = time.monotonic()
    reply = client.post("/api/translate", {"lines": ["the old man reads a book"] * 50})
    assert reply.status == 504
    assert "1 s (timeout)" in reply.error
    assert time.monotonic() - begin < 30  # less than all 50 lines take
    lines = client.post("/api/stream", {"lines": ["the old man reads a book"] * 50}).body.splitlines()
    assert "text" in json.loads(lines[0])
    assert "(timeout)" in json.loads(lines[-1])["error"]


def test_shutdown_cancels_waiting_requests(serve, slow, caplog):
    client = serve("deep", change=slow, timeout=60.0)
    long = {"lines": ["the old man reads a book"] * 50}
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(client.post, f"/api/{path}", long) for path in ("translate", "translate", "stream")]
        assert wait_for(lambda: len(client.jobs) == 3)
        client.stop()
        first, second, stream = (future.result() for future in futures)
    assert (first.status, second.status) == (503, 503)
    last_line = json.loads(stream.body.splitlines()[-1])
    assert [first.error, second.error, last_line["error"]] == [STOPPED] * 3
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def open_incomplete(client, data: bytes = b'{"text') -> socket.socket:
    """Open a connection and send a request with an incomplete body."""
    connection = socket.create_connection(("127.0.0.1", client.port), timeout=30)
    connection.sendall(b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    connection.sendall(b"Content-Length: 1000\r\n\r\n" + data)
    return connection


def receive_all(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    connection.close()
    return data


def test_shutdown_cancels_incomplete_requests(serve, monkeypatch, caplog):
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.5)
    client = serve("plain", timeout=60.0)
    slow = open_incomplete(client)
    assert alive(client)
    client.stop()
    response = receive_all(slow)
    assert response.startswith(b"HTTP/1.1 503")
    assert json.loads(response.partition(b"\r\n\r\n")[2]) == {"error": STOPPED}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_requests_after_shutdown_are_refused(serve):
    client = serve("plain")
    client.worker.cancel_all()
    for path in ("translate", "stream"):
        reply = client.post(f"/api/{path}", GOOD)
        assert (reply.status, reply.error) == (503, STOPPED)
    worker = ModelWorker(1, 60.0)
    worker.close()
    with pytest.raises(HTTPException) as raised:
        worker.submit(lambda job: b"")
    assert (raised.value.status_code, raised.value.detail) == (503, STOPPED)


def test_shutdown_does_not_wait_for_a_long_step(serve, monkeypatch, caplog):
    def change(served):
        model = served[0].translator.model
        step, served[0].translator.config.method = model.step, "mbr"
        model.step = lambda *arguments, **options: [time.sleep(4), step(*arguments, **options)][1]

    monkeypatch.setattr(server, "GRACE_SECONDS", 0.5)
    client = serve("deep", change=change, timeout=60.0)
    with ThreadPoolExecutor(3) as pool:
        futures = [
            pool.submit(client.post, f"/api/{path}", {"text": "the old man"}) for path in ("translate", "stream")
        ]
        assert wait_for(lambda: any(job.thread_future.running() for job in list(client.jobs)) and len(client.jobs) == 2)
        started = time.monotonic()
        stopped = pool.submit(client.stop)
        first, stream = (future.result() for future in futures)
        assert time.monotonic() - started < 3
        stopped.result()
    assert first.status == 503
    assert [json.loads(reply.body.splitlines()[-1])["error"] for reply in (first, stream)] == [STOPPED] * 2
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def large(scope, receive, send):
    """An ASGI application that sends more than a socket buffer holds."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for left in reversed(range(1000)):
        await send({"type": "http.response.body", "body": b" " * 100_000, "more_body": left > 0})


def test_a_client_that_does_not_read_is_disconnected():
    listening = listen("127.0.0.1", 0)
    running = make_server(large, 1.0, lambda: None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wait_for(
            lambda: any(connection.flow.write_paused for connection in list(running.server_state.connections))
        )
        assert wait_for(lambda: not running.server_state.connections, 10)
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def test_shutdown_disconnects_a_client_that_does_not_read(monkeypatch, caplog):
    monkeypatch.setattr(server, "GRACE_SECONDS", 0.5)
    listening = listen("127.0.0.1", 0)
    running = make_server(large, 60.0, lambda: None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    with socket.create_connection(listening.getsockname(), timeout=30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wait_for(lambda: any(connection.flow.write_paused for connection in running.server_state.connections))
        running.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("where", ["steps", "comparisons"])
def test_sampling_ends_at_the_timeout(serve, monkeypatch, where):
    times = itertools.count()

    def slowly(function, *arguments, **options):
        next(times)
        time.sleep(0.2 if where == "steps" else 0.01)
        return function(*arguments, **options)

    def change(served):
        model, config = served[0].translator.model, served[0].translator.config
        config.method, config.mbr_samples, config.min_length_offset, config.max_length_offset = "mbr", 40, 25, 25
        if where == "steps":
            step = model.step
            model.step = lambda *arguments, **options: slowly(step, *arguments, **options)

    if where == "comparisons":
        chrf = mbr.UTILITIES["chrf"]()
        monkeypatch.setitem(mbr.UTILITIES, "chrf", lambda: lambda *texts: slowly(chrf, *texts))
    client = serve("deep", change=change, timeout=2.0)
    reply = client.post("/api/translate", {"text": "the old man"})
    assert reply.status == 504
    assert wait_for(lambda: not client.jobs, 5)
    assert 0 < next(times) < (20 if where == "steps" else 400)  # without a timeout 25 or more, and 1,600


def test_too_many_requests_at_once(serve, monkeypatch):
    monkeypatch.setattr(security, "MAX_REQUESTS", 5)
    client = serve("plain", timeout=60.0)
    idle = [socket.create_connection(("127.0.0.1", client.port), timeout=30) for _ in range(20)]
    waiting = [open_incomplete(client) for _ in range(5)]
    assert wait_for(lambda: client.get("/api/models").status == 503)
    for reply in (client.get("/"), client.post("/api/translate", GOOD)):
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.error == "too many requests at once: try again in 1 s"
    for connection in (*waiting, *idle):
        connection.close()
    assert wait_for(lambda: client.get("/api/models").status == 200)


def test_too_many_connections(serve, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    client = serve("plain", timeout=60.0)
    idle = [socket.create_connection(("127.0.0.1", client.port), timeout=30) for _ in range(19)]
    assert alive(client)
    last = [socket.create_connection(("127.0.0.1", client.port), timeout=30) for _ in range(3)]
    with contextlib.suppress(ConnectionResetError):
        assert last[-1].recv(1) == b""
    for connection in (*idle, *last):
        connection.close()
    assert wait_for(lambda: is_accepted(client))


def is_accepted(client) -> bool:
    try:
        return alive(client)
    except OSError:
        return False


def test_many_requests_at_once_succeed_or_are_refused(serve, slow):
    client = serve("plain", change=slow, queue_size=3, timeout=60.0)
    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(lambda _: client.post("/api/translate", GOOD | {"beam_size": 1}), range(20)))
    assert sorted({reply.status for reply in replies}) == [200, 503]
    assert sum(reply.status == 200 for reply in replies) >= 4
    for reply in replies:
        if reply.status == 503:
            assert int(reply.headers["retry-after"]) >= 1
            assert "requests are waiting" in reply.error
    assert alive(client)


def test_a_hundred_clients_get_their_own_responses(serve):
    client = serve("plain", queue_size=100)
    lines = [f"{'red ' * (number % 7)}dogs {number}" for number in range(100)]
    alone = [client.post("/api/translate", {"text": line, "beam_size": 1}).json for line in lines[:5]]
    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda line: client.post("/api/translate", {"text": line, "beam_size": 1}), lines))
    assert [reply.status for reply in replies] == [200] * 100
    assert [reply.json["sentences"][0]["source"] for reply in replies] == lines
    assert [reply.json for reply in replies[:5]] == alone


def test_a_disconnected_client_does_not_block_the_queue(serve, slow):
    client = serve("deep", change=slow, queue_size=0, timeout=60.0)
    for path in ("translate", "stream"):
        body = json.dumps({"lines": ["the old man reads a book"] * 50}).encode()
        raw = socket.create_connection(("127.0.0.1", client.port), timeout=30)
        head = f"POST /api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert wait_for(lambda: client.post("/api/translate", {"text": "a", "beam_size": 2}).status in (503, 200))
        raw.close()
        # 50 lines take a minute or more; the next request starts long before
        assert wait_for(lambda: client.post("/api/translate", {"text": "", "beam_size": 2}).status == 200)


def wait_for(condition, seconds: float = 40.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_slow_clients_do_not_block_others_and_are_disconnected(serve):
    client = serve("plain", timeout=2.0)
    head = (
        b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n"
    )
    beginnings = [b"", b"POST /api", head, head + b"\r\n" + b'{"text'] * 10
    waiting = [socket.create_connection(("127.0.0.1", client.port), timeout=30) for _ in beginnings]
    for connection, data in zip(waiting, beginnings, strict=True):
        connection.sendall(data)
    assert alive(client)
    for connection, data in zip(waiting, beginnings, strict=True):
        answer = b""
        try:
            while part := connection.recv(1000):
                answer += part
        except ConnectionResetError:
            pass
        assert answer.startswith(b"HTTP/1.1 408") == data.endswith(b'{"text'), answer
        connection.close()
    assert alive(client)


def test_invalid_http(client):
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"\x00" * 5000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 9000,
    ):
        with socket.create_connection(("127.0.0.1", client.port), timeout=30) as raw:
            try:
                raw.sendall(data + b"\r\n\r\n")
                assert raw.recv(1000).startswith(b"HTTP/1.1 400")
            except ConnectionError:
                pass
    assert alive(client)


def test_an_internal_error_is_one_sentence(serve, capsys):
    def change(served):
        served[0].translator.model.step = None

    client = serve("plain", change=change)
    reply = client.post("/api/attention", {"source": "a", "target": "b", "head": 1})
    assert reply.status == 200
    reply = client.post("/api/translate", {"text": "a"})
    assert reply.status == 500
    assert "internal error" in reply.error
    assert reply.headers["x-content-type-options"] == "nosniff"


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from nmt.serve.__main__ import main

    with pytest.raises(SystemExit):
        run_command(main, ServeConfig, "serve", list(arguments))
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("host=", "host=: an address is needed"),
        ("port=70000", "port=70000: must be at least 0 and at most 65535"),
        ("max_sentences=0", "max_sentences=0: must be at least 1"),
        ("timeout=0", "timeout=0.0: must be above 0 and below inf"),
        ("queue_size=-1", "queue_size=-1: must be at least 0"),
        ("host=203.0.113.7", "host=203.0.113.7 port=8000: Cannot assign requested address"),
        ("host=no.such.host.invalid", "host=no.such.host.invalid port=8000: "),
        ("serch.beam=2", "did you mean search.beam_size?"),
    ],
)
def test_invalid_options(capsys, runs, argument, message):
    assert message in failure(capsys, f"checkpoint={runs / 'plain'}", argument)


def test_invalid_checkpoints(capsys, runs, tmp_path):
    assert "checkpoint: must be given" in failure(capsys, "port=0")
    assert "no such file or run directory" in failure(capsys, f"checkpoint={tmp_path / 'x'}", "port=0")
    twice = f"checkpoint=[{runs / 'plain'},{runs / 'plain'}]"
    assert "is given twice" in failure(capsys, twice, "port=0")
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = f"port={occupied.getsockname()[1]}"
        assert "Address already in use" in failure(capsys, f"checkpoint={runs / 'plain'}", port)


def test_the_command_serves_until_interrupted(runs, tmp_path):
    environment = {"PYTHONPATH": str(Path(nmt.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    arguments = [
        f"checkpoint=[{runs / 'plain'},{runs / 'none'}]",
        "port=0",
        "host=0.0.0.0",
        "device=cpu",
        "search.beam_size=3",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "nmt.serve", *arguments], stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    )
    output = []
    assert process.stderr is not None
    for line in process.stderr:
        output.append(line.decode())
        if "http://" in output[-1]:
            break
    timer = threading.Timer(60, process.kill)
    timer.start()
    port = int(output[-1].partition("http://0.0.0.0:")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as raw:
        raw.sendall(b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := raw.recv(65536):
            answer += part
    process.send_signal(2)
    assert process.wait(60) == 130
    timer.cancel()
    models = json.loads(answer.partition(b"\r\n\r\n")[2])["models"]
    assert [(model["name"], model["beam_size"]) for model in models] == [("plain", 3), ("none", 3)]
    assert any("anybody who can reach this machine" in line for line in output)
