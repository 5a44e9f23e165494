"""HTTP/1.1 on the client's side, no more than one POST needs: the request's head, and where its response ends.

Pure: bytes in, state out. Framing is RFC 9112 sections 4 to 7. The body is kept free of chunk framing, with its length
after every feed, so that a caller who stamps what it feeds can tell when any byte of the body came.
"""

from __future__ import annotations

import re

HEAD_LIMIT = 1 << 16  # bytes of status line and headers together, and of trailers
INTERIM_LIMIT = 64  # 1xx responses before the real one
LINE_LIMIT = 1 << 12  # bytes of a chunk-size line with its extensions

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n\0]*)?\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_FORBIDDEN = re.compile(rb"[\0\r\n]")

_HEAD, _LENGTH, _CLOSE, _SIZE, _DATA, _DATA_END, _TRAILERS, _DONE = range(8)


class BadFraming(ValueError):
    """The peer does not speak HTTP/1.1 as the RFC has it; the text says where."""


class Framer:
    """One response, fed as it comes.

    After `feed` returned True (or `eof` returned None) `status`, `headers` (lower-case names, repeated ones joined with
    a comma) and `body` are whole. `reusable` says whether the connection may carry another request.
    """

    __slots__ = ("status", "headers", "body", "reusable", "interim", "_state", "_pending", "_left", "_trailing")

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.reusable = False
        self.interim = 0  # 1xx responses before the real one
        self._state = _HEAD
        self._pending = b""
        self._left = 0
        self._trailing = 0

    @property
    def done(self) -> bool:
        return self._state == _DONE

    @property
    def started(self) -> bool:
        """Whether any byte of a response has come."""
        return self._state != _HEAD or bool(self._pending) or self.interim > 0

    def feed(self, data: bytes) -> bool:
        """Take what came; True once the response has ended. Raises BadFraming.

        Bytes after the end are dropped and make the connection not reusable: nobody asked for them.
        """
        state = self._state
        if state == _CLOSE:
            self.body += data
            return False
        if state == _LENGTH:
            return self._length(data)
        if state == _DONE:
            self.reusable = self.reusable and not data
            return True
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if state == _HEAD:
            return self._head(data)
        if state == _SIZE and (found := _CHUNK.match(data)) is not None:
            # One whole chunk and no more, as servers write an event: the way of nearly every read of a stream.
            size, at = int(found[1], 16), found.end()
            if size and len(data) == at + size + 2 and data.endswith(b"\r\n"):
                self.body += data[at:-2]
                return False
        return self._chunked(data, 0)

    def eof(self) -> str | None:
        """The peer closed: None where the response is whole now, else what was missing."""
        state = self._state
        if state == _CLOSE:
            self._state = _DONE
        if self._state == _DONE:
            return None
        if state == _HEAD:
            return (
                "the connection was closed before a response"
                if not self.started
                else "the connection was closed inside the headers"
            )
        if state == _LENGTH:
            return f"the connection was closed with {self._left} bytes of the body missing"
        return "the connection was closed before the last chunk"

    def _length(self, data: bytes) -> bool:
        size = len(data)
        if size < self._left:
            self.body += data
            self._left -= size
            return False
        self.body += data[: self._left]
        if size > self._left:
            self.reusable = False
        self._left = 0
        self._state = _DONE
        return True

    def _head(self, data: bytes) -> bool:
        while True:
            # Empty lines before the status line: RFC 9112 2.2 asks servers to bear them, and it costs clients nothing.
            data = data.lstrip(b"\r\n")
            end, after = _blank_line(data)
            if end < 0:
                if len(data) > HEAD_LIMIT:
                    raise BadFraming(f"no end of the headers within {HEAD_LIMIT} bytes")
                if data and not b"HTTP/1.".startswith(data[:7]):
                    raise BadFraming(f"not an HTTP/1 response: {data[:40]!r}")
                self._pending = data
                return False
            status, minor, headers = parse_head(data[:end])
            data = data[after:]
            if status == 101:
                raise BadFraming("status 101, though no upgrade was asked for")
            if status >= 200:
                break
            self.interim += 1
            if self.interim > INTERIM_LIMIT:
                raise BadFraming(f"more than {INTERIM_LIMIT} interim responses")
        self.status, self.headers = status, headers
        words = [word.strip().lower() for word in headers.get("connection", "").split(",")]
        self.reusable = "close" not in words if minor else "keep-alive" in words
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if status in (204, 304):
            self._left = 0
            self._state = _LENGTH
        elif coding is not None:
            if coding.split(",")[-1].strip().lower() != "chunked":
                self._state = _CLOSE
            elif coding.strip().lower() != "chunked":
                raise BadFraming(f"transfer coding '{coding}', which was not offered")
            else:
                self._state = _SIZE
                # Both lengths: RFC 9112 6.3 says that chunked wins and the connection must be closed.
                self.reusable = self.reusable and length is None
                return self._chunked(data, 0)
        elif length is not None:
            sizes = {part.strip() for part in length.split(",")}
            size = sizes.pop()
            if sizes or not (size.isascii() and size.isdigit()) or len(size) > 18:
                raise BadFraming(f"content-length '{length}'")
            self._left = int(size)
            self._state = _LENGTH
        else:
            self._state = _CLOSE
        if self._state == _CLOSE:
            self.reusable = False
            self.body += data
            return False
        return self._length(data)

    def _chunked(self, data: bytes, at: int) -> bool:
        body = self.body
        while True:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                body += piece
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    return False
                self._state = _DATA_END
            if self._state == _DATA_END:
                if data[at : at + 2] == b"\r\n":
                    at += 2
                    self._state = _SIZE
                elif b"\r\n".startswith(data[at:]):
                    self._pending = data[at:]
                    return False
                else:
                    raise BadFraming("a chunk is longer than its size says")
            if self._state == _SIZE:
                found = _CHUNK.match(data, at)
                if found is None:
                    line_end = data.find(b"\n", at)
                    if line_end >= 0:
                        raise BadFraming(f"chunk size {data[at : min(line_end, at + 40)]!r}")
                    if len(data) - at > LINE_LIMIT:
                        raise BadFraming(f"no end of a chunk-size line within {LINE_LIMIT} bytes")
                    self._pending = data[at:]
                    return False
                at = found.end()
                self._left = int(found[1], 16)
                self._state = _DATA if self._left else _TRAILERS
                if self._left:
                    continue
            # Trailers are read to find the end, and dropped.
            line_end = data.find(b"\n", at)
            if line_end < 0:
                self._pending = data[at:]
                if self._trailing + len(self._pending) > HEAD_LIMIT:
                    raise BadFraming(f"no end of the trailers within {HEAD_LIMIT} bytes")
                return False
            self._trailing += line_end + 1 - at
            if self._trailing > HEAD_LIMIT:
                raise BadFraming(f"no end of the trailers within {HEAD_LIMIT} bytes")
            line = data[at:line_end].removesuffix(b"\r")
            at = line_end + 1
            if not line:
                self._state = _DONE
                if at < len(data):
                    self.reusable = False
                return True
            if _FIELD.match(line) is None or _FORBIDDEN.search(line):
                raise BadFraming(f"trailer {line[:40]!r}")


def _blank_line(data: bytes) -> tuple[int, int]:
    """Where a head ends and what follows it begins; lines end in CR LF, or LF from servers of lax upbringing."""
    found = -1, -1
    for mark in (b"\r\n\r\n", b"\n\n", b"\n\r\n"):
        at = data.find(mark)
        if at >= 0 and (found[0] < 0 or at < found[0]):
            found = at, at + len(mark)
    return found


def parse_head(head: bytes) -> tuple[int, int, dict[str, str]]:
    """Status, HTTP minor version and headers of a head without its empty line. Raises BadFraming."""
    lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    start = _STATUS.match(lines[0])
    if start is None:
        raise BadFraming(f"status line {lines[0][:40]!r}")
    parts: dict[str, list[str]] = {}
    name = None
    for line in lines[1:]:
        if _FORBIDDEN.search(line):
            raise BadFraming(f"header {line[:40]!r}")
        if line[:1] in (b" ", b"\t") and name is not None:  # a folded line, obsolete but alive
            parts[name].append(f"{parts[name].pop()} {line.strip().decode('latin-1')}")
            continue
        field = _FIELD.match(line)
        if field is None:
            raise BadFraming(f"header {line[:40]!r}")
        name = field[1].decode("ascii").lower()
        # Not by the expression: it would try blanks again and again where a line holds nothing else.
        value = line[field.end() :].strip(b" \t").decode("latin-1")
        parts.setdefault(name, []).append(value)
    return int(start[2]), int(start[1]), {name: ", ".join(values) for name, values in parts.items()}


def post(path: str, host: str, headers: list[tuple[str, str]], body: bytes, keep_alive: bool) -> bytes:
    """A whole POST request. Raises ValueError for a header that would break out of its line."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        *(f"{name}: {value}" for name, value in headers),
        f"Content-Length: {len(body)}",
        f"Connection: {'keep-alive' if keep_alive else 'close'}",
    ]
    head = "\r\n".join(lines)
    if head.count("\r\n") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or "\0" in head:
        raise ValueError("a header holds a line end or NUL")
    return head.encode("latin-1") + b"\r\n\r\n" + body
