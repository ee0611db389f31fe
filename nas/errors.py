"""The errors of data, training, studies, checkpoints, compression, exports and reports.

NasError
├── DataError          images or labels cannot be used as they are
├── TrainingError      a training run cannot go on
│   └── Diverged       the loss became infinite or not a number: the candidate failed, not the search
├── CheckpointError    a checkpoint is damaged, hostile, or of another format
├── StudyError         a study cannot be made, joined or resumed
├── BudgetError        no network of the space meets the budget, or another limit
├── CompressionError   a network cannot be compressed as asked
├── ExportError        an exported file would not do what the checkpoint does
└── ReportError        a run cannot be reported on
"""

from searchspace.errors import NasError


class DataError(NasError):
    """Images or labels cannot be used as they are."""


class TrainingError(NasError):
    """A training run cannot go on."""


class Diverged(TrainingError):
    """The loss became infinite or not a number: the candidate failed, not the search."""


class CheckpointError(NasError):
    """A checkpoint is damaged, hostile, or of another format."""


class StudyError(NasError):
    """A study cannot be made, joined or resumed."""


class BudgetError(NasError):
    """No network of the space meets the budget, or another limit."""


class CompressionError(NasError):
    """A network cannot be compressed as asked."""


class ExportError(NasError):
    """An exported file would not do what the checkpoint does."""


class ReportError(NasError):
    """A run cannot be reported on."""
