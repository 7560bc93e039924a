"""Sharded checkpoints in the format of torch.distributed.checkpoint (DCP), over our capture, stores and commit."""
