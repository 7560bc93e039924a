"""Checkpoints of many ranks: a folder in the format of torch.distributed.checkpoint, planned, written and read."""
