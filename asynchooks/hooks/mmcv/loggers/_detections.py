"""The tables of a detector's run: images with their ground truth once, and predictions after each evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from asynchooks.hooks.mmcv.loggers._samples import chosen, ground_truth
from asynchooks.hooks.mmcv.loggers._tables import Sample, box_data, class_labels, mask_data, prediction_of

__all__ = ["Detections"]


class Detections:
    """Logs tables to W&B; images are uploaded once, and later tables refer to them.

    Args:
        samples: the images with their ground truth.
        indices: their places in the data set.
        classes: names of the classes.
        score_thr: boxes with lower scores are not shown.
    """

    def __init__(
        self, samples: Sequence[Sample], indices: Sequence[int], classes: Sequence[str], score_thr: float
    ) -> None:
        self.indices = tuple(indices)
        self._samples = tuple(samples)
        self._labels = class_labels(classes)
        self._score_thr = score_thr
        self._rows: list[Any] | None = None  # name and image of each
        self._sizes: list[tuple[int, int]] = []

    @classmethod
    def of(cls, dataset: Any, count: int, score_thr: float) -> Self:
        """Choose images of a data set of MMDetection's, and take their annotations. Training thread."""
        indices = chosen(count, len(dataset))
        return cls([ground_truth(dataset, i) for i in indices], indices, dataset.CLASSES, score_thr)

    def log_images(self, backend: Any) -> None:
        """Log the images with their ground truth, once. Blocks."""
        if self._rows is not None:
            return
        import wandb

        table, sizes = wandb.Table(columns=["image_name", "image"]), []
        for sample in self._samples:
            assert sample.read is not None  # noqa: S101 - ground truth has it
            image = sample.read()
            sizes.append(image.shape[:2])
            table.add_data(sample.name, self._image(image, sample, "ground_truth", image.shape[:2]))
        artifact = backend.add_artifact("val", "dataset", objects={"val_data": table})
        if not backend.experiment.offline:
            backend.experiment.use_artifact(artifact)
            artifact.wait()
            table = artifact.get("val_data")
        self._rows, self._sizes = list(table.data), sizes

    def log_predictions(self, backend: Any, results: Mapping[str, Any], alias: str) -> None:
        """Log what was found in the images, by their place in the data set. Blocks."""
        import wandb

        self.log_images(backend)
        table = wandb.Table(columns=["image_name", "ground_truth", "prediction"])
        for index, (name, image), size in zip(self.indices, self._rows or (), self._sizes, strict=True):
            sample = prediction_of(name, results[str(index)], self._score_thr)
            table.add_data(name, image, self._image(image, sample, "predictions", size))
        artifact = f"run_{backend.experiment.id}_pred"
        backend.add_artifact(artifact, "evaluation", objects={"eval_data": table}, aliases=["latest", alias])

    def _image(self, image: Any, sample: Sample, key: str, size: tuple[int, int]) -> Any:
        import wandb

        return wandb.Image(
            image,
            boxes={key: box_data(sample, self._labels)},
            masks=mask_data(sample, self._labels, *size) or None,
            classes=wandb.Classes(  # type: ignore[attr-defined]
                [{"id": number, "name": name} for number, name in self._labels.items()]
            ),
        )
