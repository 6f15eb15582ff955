"""Runs: from a config file to a model and a Runner, and training on extracted features."""
