"""Learning from another network beside the labels: Hinton et al. (arXiv 1503.02531) section 2, with labels made in advance.

The loss is (1 − w) · cross-entropy with the labels + w · T² · KL(teacher ‖ student), both networks' logits divided by the
temperature T; the factor T² keeps the soft part's gradients at the scale of the hard part's.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import Augmentation, Data
from nas.data.mixing import before
from nas.errors import TrainingError
from nas.soft_labels import Progress, SoftLabels, soft_labels
from nas.teachers import Teacher, load_teacher


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A distillation by its teacher's name, so that processes can be told of it; the attributes are those of `Distillation`."""

    teacher: str
    weight: float = 0.5
    temperature: float = 2.0
    replicas: int = 8

    def distillation(self, device: str | None = None) -> "Distillation":
        """With the teacher loaded, to a card where there is one unless `device` says otherwise.

        Raises:
            TrainingError: there is no such teacher, or a value is out of range.
        """
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        teacher = load_teacher(self.teacher, device=place)
        return Distillation(teacher, weight=self.weight, temperature=self.temperature, replicas=self.replicas)


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher and how much it counts.

    Attributes:
        teacher: of the student's classes.
        weight: share of the soft part, in [0, 1].
        temperature: softens both networks' logits; above 0.
        replicas: in how many augmented ways, at most, the teacher sees every image; an epoch uses one, over and over.
        folder: where its answers are kept; None: in the user's cache.

    Raises:
        TrainingError: a value is out of range.
    """

    teacher: Teacher
    weight: float = 0.5
    temperature: float = 2.0
    replicas: int = 8
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise TrainingError(f"the share of distillation must be in [0, 1], got {self.weight:g}")
        if not self.temperature > 0:
            raise TrainingError(f"the temperature must be above 0, got {self.temperature:g}")
        if self.replicas < 1:
            raise TrainingError(f"the teacher must see images in at least 1 replica, got {self.replicas}")

    @property
    def identity(self) -> str:
        """Changes whenever the losses would."""
        return f"{self.teacher.identity} weight {self.weight} temperature {self.temperature} replicas {self.replicas}"

    def labels(
        self,
        data: Data,
        augment: Augmentation | None,
        *,
        start: int,
        images: int,
        device: torch.device | str = "cpu",
        on_progress: Progress | None = None,
    ) -> SoftLabels:
        """What the teacher says of all that a training sees, which is `images` of the endless stream from number `start` on."""
        split = len(data.train)
        epochs = math.ceil((start + images) / split) - start // split
        return soft_labels(
            self.teacher,
            data,
            augment,
            replicas=max(1, min(self.replicas, epochs)),
            folder=self.folder,
            device=device,
            on_progress=on_progress,
        )

    def loss(self, hard: Tensor, logits: Tensor, answers: Tensor, *, share: float = 1.0) -> Tensor:
        """The whole loss.

        Args:
            hard: its hard part.
            logits: the student's, (B, K).
            answers: the teacher's logits, (B, K).
            share: of each image's own answer where images are mixed with the ones before them.
        """
        student = F.log_softmax(logits.float() / self.temperature, dim=1)
        taught = F.softmax(answers.float() / self.temperature, dim=1)
        if share < 1:
            taught = torch.lerp(before(taught), taught, share)
        soft = F.kl_div(student, taught, reduction="batchmean")
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft
