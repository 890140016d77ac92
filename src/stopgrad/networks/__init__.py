"""Networks: encoders (image to features) and projectors (features to projections)."""
