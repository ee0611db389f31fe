"""Decoded images that stay in their file: mapped where they would not fit into memory, and by every process of several."""

import os
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nas.errors import DataError

LIMITS = ("memory.max", "memory.limit_in_bytes")  # of a control group: version 2, version 1


def mapped_images(file: Path) -> Tensor:
    """All images of a decoded file, uint8, (M, C, R, R), channels last; they are read when they are looked at.

    They cannot be written to: for a mapping that can the system counts memory, and refuses one of a file larger than that.

    Raises:
        DataError: the file is gone.
    """
    try:
        pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise DataError(f"{file}: decoded images are needed there, got {error.strerror}; run the same again") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def memory_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may use: the machine's, or less where a container or a batch job limits it.

    Args:
        root: where `proc` and `sys` are.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _control_groups(root):
        for name in LIMITS:
            try:
                limits.append(int((group / name).read_text()))
            except (OSError, ValueError):  # not of this version, or no limit: "max"
                continue
    return min(limits)


def _control_groups(root: Path) -> list[Path]:
    """Folders of the groups that this process belongs to, and of those around them, which limit it as well."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
            inner = top / path.strip("/")
            groups += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return groups
