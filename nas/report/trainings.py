"""The report of one network's training: its learning curve, and the network."""

from nas.report.content import Drawing, Page, Point
from nas.report.drawing import draw
from nas.report.reading import Folder, Json, number
from nas.report.searches import curve_section


def training_page(folder: Folder) -> Page:
    """Everything that `nas train` left, finished or not."""
    result = folder.result("training")
    curve = training_curve(folder)
    facts = (
        ("accuracy on the test split", number(result.get("accuracy"), ".2%")),
        ("on the validation split", number(result.get("validation_accuracy"), ".2%")),
        ("epochs", number(result.get("epochs"))),
        ("images a second", number(result.get("images_per_second"), ",.0f")),
    )
    networks = _networks(folder)
    return Page(
        title="Training",
        facts=facts if result else (),
        remarks=tuple(folder.remarks),
        sections=tuple(curve_section([{"network": "this network", **look} for look in curve])),
        networks=networks,
    )


def training_points(folder: Folder) -> list[Point]:
    """The network of a training: the finished one, or as it was when it was best so far."""
    result = folder.result("training")
    fingerprint = next((drawn.fingerprint for drawn in _networks(folder)), "")
    if result:
        return [Point(fingerprint, "trained", None, result["validation_accuracy"])]
    accuracies = [look["accuracy"] for look in training_curve(folder)]
    return [Point("", "in training", None, max(accuracies))] if accuracies else []


def training_curve(folder: Folder) -> list[Json]:
    """What was looked at while training: rows with `images, accuracy, loss`."""
    return folder.objects(folder.json("result.json") or folder.json("curve.json"), "curve")


def _networks(folder: Folder) -> tuple[Drawing, ...]:
    path = folder.path / "network.pt"
    checkpoint = folder.checkpoint(path) if path.exists() else None
    return () if checkpoint is None else (draw(checkpoint.architecture, folder.latency_model()),)
