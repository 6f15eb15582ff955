"""Configs: reading them with one message for a mistake, what the command line changes in them, and
which settings there are.
"""
