"""Teacher, pseudo labels, student, and again, as long as held-out cases improve."""
