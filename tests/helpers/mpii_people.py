"""People of MPII's test set."""

from tests.helpers.release_mat import EMPTY, mat_person, struct

NOWHERE = 16 * [(0, 0, 0)]


def person(center=(100, 200), scale=1.5):
    return {**mat_person(center, scale, NOWHERE), "annopoints": EMPTY}


def people(*rows):
    return struct(list(rows), ["annopoints", "scale", "objpos", "x1", "y1", "x2", "y2"])
