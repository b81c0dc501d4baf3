import numpy as np
from PIL import Image, ImageDraw

from weights.pretrain.near_duplicates import has_twin, perceptual_hashes


def _drawing(kind: str, offset: int = 0, size: int = 40) -> np.ndarray:
    canvas = Image.new("L", (64, 64), 255)
    pen = ImageDraw.Draw(canvas)
    box = (4 + offset, 6 + offset, 4 + offset + size, 6 + offset + size)
    if kind == "ring":
        pen.ellipse(box, outline=0, width=size // 8)
    elif kind == "house":
        pen.polygon(
            [(box[0], box[3]), (box[0], box[1] + size // 2), (box[0] + size // 2, box[1]), (box[2], box[3])], fill=0
        )
    else:
        pen.line(box, fill=0, width=size // 6)
        pen.rectangle((box[0], box[1] + size // 2, box[0] + size // 2, box[3]), fill=0)
    return np.asarray(canvas)


def test_moved_and_resized_copies_are_duplicates():
    held_out = perceptual_hashes(np.stack([_drawing("ring"), _drawing("house")]))
    training = np.stack([_drawing("ring", 9, 46), _drawing("house", 5, 48), _drawing("flag")])
    assert has_twin(perceptual_hashes(training), held_out).tolist() == [True, True, False]


def test_distance_is_in_bits():
    hashes = np.array([0b0, 0b111, 0b1111], np.uint64)
    assert has_twin(hashes, np.array([0], np.uint64), near=3).tolist() == [True, True, False]
