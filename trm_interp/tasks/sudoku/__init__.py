"""Sudoku on 9x9, 6x6 (boxes of 2 rows x 3 columns) and 4x4 grids."""
