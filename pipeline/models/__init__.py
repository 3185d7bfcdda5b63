"""Networks, losses, optimisers and checkpoints."""
