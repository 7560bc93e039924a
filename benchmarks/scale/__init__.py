"""Parts of scale_model.py."""
