"""Send hostile text to the commands: `nmt.translate` on a pipe and `nmt.serve` over loopback.

    python tests/fuzz_serve.py runs/my_run                        # 100,000 lines and 5,000 requests
    python tests/fuzz_serve.py runs/my_run --lines 2000 --requests 500

There must be one answer for each input, in order, and no crash; the peak memory is printed at intervals, to show
growth. The input depends on the seed alone. The exit code is 1 after a fault.
"""

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LETTERS = "abc Äßéшあ字😀\u0301\u200d\u202e\u2066\u00a0\u2028\x85\ufeff"
EXPECTED = {200, 400, 403, 404, 405, 408, 413, 415, 422, 504}
"""Statuses that are not faults of the server; a request is repeated after 503."""


def hostile(rng: random.Random) -> bytes:
    """Return a line without a line feed."""
    kinds: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: b" " * rng.randrange(40),
        lambda: b"\t \x0b\x0c" * rng.randrange(4),
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: bytes(rng.randrange(32) for _ in range(rng.randrange(20))),
        lambda: "\u202eשלום עולם\u2066 \u200fمرحبا".encode(),
        lambda: "".join(rng.choices(LETTERS, k=rng.randrange(30))).encode(),
        lambda: b"\xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80 \xff",
        lambda: "▁▁ <s> </s> <pad> <unk> <0x0A> <0xFF> ▁".encode(),
        lambda: b"the old dog. " * rng.randrange(8),
        lambda: b"x" * rng.randrange(300),
        lambda: b'{"source": [1, 99999999, -1], "text": "a"}',
        lambda: b"\x00" * rng.randrange(8),
        lambda: b"A man, a plan: a canal!\r",
        lambda: str(rng.getrandbits(60)).encode(),
    ]
    if rng.random() < 0.0005:
        return b"y" * ((1 << 20) + 1)  # longer than a line may be
    if rng.random() < 0.002:
        return b"a long line, which is split into segments. " * 60
    return rng.choice(kinds)().replace(b"\n", b" ")


def hostile_lines(num: int, seed: int) -> Iterator[bytes]:
    """Yield lines for `nmt.translate`; the middle one is longer than a block of its input."""
    rng = random.Random(seed)
    for number in range(num):
        yield b"z" * (12 << 20) if number == num // 2 else hostile(rng)


def command(name: str, checkpoint: str, *options: str) -> list[str]:
    return [sys.executable, "-m", f"nmt.{name}", f"checkpoint={checkpoint}", "device=cpu", *options]


def peak(process: "subprocess.Popen[bytes]") -> float:
    """Return the peak memory of a process, in MB."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def fuzz_translate(checkpoint: str, num: int, seed: int, options: list[str]) -> list[str]:
    """Return the faults of the answers of `nmt.translate` to `num` lines."""
    process = subprocess.Popen(
        command("translate", checkpoint, "format=jsonl", *options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, errors = process.stdin, bytearray()

    def feed() -> None:
        with stdin:
            for line in hostile_lines(num, seed):
                stdin.write(line + b"\n")

    threads = [threading.Thread(target=feed), threading.Thread(target=lambda: errors.extend(process.stderr.read()))]
    for thread in threads:
        thread.start()
    wrong, num_answers, started = Counter[str](), 0, time.monotonic()
    lines_sent = hostile_lines(num, seed)
    for line in process.stdout:
        num_answers += 1
        wrong.update(_faults(num_answers, next(lines_sent, b""), line))
        if num_answers % max(num // 5, 1) == 0:
            rate = num_answers / (time.monotonic() - started)
            print(
                f"translate: {num_answers:,} answers, {rate:.0f} a second, {peak(process):.0f} MB at most", flush=True
            )
    for thread in threads:
        thread.join()
    code = process.wait()
    if code or num_answers != num:
        wrong[f"{num} lines, {num_answers} answers, exit code {code}: {errors[-300:].decode(errors='replace')}"] += 1
    print("translate: " + errors.decode(errors="replace").rstrip()[-500:].replace("\n", "\ntranslate: "))
    return [f"translate: {what} ({times} times)" for what, times in wrong.items()]


def _faults(number: int, line_sent: bytes, line: bytes) -> Iterator[str]:
    try:
        answer = json.loads(line.decode("utf-8"))
    except ValueError:
        yield f"answer {number} is no JSON"
        return
    if answer["line"] != number:
        yield f"answer {number} says it is {answer['line']}"
    if len(line_sent) > 1 << 20:
        if "error" not in answer:
            yield "a line that was too long has a translation"
        return
    if "error" in answer:
        yield f"no translation: {answer['error']}"
    if answer["source"] != line_sent.removesuffix(b"\r").decode("utf-8", errors="replace"):
        yield f"answer {number} is to another line"
    if not line_sent.removesuffix(b"\r").strip(b" ") and answer["translation"]:
        yield f"answer {number} translates nothing"


class Server:
    """A process of `nmt.serve`."""

    def __init__(self, checkpoint: str, options: list[str]) -> None:
        self.process = subprocess.Popen(
            command("serve", checkpoint, "port=0", "queue_size=50", "timeout=600", *options),
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self.process.stderr is not None
        self.port, self.log = 0, bytearray()
        for line in self.process.stderr:
            self.log += line
            if b"http://127.0.0.1:" in line:
                self.port = int(line.partition(b"http://127.0.0.1:")[2].partition(b"/")[0])
                break
        threading.Thread(target=lambda: self.log.extend(self.process.stderr.read()), daemon=True).start()  # type: ignore[union-attr]

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def abandon(self, path: str, body: bytes, sent: int) -> None:
        """Disconnect before the answer, or before all was sent."""
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=120) as raw:
            raw.sendall((head.encode() + body)[:sent])


def _request(rng: random.Random) -> tuple[str, bytes, list[str] | None]:
    """Return a path, a body, and the lines whose translations must be returned; None: any answer is allowed."""
    lines = [hostile(rng)[:1500].decode("utf-8", errors="replace") for _ in range(rng.randrange(1, 4))]
    lines = [line.replace("\n", " ") for line in lines]
    good: dict[str, Any] = {"lines": lines, "beam_size": rng.randrange(1, 4)}
    odd = rng.choice([-1, 0, 10**6, 10**30, "5", None, True, [], {}, 1.5, float("nan"), "\x00", "ü" * 3000])
    kind = rng.randrange(14)
    if kind >= 12:
        return rng.choice(["/api/translate", "/api/stream"]), json.dumps({**good, **_line_options(rng)}).encode(), None
    if kind < 4:
        return "/api/translate", json.dumps(good).encode(), lines
    if kind == 4:
        return "/api/stream", json.dumps(good).encode(), lines
    if kind == 5:
        tokens = [rng.choice([rng.randrange(300), -1, 99_999_999]) for _ in range(rng.randrange(6))]
        fields = {"source": lines[0], "tokens": tokens, "layer": rng.randrange(-1, 5)}
        return "/api/attention", json.dumps(fields).encode(), None
    if kind == 6:
        fields = {"source": lines[0], "target": lines[-1], "head": rng.choice([None, 0, 1, 99])}
        return "/api/attention", json.dumps(fields).encode(), None
    if kind == 7:
        body = json.dumps(good).encode()
        return "/api/translate", body[: rng.randrange(len(body))], None
    if kind == 8:
        return "/api/translate", rng.randbytes(rng.randrange(200)), None
    if kind == 9:
        return (
            "/api/translate",
            json.dumps({**good, rng.choice(["beam_size", "lines", "model", "text", "x"]): odd}).encode(),
            None,
        )
    if kind == 10:
        return "/api/stream", b"[" * rng.randrange(50_000), None
    return rng.choice(["/api/other", "/", "/api/translate"]), b"x" * rng.choice([0, 10, 400_000]), None


def _line_options(rng: random.Random) -> dict[str, Any]:
    """Return lines with tags and placeholders, and options that concern them."""
    tags = ["<b>", "</b>", "<i x='1'>", "</i>", "<br/>", "<!-- -->", "", " "]
    tags += ["&lt;", "&", "<", "{name}", "%s", "`code`"]

    def text() -> str:
        return "".join(
            part for _ in range(rng.randrange(8)) for part in (rng.choice(tags), rng.choice(["dog ", "a", "שלום"]))
        )

    options: dict[str, Any] = {
        "lines": [text() for _ in range(2)],
        "markup": rng.random() < 0.7,
        "placeholders": rng.random() < 0.7,
        "prefix": rng.choice(["", "", "A ", text()]),
        "suffix_of": rng.choice(["", "", "a", text()]),
        "alignment": rng.choice([None, {}, {"layer": rng.randrange(-1, 3), "head": rng.randrange(-1, 9)}, {"x": 1}]),
        "glossary": rng.choice([None, {}, {"dog": "Hund"}, {text(): text()}, {"a": ""}]),
        "glossary_mode": rng.choice(["hard", "soft", "x"]),
    }
    return {name: value for name, value in options.items() if name == "lines" or rng.random() < 0.5}


def _exchange(server: Server, seed: int, number: int) -> str:
    """Send a request; return the status, or a fault."""
    rng = random.Random(f"{seed} {number}")
    path, body, lines = _request(rng)
    if rng.random() < 0.03:
        server.abandon(path, body, rng.randrange(len(body) + 200))
        return "left"
    deadline = time.monotonic() + 600
    while True:
        try:
            status, answer = server.post(path, body)
        except (OSError, http.client.HTTPException) as error:
            return f"WRONG {path}: no answer ({type(error).__name__})"
        late = status == 200 and path == "/api/stream" and b"(timeout)" in answer.splitlines()[-1]
        if not (status == 503 or late) or time.monotonic() > deadline:
            break
        time.sleep(rng.random())
    if status not in EXPECTED or (lines is not None and status != 200):
        return f"WRONG {path}: {status} {answer[:200]!r}"
    content = json.loads(answer.splitlines()[-1])
    if status != 200:
        return str(status) if list(content) == ["error"] else f"WRONG {path}: {status} without a sentence"
    if lines is not None:
        sentences = content.get("result", content)["sentences"]
        if [sentence["source"] for sentence in sentences] != [
            line.removeprefix("\ufeff").removesuffix("\r") for line in lines
        ]:
            return f"WRONG {path}: answers to other lines"
    return str(status)


def fuzz_serve(checkpoint: str, num: int, clients: int, seed: int, options: list[str]) -> list[str]:
    """Return the faults of the answers of `nmt.serve` to `num` requests of several clients at once."""
    server = Server(checkpoint, options)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]  # they never send a byte
    outcomes: Counter[str] = Counter()
    step = max(num // 5, 1)
    with ThreadPoolExecutor(clients) as pool:
        for first in range(0, num, step):
            numbers = range(first, min(first + step, num))
            outcomes.update(pool.map(lambda number: _exchange(server, seed, number), numbers))
            print(f"serve: {numbers.stop:,} requests, {peak(server.process):.0f} MB at most", flush=True)
    for connection in idle:
        connection.close()
    wrong = [f"serve: {what} ({times} times)" for what, times in outcomes.items() if what.startswith("WRONG")]
    summary = ", ".join(f"{times} {what}" for what, times in sorted(outcomes.items()) if not what.startswith("WRONG"))
    print(f"serve: {summary}")
    if sum(outcomes.values()) != num:
        wrong.append(f"serve: {num} requests, {sum(outcomes.values())} outcomes")
    status, answer = server.post("/api/translate", b'{"text": "a", "beam_size": 1}')
    if status != 200:
        wrong.append(f"serve: at the end {status} {answer[:200]!r}")
    server.process.terminate()
    server.process.wait(60)
    if b"Traceback" in server.log:
        wrong.append(f"serve: {server.log[-500:].decode(errors='replace')}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--lines", type=int, default=100_000, help="for translate")
    parser.add_argument("--requests", type=int, default=5_000, help="for serve")
    parser.add_argument("--clients", type=int, default=100, help="of serve, at once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--options", nargs="*", default=["search.beam_size=1"], help="for both commands, as name=value")
    options = parser.parse_args()
    wrong = fuzz_translate(options.checkpoint, options.lines, options.seed, options.options) if options.lines else []
    if options.requests:
        wrong += fuzz_serve(options.checkpoint, options.requests, options.clients, options.seed, options.options)
    for line in wrong[:20]:
        print(line, file=sys.stderr)
    print(f"{len(wrong)} kinds of faults" if wrong else "no faults")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
