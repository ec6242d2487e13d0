"""Write contract.npz: crops and tensors of a synthetic picture. Run it only when the contract is meant to change."""

from pathlib import Path

import cv2
import numpy as np

from edge.model.preprocessing import crop, encode
from edge.records import Box

BOXES = [Box(10, 10, 48, 48), Box(-20, 30, 90, 90), Box(100, 60, 130, 130), Box(150, 100, 33, 41), Box(170, 90, 80, 60)]
MARGIN = 0.1


def main() -> None:
    """Make the file beside this script."""
    rng = np.random.default_rng(7)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (180, 240)).astype(np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    faces = np.stack([crop(picture, box, MARGIN) for box in BOXES])
    np.savez_compressed(
        Path(__file__).with_name("contract.npz"),
        picture=picture,
        boxes=np.array([[box.x, box.y, box.w, box.h] for box in BOXES]),
        margin=np.float64(MARGIN),
        faces=faces,
        tensors=np.stack([encode(face, 1 / 128, 0) for face in faces]),
    )


if __name__ == "__main__":
    main()
