"""Sparse autoencoders on recorded activations: train, measure, look, intervene."""
