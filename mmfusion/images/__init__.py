"""Images: readers of all file formats, gray values, slices of volumes, augmentations."""
