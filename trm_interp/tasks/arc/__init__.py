"""ARC: grids of colours, pairs of an input and an output, and tasks that a few pairs show."""
