"""From the training's state to a snapshot: one instant, in memory that can be written to a store as it lies.

One capture, station by station: `_capture` walks the state (`_storages` tells what memory is in it, `_pickled` takes
what only pickle understands), `_staging` lends memory for `_image`, which lays it out as the file, and `_overlap`
decides what is copied later, by which of the `_lanes`. Importing this package loads no torch.
"""
