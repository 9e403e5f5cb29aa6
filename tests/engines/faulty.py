"""A server on 127.0.0.1 that speaks OpenAI's chat interface and fails as it is told. Real sockets.

`faults(number, payload)` is asked for each chat that is no probe, numbered from 0 as they come: None answers,
anything else is done instead.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROBE = "Write three random words."
Answer = Callable[[dict[str, Any]], str]


class Do:
    """What is done instead of an answer."""

    def __init__(
        self,
        status: int = 200,
        body: str | bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        half: bool = False,
        hang_up: bool = False,
        slow_s: float = 0.0,
        drip_s: float = 0.0,
    ) -> None:
        self.status, self.headers, self.half, self.hang_up = status, headers or {}, half, hang_up
        self.body = body.encode() if isinstance(body, str) else body
        self.slow_s, self.drip_s = slow_s, drip_s


def last(payload: dict[str, Any]) -> str:
    return str(payload["messages"][-1]["content"])


class Faulty:
    """`can`: fields that are heeded; `refuses`: fields that are answered with 400. `asked` has the payloads
    of chats that were no probe, `heads` the headers of every request."""

    def __init__(
        self,
        faults: Callable[[int, dict[str, Any]], Do | None] = lambda number, payload: None,
        answer: Answer = lambda payload: "3",
        can: tuple[str, ...] = ("n", "seed", "stop", "logprobs"),
        refuses: tuple[str, ...] = (),
        models: Any = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.faults, self.answer, self.can, self.refuses, self.models = faults, answer, can, refuses, models
        self.asked: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.drawn = 0
        self.accepted = 0
        """Connections, so far."""
        self.owner = "faulty"
        """What the list of models says of its model."""
        self.break_probes = 0
        """So many are answered by a connection that breaks."""
        self.busy_probes = 0
        """So many are answered with 429."""
        self.broken: int | Do = 0
        """The status with which all is refused, probes too, or the answer."""
        self.lock = threading.Lock()
        self._open: set[socket.socket] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = (
                -1
            )  # head and body in one packet: apart, each answer waits 40 ms for an acknowledgement

            def setup(self) -> None:
                super().setup()
                outer.accepted += 1
                outer._open.add(self.connection)

            def finish(self) -> None:
                outer._open.discard(self.connection)
                super().finish()

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                outer.heads.append(dict(self.headers))
                named = () if isinstance(outer.models, Do) else outer.models or ("m",)
                names = [{"id": name, "owned_by": outer.owner} for name in named]
                found = (
                    outer.models
                    if isinstance(outer.models, Do)
                    else Do(body=json.dumps({"object": "list", "data": names}))
                )
                self.reply(found)

            def do_POST(self) -> None:
                payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.heads.append(dict(self.headers))
                with outer.lock:
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    self.reply(outer.chat(payload))
                finally:
                    with outer.lock:
                        outer.at_once -= 1

            def reply(self, found: Do) -> None:
                if found.slow_s:
                    time.sleep(found.slow_s)
                if found.hang_up:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(found.body)))
                self.end_headers()
                for at in range(len(found.body) if found.drip_s else 0):
                    self.wfile.write(found.body[at : at + 1])
                    self.wfile.flush()
                    time.sleep(found.drip_s)
                if found.drip_s:
                    return
                self.wfile.write(found.body[: len(found.body) // 2] if found.half else found.body)
                self.wfile.flush()
                if found.half:
                    self.close_connection = True

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.tls = tls is not None
        if tls is not None:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.http.server_address[1]}/v1"

    def kill(self) -> None:
        """As a process that is killed: its connections break, and nobody accepts new ones."""
        self.http.shutdown()
        self.http.server_close()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def chat(self, payload: dict[str, Any]) -> Do:
        if named := [field for field in self.refuses if field in payload]:
            return Do(400, json.dumps({"error": {"message": f"Unrecognized request argument: {named[0]}"}}))
        if last(payload) == PROBE:
            if self.break_probes:
                self.break_probes -= 1
                return Do(hang_up=True)
            if self.busy_probes:
                self.busy_probes -= 1
                return Do(429, "slow down", {"Retry-After": "0"})
            if self.broken:
                return self.broken if isinstance(self.broken, Do) else Do(self.broken, "out of memory")
            return self.answered(payload, self._probe_text(payload))
        with self.lock:
            number = len(self.asked)
            self.asked.append(payload)
        return self.faults(number, payload) or self.answered(payload, self.answer(payload))

    def _probe_text(self, payload: dict[str, Any]) -> str:
        if "response_format" in payload:
            return '{"a": 1}' if "json_schema" in self.can else "no"
        with self.lock:
            self.drawn += 1
        greedy = "greedy" in self.can
        seed = 0 if greedy else payload.get("seed", 0) if "seed" in self.can else 1000 + self.drawn
        return "" if payload.get("stop") and "stop" in self.can else f"apple tree {seed}"

    def answered(self, payload: dict[str, Any], text: str, **more: Any) -> Do:
        n = payload.get("n", 1) if "n" in self.can else 1
        choices = []
        for k in range(n):
            said = text if not k else f"{text} {k}"
            choice: dict[str, Any] = {
                "index": k,
                "message": {"role": "assistant", "content": said},
                "finish_reason": "stop",
            }
            if payload.get("logprobs") and "logprobs" in self.can:
                ids = {"ids": True} if "token_ids" in self.can else {}
                tokens = [{"token": char, "logprob": -0.5} for char in said] + [
                    {"token": "", "logprob": -0.1}
                ]
                if ids:
                    tokens = [one | {"id": ord(one["token"] or "\0")} for one in tokens]  # type: ignore[operator]
                choice["logprobs"] = {"content": tokens}
            choices.append(choice | more)
        usage = {"prompt_tokens": 9, "completion_tokens": len(text) + 1}
        return Do(body=json.dumps({"object": "chat.completion", "choices": choices, "usage": usage}))


@contextmanager
def faulty(*args: Any, **more: Any) -> Iterator[Faulty]:
    server = Faulty(*args, **more)
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
