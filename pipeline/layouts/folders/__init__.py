"""Plain folders of images and label maps, paired by their names."""
