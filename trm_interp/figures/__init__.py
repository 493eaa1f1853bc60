"""Figures: arrays and data frames in, plotly figures out; one style."""
