"""The GPUs that a scheduler, or the user, left this process: CUDA_VISIBLE_DEVICES read once, as CUDA reads it.

Source: CUDA C++ Programming Guide, "CUDA Environment Variables": indices or (beginnings of) UUIDs, of which those after
the first that names no device do not count.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence


def told(environ: Mapping[str, str] | None = None) -> list[str] | None:
    """The words of CUDA_VISIBLE_DEVICES; None where it is not set, so that every GPU is visible."""
    text = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    return None if text is None else words(text)


def words(text: str) -> list[str]:
    """The words of a list of GPUs up to the first that can name none."""
    names = []
    for word in map(str.strip, text.split(",")):
        if not (word.isdecimal() or word.startswith(("GPU-", "MIG-"))):
            break
        names.append(word)
    return names


def within(chosen: str, visible: Sequence[str] | None) -> str:
    """GPUs named by their place among the visible ones (`0,1`), as CUDA would number them, to names of the machine.

    Raises ValueError where fewer are visible.
    """
    if visible is None:
        return chosen
    names = []
    for word in filter(None, map(str.strip, chosen.split(","))):
        if not word.isdecimal():
            names.append(word)
        elif int(word) < len(visible):
            names.append(visible[int(word)])
        else:
            have = f"{len(visible)} GPU{'s' if len(visible) != 1 else ''}"
            raise ValueError(
                f"gpus: there is no GPU {word} among the {have} of CUDA_VISIBLE_DEVICES ({','.join(visible)})"
            )
    return ",".join(names)


def indices(names: Sequence[str], uuids: Sequence[str]) -> list[int]:
    """The numbers of named GPUs among all of the machine, whose UUIDs are given in the driver's order."""
    numbers = []
    for word in names:
        if word.isdecimal():
            place = int(word) if int(word) < len(uuids) else None
        else:
            place = next((place for place, uuid in enumerate(uuids) if uuid.startswith(word)), None)
        if place is None:
            break
        numbers.append(place)
    return numbers
