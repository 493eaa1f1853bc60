"""Making and rating Sudoku puzzles: solver, walk, effort, generator and presets."""
