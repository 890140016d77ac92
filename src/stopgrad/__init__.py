"""stopgrad."""
