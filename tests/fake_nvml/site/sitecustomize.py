"""Puts the fake under pynvml in any Python that starts with this folder on its path and a scenario in FAKE_NVML."""

import os
import sys

if os.environ.get("FAKE_NVML"):
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    import fake_nvml  # type: ignore[import-not-found]

    fake_nvml.install(fake_nvml.from_json(os.environ["FAKE_NVML"]))
