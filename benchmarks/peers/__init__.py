"""The parts of `checkpoint_peers.py`: the work, the contenders, the places, the measuring and the report."""
