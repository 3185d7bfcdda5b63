"""MetaImage and NRRD, which ITK made common: text headers and voxels."""
