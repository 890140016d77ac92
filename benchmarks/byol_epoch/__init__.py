"""The parts of `train_step.py`: its cases and their data, the two sides, and the table."""
