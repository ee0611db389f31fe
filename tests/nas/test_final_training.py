"""Finalists: chosen by what the search compared candidates by, trained by the recipe that was asked for."""

from pathlib import Path

from nas.checkpoint import load_checkpoint
from nas.fidelity import Fidelity
from nas.final_training import EPOCHS, FinalTraining, by_worth
from nas.outcomes import Tried
from nas.recipe import Recipe, load_recipe
from tests.nas.learning import small
from tests.nas.test_candidates import DATA, trainer


def tried(dropout: float, accuracy: float, loss: float, value: float | None = None) -> Tried:
    return Tried(small(dropout=dropout), accuracy, loss, 1.0, 0.9, 1.1, value)


def test_what_was_asked_for_chooses_and_loss_breaks_ties() -> None:
    by_loss = [tried(0.1, 0.9, 2.0, -2.0), tried(0.2, 0.5, 1.0, -1.0), tried(0.3, 0.7, 3.0, -3.0)]
    assert by_worth(by_loss) == [by_loss[1], by_loss[0], by_loss[2]]
    by_accuracy = [tried(0.1, 0.5, 2.0), tried(0.2, 0.9, 1.0), tried(0.3, 0.9, 0.5)]
    assert by_worth(by_accuracy) == by_accuracy[::-1]


def test_finalists_are_trained_as_asked(tmp_path: Path) -> None:
    recipe = Recipe(images=48, batch_size=16, lr=0.01, label_smoothing=0.2, channels_last=False)
    candidate = tried(0.0, 0.5, 1.0)
    brief = trainer(tmp_path / "candidates", Fidelity(images=16))

    def trained(name: str, **options: object) -> tuple[dict[str, object], float]:
        training = FinalTraining(trainer=brief, folder=tmp_path / name, **options)  # type: ignore[arg-type]
        training.train(candidate)
        checkpoint = load_checkpoint(training.path(candidate))
        return dict(checkpoint.recipe), checkpoint.metrics["images"]

    assert trained("own", recipe=recipe) == (recipe.to_dict(), 48)
    assert trained("longer", recipe=recipe, epochs=1)[1] == len(DATA.train)
    shipped, images = trained("shipped")
    assert images <= EPOCHS * len(DATA.train)
    assert shipped["label_smoothing"] == load_recipe("full").label_smoothing
