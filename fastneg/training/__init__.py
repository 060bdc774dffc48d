"""Towers, losses, batches, evaluation, the trainer."""
