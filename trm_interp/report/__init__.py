"""Everything at once: the figures, tables and claims of the seed paper for one checkpoint."""
