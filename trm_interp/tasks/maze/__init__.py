"""Mazes: reading, checking, facts, making data sets."""
