"""Which score is better, and what a metric's name says about it."""

import pytest

from asynchooks.scores import Rules, improves


def rules(*arguments: object) -> Rules:
    return Rules.checked("AHook", "monitor", *arguments)


@pytest.mark.parametrize(
    ("metric", "rule"),
    [
        ("acc", "greater"),
        ("ACC", "greater"),
        ("loss", "less"),
        ("coco/bbox_mAP_50", "greater"),
        ("val_loss", "less"),
        ("accuracy_loss", "greater"),
        ("AR@100", "greater"),
    ],
)
def test_a_rule_is_inferred_from_the_name(metric: str, rule: str) -> None:
    assert rules().infer(metric) == rule


def test_own_keys_replace_the_usual_ones() -> None:
    own = rules(None, "error_free", ["acc"])

    assert own.infer("error_free_rate") == "greater"
    assert own.infer("acc") == "less"
    with pytest.raises(ValueError, match=r"AHook\(monitor='mIoU'\).*rule='greater' or rule='less'"):
        own.infer("mIoU")


def test_a_rule_that_is_none_is_said_with_the_near_one() -> None:
    with pytest.raises(KeyError, match=r"AHook\(rule='greatr'\).*Did you mean 'greater'"):
        rules("greatr")


def test_one_rule_serves_all_metrics_and_other_numbers_do_not_fit() -> None:
    assert rules("less").of(["acc", "loss"]) == ("less", "less")
    assert rules(["less", None]).of(["acc", "mAP"]) == ("less", "greater")
    with pytest.raises(ValueError, match="2 rules for 3 metrics in monitor"):
        rules(["less", "less"]).of(["a", "b", "c"])


def test_better_is_strict_and_nan_is_better_than_nothing() -> None:
    assert improves("greater", 0.0, None)
    assert improves("less", 0.1, 0.2)
    assert not improves("greater", 0.2, 0.2)
    assert not improves("less", float("nan"), None)
