"""Training: the loop, its state, and everything that makes a run resumable."""
