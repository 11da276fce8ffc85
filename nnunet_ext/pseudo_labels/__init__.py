"""Labels from a model's predictions."""
