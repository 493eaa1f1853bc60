"""Measurements on arrays and stores; nothing here knows the network."""
