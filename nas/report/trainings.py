"""The report of one network's training: its learning curve, and the network."""

from nas.report.content import Page
from nas.report.drawing import draw
from nas.report.reading import Folder, number
from nas.report.searches import curve_section


def training_page(folder: Folder) -> Page:
    """Everything that `nas train` left, finished or not."""
    result = folder.json("result.json")
    if not result:
        folder.remarks.append("training has not ended: its curve goes as far as it has come")
    path = folder.path / "network.pt"
    checkpoint = folder.checkpoint(path) if path.exists() else None
    curve = [
        {"network": "this network", **look}
        for look in (result or folder.json("curve.json")).get("curve", [])
        if isinstance(look, dict)
    ]
    facts = (
        ("accuracy on the test split", number(result.get("accuracy"), ".2%")),
        ("on the validation split", number(result.get("validation_accuracy"), ".2%")),
        ("epochs", number(result.get("epochs"))),
        ("images a second", number(result.get("images_per_second"), ",.0f")),
    )
    return Page(
        title="Training",
        facts=facts if result else (),
        remarks=tuple(folder.remarks),
        sections=tuple(curve_section(curve)),
        networks=() if checkpoint is None else (draw(checkpoint.architecture, folder.latency_model()),),
    )
