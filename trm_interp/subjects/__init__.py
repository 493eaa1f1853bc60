"""Subjects, a checkpoint together with puzzles: opening, training and evaluating them."""
