"""The embedded data set: people drawn by ``synthetic.scene``, annotated in the bearpaw schema."""

from __future__ import annotations

from pipelines.data.annotations import Annotated
from pipelines.data.readers import mpii

FILES = ("annotations.json",)


def read(annotations: str) -> Annotated:
    """Read every person of a drawn set; errors as in ``mpii.read``.

    Args:
      annotations: ``annotations.json``, local or gs://; its pictures lie in ``images`` beside it.
    """
    return mpii.read(annotations, name="synthetic")
