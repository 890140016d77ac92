"""Data: sources of images, their augmentation, and the batches made of them."""
