"""Images: the readers of every file format, their grey values, slices of volumes, augmentations."""
