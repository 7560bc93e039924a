"""What runs share."""
# ruff: noqa: C408
# mypy: ignore-errors

default_scope = "mmengine"  # as in the configurations that people bring along
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=10),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(
        type="CheckpointHook", interval=2, max_keep_ckpts=2, save_best="accuracy", rule="greater"
    ),
)
custom_hooks = [
    dict(type="EMAHook", ema_type="ExpMomentumEMA", momentum=0.01, gamma=100, priority=49),
]
vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
visualizer = dict(type="Visualizer", vis_backends=vis_backends)
log_level = "INFO"
