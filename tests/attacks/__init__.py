"""Attacks that are counted: `make attack` runs them and writes docs/reliability.md."""
