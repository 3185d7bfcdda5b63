"""Image files: NIfTI, MGH, MetaImage, NRRD and DICOM series, read into a Volume and written back."""
