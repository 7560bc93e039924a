"""Run the hooks of PyTorch training asynchronously, with the result of running them inline."""
