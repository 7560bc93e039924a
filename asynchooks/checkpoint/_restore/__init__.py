"""From a store back to a state: which checkpoint, whether it is whole, and loading it without running code.

One read, station by station: `_restore` chooses, `_reading` reads chunks in parallel and compares them, `_archive`
finds the records in them, `_loading` lets torch unpickle over them; `_outline`, `_selection` and `_inplace` do so for
a part of a state, or into existing tensors; `_verify` reads and compares alone. Importing this loads no torch.
"""
