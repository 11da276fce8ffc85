"""Reading checkpoints safely, and turning the weights of one model into a start for another."""
