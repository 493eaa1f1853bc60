"""Architectures of recursive models, one file a family, and the layers that they share."""
