"""Soft labels on disk: what a teacher says of augmented replicas of the training images, asked once (as MobileNetV4 does it).

    augment ─► teacher ─► replica-000.f16, replica-001.f16, …   (arXiv 2404.10518 section 7; Beyer et al., arXiv 2106.05237)

A replica's augmentation follows from its number alone, so that every student, of whatever seed, sees the very images that were
labelled. Each file holds float16 logits, (N, K), and has a journal with the hash of every chunk: an interrupted teacher goes on,
and a chunk that is not what was written is asked for again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from filelock import FileLock
from torch import Tensor

from latency.host import computing
from nas.data import Augmentation, Batches, Data
from nas.errors import TrainingError
from nas.teachers import Teacher
from searchspace.files import cache_folder, write_atomically

CHUNK = 8192
"""Images between two entries of the journal."""
BATCH = 128
FORMAT = 1

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """What a teacher said.

    Attributes:
        replicas: per replica its logits, float16, (N, K), mapped from disk.
        notes: what a user should know.
    """

    replicas: Sequence[Tensor]
    notes: tuple[str, ...]


def soft_labels(
    teacher: Teacher,
    data: Data,
    augment: Augmentation | None,
    *,
    replicas: int,
    folder: Path | None = None,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> SoftLabels:
    """Ask the teacher about the training split, or find what it said.

    Args:
        teacher: who is asked.
        data: whose training split.
        augment: how images are changed.
        replicas: in how many ways.
        folder: where answers are kept; None: `$XDG_CACHE_HOME/pocketnas/soft_labels`.
        device: where the teacher computes.
        on_progress: told how many of how many images were asked about.

    Raises:
        TrainingError: the teacher does not fit the data, or the answers cannot be kept.
    """
    teacher.check(data)
    batches = Batches(split=data.train, data=data, batch_size=BATCH, augment=augment, replicas=replicas, device=device)
    place = (folder or cache_folder("soft_labels")) / _key(teacher, data, augment)
    notes: list[str] = []
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / "lock"):
            found = [
                _Replica(teacher, data, batches, place, number, replicas).filled(on_progress, notes)
                for number in range(replicas)
            ]
    except OSError as error:
        raise TrainingError(
            f"{place}: what a teacher said cannot be kept there ({error.strerror or error}); free it, or set XDG_CACHE_HOME"
        ) from error
    return SoftLabels(found, tuple(notes))


def _key(teacher: Teacher, data: Data, augment: Augmentation | None) -> str:
    content = [FORMAT, teacher.identity, data.fingerprint, data.resolution, augment and asdict(augment)]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, eq=False)
class _Replica:
    """One replica's file."""

    teacher: Teacher
    data: Data
    batches: Batches
    folder: Path
    number: int
    replicas: int

    def filled(self, on_progress: Progress | None, notes: list[str]) -> Tensor:
        """Its answers, after asking for those that are missing or damaged.

        The file is mapped once it is whole. Until then it is read and written plainly: on a full disk that raises, where a mapped
        file would kill the process.
        """
        count, row = len(self.data.train), 2 * len(self.data.classes)  # images, and bytes of one's answers
        path = self.folder / f"replica-{self.number:03}.f16"
        journal = path.with_suffix(".json")
        hashes, damaged = _journal(journal)
        path.touch()
        with path.open("r+b") as file:
            for start in range(0, count, CHUNK):
                images, known = min(CHUNK, count - start), hashes.get(str(start))
                file.seek(start * row)
                if known == _hash(file.read(images * row)):
                    continue
                damaged = damaged or known is not None
                said = self._asked(start, images, on_progress).flatten().view(torch.uint8).numpy().tobytes()
                _write(file, start * row, said)
                hashes[str(start)] = _hash(said)
                write_atomically(journal, json.dumps(hashes).encode())
            file.truncate(count * row)
        if damaged:
            notes.append(f"{path} was damaged: the teacher has been asked again for what was lost")
        answers = torch.from_file(str(path), shared=True, size=count * row // 2, dtype=torch.float16)
        return answers.view(count, row // 2)

    def _asked(self, start: int, images: int, on_progress: Progress | None) -> Tensor:
        """What the teacher says of so many images from number `start` on, float16, (N, K)."""
        count, answers = len(self.data.train), []
        done = start
        with computing("asking a teacher") as give_way:
            for batch in self.batches.replica(self.number, start=start, images=images):
                give_way()
                said = self.teacher.logits(batch, self.data).cpu()
                answers.append((said - said.amax(1, keepdim=True)).to(torch.float16))
                done += len(said)
                if on_progress is not None:
                    what = f"asking the teacher, replica {self.number + 1} of {self.replicas}"
                    on_progress(what, self.number * count + done, self.replicas * count)
        return torch.cat(answers)


def _write(file: BinaryIO, offset: int, content: bytes) -> None:
    """Write to a place in a file, and to the disk.

    Raises:
        OSError: the disk is full.
    """
    file.seek(offset)
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _journal(path: Path) -> tuple[dict[str, str], bool]:
    """Hash of every chunk by its first image; and whether the file is there but damaged."""
    try:
        hashes = json.loads(path.read_bytes())
        return (hashes, False) if isinstance(hashes, dict) else ({}, True)
    except FileNotFoundError:
        return {}, False
    except ValueError:
        return {}, True


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
