"""fastneg: negatives for training retrieval models."""
