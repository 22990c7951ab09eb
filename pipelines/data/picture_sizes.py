"""Annotated sizes compared with real ones: the pixel grid that a picture's annotations refer to."""

from __future__ import annotations

import concurrent.futures
import math
import os
import typing
from collections.abc import Iterable

import numpy as np

from pipelines.data import image_io

_THREADS = 16  # headers of remote files take 50 ms each, of local ones 0.2 ms

STORED, TURNED, SHOWN, EITHER, LIKE_OTHERS, EXCHANGED, RESCALED, DIFFERENT = (
    "stored",
    "turned",
    "shown",
    "either",
    "like others",
    "exchanged",
    "rescaled",
    "different",
)
_NOTES = {
    TURNED: "fit their annotated size only as their EXIF orientation shows them: turned",
    SHOWN: "have an EXIF orientation and were annotated as it shows them: turned",
    LIKE_OTHERS: "have an EXIF orientation and fit with and without it: turned like the others",
    EXCHANGED: "have width and height exchanged in the annotations: their real size is used",
    RESCALED: "do not have their annotated size: positions are rescaled",
    DIFFERENT: "do not have their annotated size: left out (--rescale_annotations rescales "
    "positions instead)",
}


class Fit(typing.NamedTuple):
    """A picture's real size compared with the annotated one.

    Attributes:
      kind: one of this module's names.
      annotated: (width, height) px, as the annotations have it.
      real: (width, height) px of the grid that positions refer to, turned where ``upright`` is set.
      upright: whether to turn the picture by its EXIF orientation; None where the size can't tell.
      scale: (x, y), factors from annotated to real px.
    """

    kind: str
    annotated: tuple[int, int]
    real: tuple[int, int]
    upright: bool | None
    scale: tuple[float, float] = (1.0, 1.0)

    def __str__(self):
        """Both sizes, for messages."""
        (width, height), (w, h) = self.real, self.annotated
        return f"is {width}x{height}, annotated as {w}x{h}"


def compare(
    images: str,
    sizes: dict[str, tuple[int, int]],
    points: dict[str, np.ndarray],
    rescale: bool = False,
    shown: bool = False,
) -> dict[str, Fit]:
    """Compare every picture's header with its annotated size; missing and broken ones are skipped.

    Args:
      images: folder of the pictures.
      sizes: picture, relative to it -> annotated (width, height).
      points: picture -> [N, 2] annotated joints, px. They tell whether exchanged sizes are a slip
        (positions lie in the real picture) or those of a turned picture.
      rescale: take any size, with factors, instead of ``DIFFERENT``.
      shown: the annotation tool turns pictures by their EXIF orientation, so those of a size that
        fits both ways are turned, unless the others were annotated as stored.
    """
    return compare_headers(_headers(images, sizes), sizes, points, rescale, shown)


def compare_headers(
    headers: dict[str, tuple[int, int, int]],
    sizes: dict[str, tuple[int, int]],
    points: dict[str, np.ndarray],
    rescale: bool = False,
    shown: bool = False,
) -> dict[str, Fit]:
    """``compare`` for names whose headers, as ``image_io.header`` returns them, are known."""
    fits = {name: _fit(header, sizes[name], rescale) for name, header in headers.items()}
    _settle_either(fits, headers, shown)
    _check_exchanged(fits, points)
    return fits


def as_shown(images: str, names: Iterable[str]) -> dict[str, Fit]:
    """Picture -> its size as its EXIF orientation shows it; missing and broken ones are skipped.

    For annotations without sizes by tools that turn pictures so.
    """
    fits = {}
    for name, (width, height, orientation) in _headers(images, names).items():
        size = (height, width) if orientation >= 5 else (width, height)
        turned = orientation != 1
        fits[name] = Fit(SHOWN if turned else STORED, size, size, True if turned else None)
    return fits


def notes(fits: dict[str, Fit]) -> list[str]:
    """Return one sentence for each kind that a user should know of, with its first pictures."""
    sentences = []
    for kind, text in _NOTES.items():
        names = [name for name, fit in fits.items() if fit.kind == kind]
        if names:
            examples = ", ".join(f"{name} {fits[name]}" for name in names[:3])
            sentences.append(f"{len(names):,} of {len(fits):,} pictures {text}; {examples}")
    return sentences


def _headers(images: str, names: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    names = sorted(names)
    paths = [os.path.join(images, name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        headers = zip(names, pool.map(_header, paths))
        return {name: header for name, header in headers if header}


def _header(path: str) -> tuple[int, int, int] | None:
    try:
        return image_io.header(path)
    except (ValueError, OSError):
        return None  # the conversion counts it, with its reason


def _fit(header: tuple[int, int, int], annotated: tuple[int, int], rescale: bool) -> Fit:
    *stored, orientation = header
    stored = tuple(stored)
    turned = stored[::-1] if orientation >= 5 else stored
    if annotated in (stored, turned):
        if orientation == 1:
            return Fit(STORED, annotated, stored, None)
        if stored == turned:
            return Fit(EITHER, annotated, stored, None)
        return Fit(
            TURNED if annotated == turned else STORED, annotated, annotated, annotated == turned
        )
    if annotated == stored[::-1]:
        return Fit(EXCHANGED, annotated, stored, None)
    if not rescale:
        return Fit(DIFFERENT, annotated, stored, None)
    real = min((stored, turned), key=lambda size: _distortion(size, annotated))
    scale = (real[0] / annotated[0], real[1] / annotated[1])
    return Fit(RESCALED, annotated, real, None if stored == turned else real == turned, scale)


def _distortion(size: tuple[int, int], annotated: tuple[int, int]) -> float:
    return abs(math.log(size[0] / annotated[0] * annotated[1] / size[1]))


def _settle_either(
    fits: dict[str, Fit], headers: dict[str, tuple[int, int, int]], shown: bool
) -> None:
    """Take pictures that fit both ways as all those were annotated that fit one way only."""
    decided = {fit.kind for name, fit in fits.items() if headers[name][2] >= 5}
    decided &= {TURNED, STORED}
    if len(decided) == 2 or not (decided or shown):
        return
    upright = STORED not in decided
    kind = LIKE_OTHERS if TURNED in decided else SHOWN if upright else EITHER
    for name, fit in fits.items():
        if fit.kind == EITHER:
            fits[name] = fit._replace(kind=kind, upright=upright)


def _check_exchanged(fits: dict[str, Fit], points: dict[str, np.ndarray]) -> None:
    """Make them DIFFERENT where positions fit the annotated sizes better than the real ones."""
    exchanged = {name: fit for name, fit in fits.items() if fit.kind == EXCHANGED}
    beyond_real, beyond_annotated = (
        sum(_beyond(points.get(name), size) for name, size in sizes)
        for sizes in (
            [(name, fit.real) for name, fit in exchanged.items()],
            [(name, fit.annotated) for name, fit in exchanged.items()],
        )
    )
    if beyond_real > beyond_annotated:
        fits.update({name: fit._replace(kind=DIFFERENT) for name, fit in exchanged.items()})


def _beyond(points: np.ndarray | None, size: tuple[int, int]) -> int:
    return 0 if points is None else int((points > size).any(axis=1).sum())
