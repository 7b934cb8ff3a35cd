"""What each layer of an image generator has learned, measured and edited."""
