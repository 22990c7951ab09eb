"""Options for predicting pictures and videos, in a module of their own for a fast --help."""

from __future__ import annotations

import dataclasses

from pipelines.cli import option


@dataclasses.dataclass(frozen=True)
class MediaOptions:
    """The people to predict, and what to write."""

    checkpoint: str = option(
        "",
        "folder of a run, its best/, or one checkpoint; default: pretrained/people, which comes "
        "with the project",
        group="Network",
    )
    engine: str = option(
        "tensorflow",
        "what computes the network; openvino (after make export-tools) uses the CPU alone, in bf16 "
        "where it has that",
        choices=("tensorflow", "openvino"),
    )
    boxes: str = option(
        "",
        'bounding boxes: CSV lines file,x,y,w,h, JSON {"file": [[x, y, w, h]]}, COCO detections or '
        "annotations; default: each picture shows one person, who is looked for",
        group="People and pictures",
    )
    recuts: int = option(
        2,
        "times, at most, that a person without a box is cut again around the joints found; the "
        "surest prediction counts",
        lower=0,
    )
    annotations: str = option("", "COCO file with the file names of the images in --boxes")
    category: str = option(
        "", "COCO category_id of the boxes and of the results; default: that of the run's data"
    )
    min_score: float = option(
        0.3, "detections of a lower score are left out", formerly="least_score"
    )
    upright: bool = option(
        True,
        "turn pictures by their EXIF orientation and videos by their metadata, as viewers show "
        "them; boxes with an annotated picture size decide for themselves",
    )
    smooth: bool = option(False, "videos: smoother joints by a One Euro filter, also in the files")
    every: int = option(1, "videos: predict and draw each Nth frame only", lower=1)
    output: str = option(
        "predictions",
        "folder for pictures, videos, predictions.json and predictions.csv",
        group="Output",
    )
    draw: bool = option(True, "write pictures and videos, not only predictions")
    heatmaps: bool = option(False, "add a panel of the heatmaps to each picture")
    show_above: float = option(0.2, "joints of lower confidence are not drawn; the files have all")
    longest: int = option(1600, "longer side of drawn pictures, px", lower=16)
