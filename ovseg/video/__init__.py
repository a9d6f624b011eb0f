"""Videos: reading and writing them, and segmenting their frames steadily."""
