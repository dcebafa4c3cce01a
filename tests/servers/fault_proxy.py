"""A proxy between a client and an HTTP service that fails as networks and services do."""

import contextlib
import socket
import socketserver
import threading
import time

_BUSY = (
    b"<?xml version='1.0'?><Error><Code>%s</Code><Message>%s</Message><RequestId>1</RequestId></Error>",
    b"HTTP/1.1 %d Refused\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
)


def refusal(status, code):
    """Return the answer of a service that refuses."""
    body = _BUSY[0] % (code.encode(), code.encode())
    return _BUSY[1] % (status, len(body)) + body


class FaultProxy(socketserver.ThreadingTCPServer):
    """Forwards each request on a connection of its own, and notes it in `log` as ``"METHOD /path?query"``.

    `fault` is called with such a text and returns what goes wrong: None, "reset" (the service never sees it), "lost"
    (the answer never arrives), "cut" (half of it does), "slow" (it takes a second), a number (it takes so long, s), or
    the bytes of a refusal.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = port
        self.log = []
        self.sent = 0  # bytes of the answers of the service
        self.fault = lambda request: None
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def port(self):
        """The port to connect to."""
        return self.server_address[1]

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing: a client that goes away is what we are here for."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self):
        """Forward one request."""
        line, headers, size = self._head()
        if line is None:
            return
        text = " ".join(line.decode().split()[:2])
        self.server.log.append(text)
        fault = self.server.fault(text)
        body = self.rfile.read(size)
        if isinstance(fault, bytes):
            self.wfile.write(fault)
            return
        if fault == "reset":
            self._reset()
            return
        if fault == "slow":
            fault = 1.0
        if isinstance(fault, float):
            time.sleep(fault)
        with socket.create_connection(("127.0.0.1", self.server.target)) as upstream:
            upstream.sendall(line + b"".join(headers) + b"Connection: close\r\n\r\n" + body)
            answer = b"".join(iter(lambda: upstream.recv(2**16), b""))
        self.server.sent += len(answer)
        if fault == "lost":
            self._reset()
            return
        if fault == "cut":
            self.wfile.write(answer[: len(answer) // 2])
            self._reset()
            return
        with contextlib.suppress(OSError):
            self.wfile.write(answer)

    def _head(self):
        line = self.rfile.readline()
        if not line.strip():
            return None, [], 0
        headers, size = [], 0
        for header in iter(self.rfile.readline, b"\r\n"):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                size = int(value)
            if name.lower() == b"expect":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            elif name.lower() != b"connection":
                headers.append(header)
        return line, headers, size

    def _reset(self):
        self.wfile.flush()
        # With a linger of 0 s closing sends a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.connection.close()
