"""Which parameters of a network, and which entries of them, may move in fine-tuning."""
