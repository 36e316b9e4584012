"""Draws the README's pictures anew: the made patient of the demo, assessed, and its plan simulated, in three planes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from dicom_node.assessing import assess_files
from dicom_node.phantom_series import write_phantom
from dicom_node.simulating import Wishes, simulate_files

PLANES = ("axial", "coronal", "sagittal")
WIDTH_PX = 1500


def main() -> None:
    """Writes incomplete.jpg and simulated.jpg beside this file."""
    with tempfile.TemporaryDirectory(prefix="marginwatch-picture-") as name:
        folder = Path(name)
        made = write_phantom(folder, story="incomplete", size="full")
        assess_files(
            made.plan, baseline=[made.baseline], followup=[made.followups[0]], previous=(), out=folder / "result"
        )
        simulate_files(made.plan, baseline=[made.baseline], out=folder / "simulated", wishes=Wishes())
        simulated = Image.open(folder / "simulated" / "images" / "L1.png").convert("RGB")
        images = [Image.open(folder / "result" / "images" / f"lesion-1-{plane}.png").convert("RGB") for plane in PLANES]
    height = min(image.height for image in images)
    row = Image.new("RGB", (sum(image.width for image in images), height))
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width
    row.thumbnail((WIDTH_PX, WIDTH_PX))
    row.save(Path(__file__).with_name("incomplete.jpg"), quality=88, optimize=True)
    simulated.thumbnail((WIDTH_PX, WIDTH_PX))
    simulated.save(Path(__file__).with_name("simulated.jpg"), quality=88, optimize=True)


if __name__ == "__main__":
    main()
