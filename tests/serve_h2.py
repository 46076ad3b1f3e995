# SPDX-License-Identifier: MIT
"""HTTP/2 by hand: frames, also such as no client sends."""
import socket
import struct

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM = 0, 2, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def text(value):
    """A string of HPACK (RFC 7541, 5.2), without Huffman coding."""
    value, n = value.encode(), len(value.encode())
    return (bytes([n]) if n < 127 else b"\x7f" + varint(n - 127)) + value


def field(name, value):
    """A literal field without indexing."""
    return b"\x00" + text(name) + text(value)


def fields(method="GET", path="/healthz", **more):
    pairs = {":method": method, ":scheme": "http", ":authority": "x", ":path": path,
             **{name.replace("_", "-"): value for name, value in more.items()}}
    return b"".join(field(*pair) for pair in pairs.items())


def message(number, payload):
    """A field of protobuf: a number or bytes."""
    if isinstance(payload, int):
        return bytes([number << 3]) + varint(payload)
    return bytes([number << 3 | 2]) + varint(len(payload)) + payload


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def rls_body(domain, *entries):
    """A call of ShouldRateLimit with one descriptor, with gRPC's prefix."""
    entry = b"".join(message(1, message(1, k.encode()) + message(2, v.encode())) for k, v in entries)
    body = message(1, domain.encode()) + message(2, entry)
    return b"\x00" + struct.pack(">I", len(body)) + body


RLS = {"method": "POST", "path": "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
       "content_type": "application/grpc", "te": "trailers"}


def head(stream, block, flags=0):
    """HEADERS and as many CONTINUATION as the block needs."""
    pieces = [block[at:at + 16384] for at in range(0, len(block), 16384)]
    kinds = [HEADERS] + [CONTINUATION] * (len(pieces) - 1)
    return b"".join(frame(kind, (flags if i == 0 else 0) | (END_HEADERS if i == len(pieces) - 1 else 0), stream, piece)
                    for i, (kind, piece) in enumerate(zip(kinds, pieces)))


class Http2:
    def __init__(self, port, settings=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
        self.file = self.socket.makefile("rb")
        self.stream = -1

    def send(self, *frames):
        self.socket.sendall(b"".join(frames))

    def ask(self, body=None, **kwargs):
        """Sends a request. Its stream."""
        self.stream += 2
        flags = END_HEADERS | (END_STREAM if body is None else 0)
        self.send(frame(HEADERS, flags, self.stream, fields(**kwargs)),
                  *([] if body is None else [frame(DATA, END_STREAM, self.stream, body)]))
        return self.stream

    def read(self):
        """(kind, flags, stream, payload), or None at the end."""
        try:
            head = self.file.read(9)
            if len(head) < 9:
                return None
            payload = self.file.read(int.from_bytes(head[:3], "big"))
        except ConnectionError:
            return None
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7fffffff, payload

    def until_end(self):
        """All frames until the server closes."""
        found = []
        while (one := self.read()) is not None:
            found.append(one)
        return found

    def close(self):
        self.file.close()
        self.socket.close()


def goaway_errors(frames):
    return [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in frames if kind == GOAWAY]
