"""Handwritten digits, as users write such a file."""
# ruff: noqa: C408
# mypy: ignore-errors

_base_ = ["./runtime.py"]
custom_imports = dict(imports=["digits_parts"], allow_failed_imports=False)

model = dict(type="ConvNet", width=12)
train_dataloader = dict(
    batch_size=32,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="Digits", split="train"),
)
val_dataloader = dict(
    batch_size=150,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="Digits", split="val"),
)
val_evaluator = dict(accuracy=dict(type="MulticlassAccuracy", num_classes=10, average="micro"))
val_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=40)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type="MultiStepLR", milestones=[6, 9], gamma=0.3),
]
custom_hooks = [
    *_base_.custom_hooks,
    dict(type="EarlyStoppingHook", monitor="accuracy", rule="greater", min_delta=0.001, patience=3),
]
randomness = dict(seed=0)
