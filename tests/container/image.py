"""An image for tests of containers: this Python, the embedded llama.cpp server, and the libraries that both load. No
registry is asked.

    python tests/container/image.py [TAG]

Its entry point takes the flags of `llama-server`, as the image of llama.cpp does. Needs a container engine and some 130
MB.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TAG = "llmpar-test/llamacpp:embedded"
LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "ensurepip",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "config-*",
)


def libraries(*binaries: Path) -> set[Path]:
    """The shared libraries that these load, the dynamic linker among them."""
    found: set[Path] = set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout
        found |= {Path(name) for name in re.findall(r"(/\S+) \(0x", listed)}
    return found


def lay_out(root: Path, server: Path) -> None:
    """The image's files: /opt/python, its libraries where the linker looks for them, and the server's script."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = root / "opt" / "python"
    (home / "bin").mkdir(parents=True)
    executable = Path(os.path.realpath(sys.executable))
    shutil.copy2(executable, home / "bin" / "python3")
    standard = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    shutil.copytree(standard, home / "lib" / version, ignore=shutil.ignore_patterns(*LEFT_OUT))
    package = importlib.util.find_spec("xllamacpp")
    if package is None or not package.submodule_search_locations:
        sys.exit("image.py: xllamacpp is not installed: pip install 'llmpar[cpu]'")
    shutil.copytree(
        package.submodule_search_locations[0],
        home / "lib" / version / "site-packages" / "xllamacpp",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for library in libraries(executable, *home.rglob("*.so")):
        # /lib is a link to /usr/lib on many systems and a folder here: the linker looks in both.
        place = root / library.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(library), place)
    (root / "tmp").mkdir(mode=0o1777)
    shutil.copy2(server, root / "llamacpp_server.py")


def build(server: Path, tag: str = TAG, tool: str = "docker") -> str:
    """Build the image; its tag. Layers that did not change are kept, so a second build takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder) / "root", server)
        shutil.copy2(HERE / "Containerfile", folder)
        subprocess.run(
            [tool, "build", "--quiet", "--tag", tag, "--file", f"{folder}/Containerfile", folder],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
    return tag


if __name__ == "__main__":
    print(build(HERE.parents[1] / "llmpar" / "engines" / "llamacpp_server.py", *sys.argv[1:]))
