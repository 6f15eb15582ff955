"""The embedded dataset: the characters of real typefaces."""
