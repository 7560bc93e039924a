"""Parts of the scripts about sharded checkpoints: what is saved, who saves it, what it costs."""
