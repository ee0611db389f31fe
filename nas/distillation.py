"""Learning from another network beside the labels: Hinton et al. (arXiv 1503.02531) section 2.

The loss is (1 − w) · cross-entropy with the labels + w · T² · KL(teacher ‖ student), both networks' logits divided by the
temperature T; the factor T² keeps the soft part's gradients at the scale of the hard part's.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.checkpoint import Checkpoint
from nas.errors import TrainingError
from searchspace.network import Network


@dataclass(frozen=True, eq=False)
class Distillation:
    """A teacher and how much it counts.

    Attributes:
        teacher: of the same input and classes as the student.
        weight: share of the soft part, in [0, 1].
        temperature: softens both networks' logits; above 0.

    Raises:
        TrainingError: a value is out of range.
    """

    teacher: Checkpoint
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise TrainingError(f"the share of distillation must be in [0, 1], got {self.weight:g}")
        if not self.temperature > 0:
            raise TrainingError(f"the temperature must be above 0, got {self.temperature:g}")

    @cached_property
    def identity(self) -> str:
        """Changes whenever the losses would."""
        digest = hashlib.blake2b(f"{self.weight} {self.temperature}".encode(), digest_size=8)
        digest.update(self.teacher.architecture.fingerprint.encode())
        for name, tensor in sorted(self.teacher.state.items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def network(self, device: torch.device, layout: torch.memory_format) -> Network:
        """The teacher, ready to be asked."""
        network = self.teacher.network().to(device).requires_grad_(False)
        return network.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]

    def loss(self, hard: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The whole loss, from its hard part and both networks' logits (N, classes)."""
        student = F.log_softmax(logits / self.temperature, dim=1)
        teacher = F.log_softmax(teacher_logits / self.temperature, dim=1)
        soft = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return (1 - self.weight) * hard + self.weight * self.temperature**2 * soft
