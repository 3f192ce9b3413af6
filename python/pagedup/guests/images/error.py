"""What is wrong with a binary."""


class ImageError(ValueError):
    """A binary that no loader would load, in one line: the file, the offset in it and the field."""
