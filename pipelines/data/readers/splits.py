"""Who is trained on and who validates, by whole pictures."""

from __future__ import annotations

import hashlib

VALIDATION_FRACTION = 0.1


def validation_images(parts: list[set[str]], fraction: float | None, seed: int) -> set[str]:
    """All pictures of the second of two parts, or a choice among those of the only one.

    Args:
      parts: names of the training pictures and, where there are any, of the validation pictures.
      fraction: of the only part's pictures, see ``held_out``; None is ``VALIDATION_FRACTION``.
      seed: of that choice.

    Raises ValueError for a fraction where there are two parts, or pictures in both.
    """
    images, *second = parts
    if not second:
        return held_out(images, VALIDATION_FRACTION if fraction is None else fraction, seed)
    if fraction is not None:
        raise ValueError("give validation annotations or a fraction, not both")
    (validation,) = second
    _check_apart(images & validation)
    return validation


def held_out(images: set[str], fraction: float, seed: int) -> set[str]:
    """Choose the pictures for validation: those with the lowest seeded hashes of their names.

    The choice depends on the names alone, not on their order. At least one is chosen and one left
    when there are two or more, unless ``fraction`` is 0.

    Raises ValueError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the validation fraction is {fraction}; it must be 0 or more and below 1")
    count = round(fraction * len(images))
    if fraction:
        count = min(max(count, 1), len(images) - 1)
    return set(sorted(images, key=lambda name: _hash(f"{seed} {name}"))[:count])


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _check_apart(both: set[str]) -> None:
    if not both:
        return
    names = ", ".join(sorted(both)[:5]) + (", ..." if len(both) > 5 else "")
    raise ValueError(
        f"{len(both)} pictures are in both the training and the validation annotations: {names}. "
        "Validation pictures must not be trained on: remove them from one (without validation "
        "annotations a tenth of the pictures is held out), or give --validation_images if they are "
        "other pictures of the same name"
    )
