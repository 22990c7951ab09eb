"""Videos whose metadata turns them, as phones write them."""

import struct

import cv2
import numpy as np

# The QuickTime matrices that phones write: (a, b, c, d) of x' = a x + c y, y' = b x + d y.
TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def turned_film(path, degrees, size=(64, 48)):
    """An .mp4 of 3 frames, left half red, whose track header turns it for viewers."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25.0, size)
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    frame[:, : size[0] // 2] = (0, 0, 250)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in TURNS[degrees])
    assert struct.unpack_from(">9i", data, start) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return str(path)
