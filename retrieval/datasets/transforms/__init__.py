"""The transforms of a pipeline."""
