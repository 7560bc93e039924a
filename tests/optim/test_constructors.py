"""Parameter groups: MMCV's rules, layer decay, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from asynchooks.errors import ConfigError, UnknownNameError, UnknownOptionError
from asynchooks.optim import (
    DefaultOptimWrapperConstructor,
    OptimWrapper,
    OptimWrapperDict,
    build_optim_wrapper,
    build_optimizer,
)
from asynchooks.registry import OPTIM_WRAPPER_CONSTRUCTORS

SGD = {"type": "SGD", "lr": 1.0, "weight_decay": 0.1}


class DeformConv2d(nn.Conv2d):
    """Named as MMCV's, whose offsets come from a layer in it."""

    def __init__(self) -> None:
        super().__init__(2, 2, 1)
        self.conv_offset = nn.Conv2d(2, 2, 1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"conv": nn.Conv2d(3, 4, 1), "dw": nn.Conv2d(4, 4, 1, groups=4), "bn": nn.BatchNorm2d(4)}
        )
        self.dcn = DeformConv2d()
        self.frozen = nn.Linear(1, 1).requires_grad_(requires_grad=False)
        self.scale = nn.Parameter(torch.ones(2))


def by_name(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (round(group["lr"], 6), round(group["weight_decay"], 6))
        for group in optimizer.param_groups
        for p in group["params"]
    }


def test_mmcvs_rules() -> None:
    net = Net()
    cfg = {
        **SGD,
        "paramwise_cfg": {
            "bias_lr_mult": 2.0,
            "bias_decay_mult": 0.5,
            "norm_decay_mult": 0.0,
            "dwconv_decay_mult": 0.2,
            "dcn_offset_lr_mult": 0.1,
            "custom_keys": {"backbone": {"decay_mult": 0.9}, "backbone.conv": {"lr_mult": 0.3}},
        },
    }

    found = by_name(build_optimizer(net, cfg), net)

    assert found == {
        "scale": (1.0, 0.1),
        "backbone.conv.weight": (0.3, 0.1),
        "backbone.conv.bias": (0.3, 0.1),
        "backbone.dw.weight": (1.0, 0.09),
        "backbone.dw.bias": (1.0, 0.09),
        "backbone.bn.weight": (1.0, 0.09),
        "backbone.bn.bias": (1.0, 0.09),
        "dcn.weight": (1.0, 0.1),
        "dcn.bias": (2.0, 0.05),
        "dcn.conv_offset.weight": (0.1, 0.1),
        "dcn.conv_offset.bias": (0.1, 0.1),
        "frozen.weight": (1.0, 0.1),  # has a group, without options
        "frozen.bias": (1.0, 0.1),
    }


def test_the_two_projects_order_their_rules_differently() -> None:
    net = nn.ModuleDict({"dw": nn.Conv2d(4, 4, 1, groups=4)})
    options = {"bias_decay_mult": 0.5, "dwconv_decay_mult": 0.2}

    mmcv = by_name(build_optimizer(net, {**SGD, "paramwise_cfg": options}), net)
    mmengine = by_name(build_optim_wrapper(net, {"optimizer": SGD, "paramwise_cfg": options}).optimizer, net)

    assert mmcv["dw.bias"] == (1.0, 0.02)
    assert mmengine["dw.bias"] == (1.0, 0.05)


def test_frozen_parameters_are_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    net = Net()

    wrapper = build_optim_wrapper(net, {"optimizer": SGD, "paramwise_cfg": {"flat_decay_mult": 0.0}})

    found = by_name(wrapper.optimizer, net)
    assert "frozen.weight" not in found
    assert found["scale"] == (1.0, 0.0)
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.getMessage() for r in warnings] == [
        "parameters without requires_grad are not optimized: frozen.weight, frozen.bias"
    ]


def test_the_longest_key_counts_and_further_fields_are_the_groups() -> None:
    net = Net()
    keys = {
        "backbone": {"lr_mult": 0.5},
        "backbone.bn": {"lr_mult": 0.1, "nesterov": True},
        "bn": {"lr_mult": 9.0},
    }
    cfg = {"optimizer": {**SGD, "momentum": 0.9}, "paramwise_cfg": {"custom_keys": keys}}

    groups = build_optim_wrapper(net, cfg).optimizer.param_groups

    (group,) = [g for g in groups if g["params"][0] is net.backbone["bn"].weight]
    assert (group["lr"], group["nesterov"], group["lr_mult"]) == (0.1, True, 0.1)


def test_a_key_that_is_in_no_name_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    keys = {"bakcbone": {"lr_mult": 0.1}, "backbone": {}}

    build_optim_wrapper(Net(), {"optimizer": SGD, "paramwise_cfg": {"custom_keys": keys}})

    assert "custom_keys that are part of no parameter's name: bakcbone" in caplog.text


def test_a_parameter_of_two_names_is_an_error_or_left_out() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2)})
    net["b"] = nn.ModuleDict({"again": net["a"]})
    cfg: dict[str, Any] = {"optimizer": SGD, "paramwise_cfg": {"norm_decay_mult": 0.0}}

    with pytest.raises(
        ConfigError, match=r"b.again.weight is the same parameter as a.weight.*bypass_duplicate"
    ):
        build_optim_wrapper(net, cfg)
    cfg["paramwise_cfg"]["bypass_duplicate"] = True
    assert len(build_optim_wrapper(net, cfg).optimizer.param_groups) == 2
    assert len(build_optimizer(net, {**SGD, "paramwise_cfg": cfg["paramwise_cfg"]}).param_groups) == 2


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(4)])
        self.stages = nn.ModuleList(
            [nn.ModuleList([nn.Linear(2, 2) for _ in range(n)]) for n in (1, 1, 7, 1)]
        )
        self.norm = nn.LayerNorm(2)


class BEiTAdapter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 2))
        self.patch_embed = nn.Linear(2, 2)
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
        self.norm = nn.LayerNorm(2)


class Detector(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(2, 2)


def scales(model: nn.Module, decay_type: str = "layer_wise", **options: Any) -> dict[str, float]:
    cfg = {
        "optimizer": {"type": "AdamW", "lr": 1.0, "weight_decay": 0.05},
        "constructor": "LearningRateDecayOptimWrapperConstructor",
        "paramwise_cfg": {"decay_rate": 0.5, "decay_type": decay_type, **options},
    }
    wrapper = build_optim_wrapper(model, cfg)
    return {
        name: group["lr_scale"] for group in wrapper.optimizer.param_groups for name in group["param_names"]
    }


def test_the_layers_of_convnext() -> None:
    found = scales(Detector(ConvNeXt()), num_layers=6)

    layers = {
        "backbone.downsample_layers.0.weight": 0,
        "backbone.stages.0.0.weight": 1,
        "backbone.downsample_layers.1.bias": 2,
        "backbone.stages.1.0.weight": 2,
        "backbone.downsample_layers.2.weight": 3,
        "backbone.stages.2.2.weight": 3,
        "backbone.stages.2.3.weight": 4,
        "backbone.stages.2.6.weight": 5,
        "backbone.downsample_layers.3.weight": 6,
        "backbone.stages.3.0.weight": 6,
        "backbone.norm.weight": 7,
        "head.weight": 7,
    }
    assert {name: found[name] for name in layers} == {
        name: 0.5 ** (7 - layer) for name, layer in layers.items()
    }


def test_the_stages_of_convnext() -> None:
    found = scales(Detector(ConvNeXt()), "stage_wise", num_layers=4)

    assert found["backbone.downsample_layers.3.weight"] == 0.5**5
    assert [found[f"backbone.stages.{stage}.0.weight"] for stage in range(4)] == [0.5**4, 0.5**3, 0.5**2, 0.5]
    assert found["head.bias"] == 1.0


@pytest.mark.parametrize("alone", [False, True])
def test_the_layers_of_a_vision_transformer(alone: bool) -> None:
    model, prefix = (BEiTAdapter(), "") if alone else (Detector(BEiTAdapter()), "backbone.")

    found = scales(model, num_layers=3)

    assert found[f"{prefix}cls_token"] == found[f"{prefix}patch_embed.weight"] == 0.5**4
    assert [found[f"{prefix}layers.{layer}.weight"] for layer in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert found[f"{prefix}norm.weight"] == 1.0


def test_a_model_or_a_function_may_number_the_layers() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Linear(2, 2), nn.Linear(2, 2)

        def layer_id(self, param_name: str, num_layers: int) -> int:
            return 0 if param_name.startswith("stem") else num_layers

    assert scales(Own(), num_layers=2)["stem.weight"] == 0.5**3
    assert scales(Detector(Own()), num_layers=2)["backbone.body.weight"] == 0.5
    given = scales(Own(), "stage_wise", num_layers=2, layer_id=lambda name, layers: layers + 1)
    assert given["stem.weight"] == 1.0


def test_layer_decay_groups_have_their_fields() -> None:
    net = Detector(BEiTAdapter())
    net.head.requires_grad_(requires_grad=False)
    optimizer = build_optimizer(
        net,
        {
            "type": "AdamW",
            "lr": 0.1,
            "weight_decay": 0.05,
            "constructor": "LearningRateDecayOptimizerConstructor",
            "paramwise_cfg": {"decay_rate": 0.5, "num_layers": 3},
        },
    )

    groups = {group["group_name"]: group for group in optimizer.param_groups}
    assert groups["layer_0_no_decay"]["param_names"] == ["backbone.cls_token", "backbone.patch_embed.bias"]
    assert groups["layer_0_decay"]["lr"] == pytest.approx(0.1 * 0.5**4)
    assert (groups["layer_0_decay"]["weight_decay"], groups["layer_0_no_decay"]["weight_decay"]) == (
        0.05,
        0.0,
    )
    assert not any("head" in name for group in groups.values() for name in group["param_names"])


def test_mmcvs_constructors_build_wrappers_too() -> None:
    cfg = {"optimizer": SGD, "constructor": "DefaultOptimizerConstructor", "clip_grad": {"max_norm": 1.0}}

    wrapper = build_optim_wrapper(Net(), {**cfg, "paramwise_cfg": {"norm_decay_mult": 0.0}})

    assert isinstance(wrapper, OptimWrapper)
    assert wrapper.clip_grad is not None
    assert len(wrapper.optimizer.param_groups) == 13


def test_a_constructor_of_ones_own_builds_several_optimizers() -> None:
    class Gan:
        def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: Any = None) -> None:
            self.cfg = optim_wrapper_cfg

        def __call__(self, model: Any) -> OptimWrapperDict:
            return OptimWrapperDict(**{k: build_optim_wrapper(model[k], v) for k, v in self.cfg.items()})

    model = nn.ModuleDict({"generator": nn.Linear(1, 1), "critic": nn.Linear(1, 1)})
    one = {"optimizer": {"type": "SGD", "lr": 0.1}}

    built = build_optim_wrapper(model, {"constructor": Gan, "generator": one, "critic": one})

    assert built.get_lr() == {"generator.lr": [0.1], "critic.lr": [0.1]}


def test_a_subclass_groups_as_it_likes() -> None:
    class Halves(DefaultOptimWrapperConstructor):
        def add_params(self, params: list[dict[str, Any]], module: nn.Module, **_: Any) -> None:  # type: ignore[override]
            params.append({"params": list(module.parameters()), "lr": self.base_lr / 2})

    cfg = {"optimizer": SGD, "constructor": Halves, "paramwise_cfg": {"norm_decay_mult": 0.0}}

    assert build_optim_wrapper(nn.Linear(1, 1), cfg).get_lr() == {"lr": [0.5]}


def test_the_configuration_is_not_changed() -> None:
    cfg: dict[str, Any] = {"optimizer": dict(SGD), "paramwise_cfg": {"custom_keys": {"a": {"lr_mult": 2.0}}}}
    before = repr(cfg)

    build_optim_wrapper(Net(), cfg)
    build_optimizer(Net(), {**SGD, "paramwise_cfg": cfg["paramwise_cfg"]})

    assert repr(cfg) == before


@pytest.mark.parametrize(
    ("paramwise_cfg", "error", "words"),
    [
        ({"norm_decay": 0.0}, UnknownOptionError, "Did you mean 'norm_decay_mult'"),
        ({"custom_key": {}}, UnknownOptionError, "Did you mean 'custom_keys'"),
        ({"custom_keys": {"a": {"lr_mul": 1.0}}}, UnknownOptionError, "Did you mean 'lr_mult'"),
        ({"custom_keys": {"a": 0.1}}, ConfigError, r"custom_keys\['a'\] is a dict"),
        ({"custom_keys": ["a"]}, ConfigError, "custom_keys is a dict"),
        ({"custom_keys": {"a": {"lr_mult": "1"}}}, ConfigError, "is a number, not '1'"),
        ({"norm_decay_mult": True}, ConfigError, "norm_decay_mult is a number, not True"),
        ({"bypass_duplicate": 1}, ConfigError, "bypass_duplicate is True or False"),
        (["norm_decay_mult"], ConfigError, "paramwise_cfg is a dict or None"),
    ],
)
@pytest.mark.parametrize("kind", ["DefaultOptimWrapperConstructor", "DefaultOptimizerConstructor"])
def test_wrong_options_are_refused_before_a_model_is_seen(
    kind: str, paramwise_cfg: Any, error: type[Exception], words: str
) -> None:
    given = {"optim_wrapper_cfg": {"optimizer": SGD}} if "Wrapper" in kind else {"optimizer_cfg": SGD}
    with pytest.raises(error, match=words):
        OPTIM_WRAPPER_CONSTRUCTORS.build({"type": kind, "paramwise_cfg": paramwise_cfg, **given})


@pytest.mark.parametrize(
    ("optimizer", "paramwise_cfg", "words"),
    [
        ({"type": "SGD", "lr": 0.1}, {"norm_decay_mult": 0.0}, "must say weight_decay="),
        ({"type": "SGD", "lr": 0.1}, {"custom_keys": {"a": {"decay_mult": 0.0}}}, "must say weight_decay="),
        ({"type": "SGD"}, {"bias_lr_mult": 2.0}, "must say lr="),
    ],
)
def test_a_multiple_needs_what_it_multiplies(optimizer: Any, paramwise_cfg: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_optim_wrapper(nn.Linear(1, 1), {"optimizer": optimizer, "paramwise_cfg": paramwise_cfg})


@pytest.mark.parametrize(
    ("paramwise_cfg", "words"),
    [
        ({"decay_rate": 0.5}, "needs paramwise_cfg=dict"),
        ({"decay_rate": 0.5, "num_layers": 0}, "num_layers is an int of at least 1"),
        ({"decay_rate": 0, "num_layers": 3}, "decay_rate is a number above 0"),
        ({"decay_rate": 0.5, "num_layers": 3, "decay_type": "layers"}, "'layer_wise' or 'stage_wise'"),
        ({"decay_rate": 0.5, "num_layers": 3, "layer_id": 3}, "layer_id is a function"),
        ({"decay_rate": 0.5, "num_layers": 3, "layer_id": lambda name, layers: 7}, "lies between 0 and 4"),
        ({"decay_rate": 0.5, "num_layers": 3}, "Linear: its layers are not known"),
        (
            {"decay_rate": 0.5, "num_layers": 3, "decay_type": "stage_wise"},
            "Linear: its stages are not known",
        ),
    ],
)
def test_wrong_layer_decay_is_refused(paramwise_cfg: Any, words: str) -> None:
    cfg = {"optimizer": SGD, "constructor": "LearningRateDecayOptimWrapperConstructor"}
    with pytest.raises(ConfigError, match=words):
        build_optim_wrapper(nn.Linear(1, 1), {**cfg, "paramwise_cfg": paramwise_cfg})


def test_a_factor_of_none_is_left_out() -> None:
    cfg = {
        "optimizer": {"type": "SGD", "lr": 0.1},
        "paramwise_cfg": {"norm_decay_mult": None, "custom_keys": None},
    }

    assert len(build_optim_wrapper(nn.Linear(1, 1), cfg).optimizer.param_groups) == 1


def test_what_belongs_elsewhere_says_so() -> None:
    net = nn.Linear(1, 1)
    built = torch.optim.SGD(net.parameters(), lr=0.1)

    with pytest.raises(ConfigError, match="paramwise_cfg came with a built optimizer"):
        build_optim_wrapper(net, {"optimizer": built, "paramwise_cfg": {"bias_lr_mult": 2.0}})
    with pytest.raises(ConfigError, match="builds an optimizer wrapper; build_optim_wrapper takes it"):
        build_optimizer(net, {**SGD, "constructor": "DefaultOptimWrapperConstructor"})
    with pytest.raises(UnknownNameError, match="Did you mean 'DefaultOptimWrapperConstructor'"):
        build_optim_wrapper(net, {"optimizer": SGD, "constructor": "DefaultOptimWraperConstructor"})
    with pytest.raises(ConfigError, match="An optimizer is configured by a dict"):
        build_optimizer(net, built)  # type: ignore[arg-type]
