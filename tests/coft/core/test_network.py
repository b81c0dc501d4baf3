"""Whether a host answers."""

from __future__ import annotations

import socket
import threading

import pytest

from coft.core.network import reachable


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"HTTP/1.1 403 No\r\n\r\n", True), (b"no HTTP\r\n", False), (b"", False)],
)
def test_a_host_is_reachable_if_it_answers_in_http(answer: bytes, expected: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as client:
                client.recv(1000)
                client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        assert reachable(f"http://127.0.0.1:{server.getsockname()[1]}/") is expected
