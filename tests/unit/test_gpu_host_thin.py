"""scripts/gpu-host/thin over fat binaries made here."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

PTX, CODE = 1, 2


def fat(*parts: tuple[int, int, bytes]) -> bytes:
    """One fat binary of (kind, capability, payload) entries."""
    body = b""
    for kind, capability, payload in parts:
        body += (
            struct.pack("<HHIQ", kind, 0x101, 64, len(payload))
            + bytes(12)
            + struct.pack("<I", capability)
            + bytes(32)
            + payload
        )
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_only_what_the_gpu_would_run_is_kept(root: Path, tmp_path: Path) -> None:
    has_code = fat((CODE, 80, b"a" * 40), (CODE, 90, b"b" * 40), (PTX, 90, b"c" * 40), (CODE, 120, b"d" * 40))
    only_text = fat((PTX, 75, b"e" * 40), (PTX, 80, b"f" * 40), (CODE, 80, b"g" * 40), (PTX, 100, b"h" * 40))
    torn = has_code[:30]
    whole = b"\x7fELF" + b"text" * 9 + has_code + b"between" + only_text + b"data" + torn
    library, other = tmp_path / "lib.so", tmp_path / "plain.so.1"
    library.write_bytes(whole)
    other.write_bytes(b"\x7fELF no GPU code")
    done = subprocess.run([root / "scripts/gpu-host/thin", tmp_path, "90"], capture_output=True, text=True, check=True)
    found = library.read_bytes()
    assert len(found) == len(whole)
    assert [letter for letter in "abcdefgh" if letter.encode() * 40 in found] == ["b", "f"]
    assert found.startswith(b"\x7fELF" + b"text" * 9) and b"between" in found and found.endswith(b"data" + torn)
    assert other.read_bytes() == b"\x7fELF no GPU code"
    assert done.stdout == f"{library}: 0.0 of 0.0 MB of GPU code\n"


def test_usage(root: Path) -> None:
    done = subprocess.run([root / "scripts/gpu-host/thin", "site"], capture_output=True, text=True)
    assert done.returncode == 1 and "thin SITE CAPABILITY" in done.stderr
