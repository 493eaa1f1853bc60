"""Training: trainer, slots, losses, optimizers, and states that can be resumed."""
