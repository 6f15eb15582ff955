"""The field's benchmarks in their official layouts."""
