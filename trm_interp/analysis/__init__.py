"""Pure functions on arrays: dynamics, statistics, geometry. They know no task and no model."""
