"""Splits, features, data sets."""
