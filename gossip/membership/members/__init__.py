"""Who is listed, and the bounds of the list."""
