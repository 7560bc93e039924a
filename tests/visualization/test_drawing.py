"""What is drawn, in numbers: which pixels have which color."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asynchooks.errors import ConfigError
from asynchooks.visualization import Visualizer, decode_image, encode_image

RED, BLUE, GREEN = [255, 0, 0], [0, 0, 255], [0, 128, 0]


def blank(height: int = 40, width: int = 60, value: int = 0) -> Any:
    return np.full((height, width, 3), value, np.uint8)


def drawn_on(image: Any) -> Visualizer:
    visualizer = Visualizer()
    visualizer.set_image(image)
    return visualizer


def test_the_edge_of_a_box_has_its_color_and_lies_inside_of_it() -> None:
    box = torch.tensor([10.0, 5.0, 30.0, 25.0])
    image = drawn_on(blank()).draw_bboxes(box, edge_colors="r", line_widths=2, alpha=1).get_image()

    where = (image == RED).all(axis=-1)
    expected = np.zeros_like(where)
    expected[5:26, 10:31] = True
    expected[7:24, 12:29] = False
    assert (where == expected).all()
    assert (image[~where] == 0).all()


def test_opacity_blends_a_shape_with_what_lies_below() -> None:
    image = (
        drawn_on(blank(value=100))
        .draw_bboxes([0, 0, 9, 9], edge_colors="none", face_colors=(200, 0, 100), alpha=0.5)
        .get_image()
    )

    assert image[5, 5].tolist() == pytest.approx([150, 50, 100], abs=1)
    assert image[20, 20].tolist() == [100, 100, 100]


def test_each_thing_has_its_own_color() -> None:
    boxes = np.array([[0, 0, 9, 9], [20, 20, 39, 39]])
    image = drawn_on(blank()).draw_bboxes(boxes, edge_colors=["b", "#ff0000"], alpha=1).get_image()

    assert image[0, 4].tolist() == BLUE
    assert image[20, 30].tolist() == RED


def test_lines_points_circles_and_polygons_are_where_they_were_put() -> None:
    image = (
        drawn_on(blank())
        .draw_lines([0, 59], [2, 2], colors="r", line_widths=1)
        .draw_points([[10, 20]], colors="b", sizes=2)
        .draw_circles([[40, 20]], [8], edge_colors="g", line_widths=1, alpha=1)
        .draw_polygons(np.array([[0, 30], [20, 30], [20, 39]]), edge_colors="none", face_colors="r", alpha=1)
        .get_image()
    )

    assert (image[2] == RED).all()
    assert image[20, 10].tolist() == BLUE
    assert image[20, 48].tolist() == GREEN
    assert image[20, 40].tolist() == [0, 0, 0]
    assert image[31, 18].tolist() == RED


def test_a_broken_line_has_strokes_and_gaps() -> None:
    solid = drawn_on(blank()).draw_lines([0, 59], [5, 5], "r", "-", 2).get_image()
    for style, strokes in (("--", 6), (":", 12), ("dashdot", 6)):
        image = drawn_on(blank()).draw_lines([0, 59], [5, 5], "r", style, 2).get_image()
        row = (image[5, :, 0] == 255).astype(int)

        assert (np.diff(row) == 1).sum() + row[0] == pytest.approx(strokes, abs=1)
        assert ((image != 0) <= (solid != 0)).all()


def test_shapes_may_have_broken_edges() -> None:
    boxes, alpha = np.array([[5, 5, 50, 35]]), 1
    whole = drawn_on(blank()).draw_bboxes(boxes, "r", "-", 1, alpha=alpha).get_image().any(axis=-1)
    broken = drawn_on(blank()).draw_bboxes(boxes, "r", "--", 1, alpha=alpha).get_image().any(axis=-1)
    assert (broken <= whole).all()
    assert 0.5 < broken.sum() / whole.sum() < 0.95

    circle = drawn_on(blank()).draw_circles([30, 20], 15, "r", ":", 1, alpha=1).get_image().any(axis=-1)
    ys, xs = np.nonzero(circle)
    assert abs(np.hypot(ys - 20, xs - 30) - 15).max() < 1.5


def test_a_font_file_is_used(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    own = drawn_on(blank()).draw_texts("ab", [5, 5], 20, "r").get_image()
    other = drawn_on(blank()).draw_texts("ab", [5, 5], 20, "r", font_families=str(font)).get_image()

    assert other.any()
    assert (own != other).any()


def test_a_mask_colors_its_pixels_and_no_other() -> None:
    mask = np.zeros((40, 60), bool)
    mask[3:5, 7:9] = True
    image = drawn_on(blank()).draw_binary_masks(mask, colors="b", alphas=1.0).get_image()

    assert ((image == BLUE).all(axis=-1) == mask).all()


def test_a_text_stands_at_its_position_on_its_background() -> None:
    background = [{"facecolor": "w", "alpha": 1.0}]
    image = drawn_on(blank()).draw_texts("HI", [[10, 10]], 12, "r", bboxes=background).get_image()

    ys, xs = np.nonzero(image.any(axis=-1))
    assert (ys.min(), xs.min()) >= (10, 10)
    assert (image == 255).all(axis=-1).any()
    assert ((image[..., 0] > 200) & (image[..., 1] < 60)).any()


def test_what_lies_outside_of_the_image_is_left_out() -> None:
    boxes = [[-20, -20, -5, -5], [50, 30, 200, 200], [float("nan"), 0, 1, 1]]
    image = drawn_on(blank()).draw_bboxes(boxes, edge_colors="r", line_widths=1, alpha=1).get_image()

    assert image[30, 55].tolist() == RED
    assert (image[:29] == 0).all()


def test_a_drawing_leaves_the_given_image_alone() -> None:
    given = blank()
    drawn_on(given).draw_bboxes([0, 0, 9, 9])

    assert (given == 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda v: v.draw_bboxes([1, 2, 3]), "rows of 4 numbers"),
        (lambda v: v.draw_bboxes([1, 2, 3, 4], edge_colors="rde"), "no color 'rde'"),
        (lambda v: v.draw_bboxes([[1, 2, 3, 4]], edge_colors=["r", "g"]), "2 colors"),
        (lambda v: v.draw_binary_masks(np.zeros((3, 3))), "as large as the image"),
        (lambda v: v.draw_texts("a", [1, 1], vertical_alignments="up"), "aligned by top"),
        (lambda v: v.draw_lines([1, 2], [1, 2], line_styles="~"), "line style"),
        (lambda v: v.draw_points([1, 2], marker="*"), "not as '\\*'"),
        (lambda v: Visualizer().draw_bboxes([1, 2, 3, 4]), "call set_image"),
    ],
)
def test_what_cannot_be_drawn_is_said(call: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        call(drawn_on(blank()))


def test_an_image_survives_its_file() -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)

    assert (decode_image(encode_image(image, ".png")) == image).all()
    with pytest.raises(ValueError, match="no image"):
        decode_image(b"text")


def sample() -> dict[str, Any]:
    return {
        "gt_instances": {"bboxes": torch.tensor([[5.0, 5, 20, 20]]), "labels": torch.tensor([0])},
        "pred_instances": {
            "bboxes": torch.tensor([[5.0, 5, 20, 20], [30, 10, 50, 30]]),
            "labels": torch.tensor([1, 0]),
            "scores": torch.tensor([0.9, 0.1]),
        },
    }


def shown(data_sample: Any, **options: Any) -> Any:
    visualizer = Visualizer(alpha=1, line_width=1)
    visualizer.dataset_meta = {"classes": ("cat", "dog"), "palette": [(255, 0, 0), (0, 0, 255)]}
    visualizer.add_datasample("image", blank(), data_sample, **options)
    return visualizer.get_image()


def test_ground_truth_stands_left_and_predictions_right_in_the_colors_of_their_classes() -> None:
    image = shown(sample())

    assert image.shape == (40, 120, 3)
    assert image[20, 12].tolist() == RED
    assert image[20, 72].tolist() == BLUE


def test_predictions_with_a_low_score_are_left_out() -> None:
    assert (shown(sample(), draw_gt=False)[30, 40] == 0).all()
    assert shown(sample(), draw_gt=False, pred_score_thr=0.05)[30, 40].tolist() == RED


def test_masks_have_half_the_opacity_and_maps_the_colors_of_the_classes() -> None:
    masks = np.zeros((1, 40, 60), bool)
    masks[0, 30:, :10] = True
    instances = {"masks": masks, "labels": [1], "bboxes": np.zeros((1, 4)), "scores": np.array([1.0])}
    image = shown({"pred_instances": instances})
    assert image[32, 1].tolist() == pytest.approx([0, 0, 128], abs=1)
    assert (image[:25] == 0).all()

    labels = np.full((1, 40, 60), 255)
    labels[0, :10] = 1
    image = shown({"pred_sem_seg": {"sem_seg": torch.from_numpy(labels)}})
    assert image[5, 5].tolist() == BLUE
    assert (image[20] == 0).all()


def test_an_object_is_drawn_like_a_dict() -> None:
    from mmengine.structures import BaseDataElement, InstanceData

    data = sample()
    element = BaseDataElement()
    for name, fields in data.items():
        element.set_field(InstanceData(**fields), name)

    assert (shown(element) == shown(data)).all()


def test_show_is_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match="out_file"):
        Visualizer().add_datasample("image", blank(), show=True)
