"""A plan's simulated zones as files: the document, NIfTI, the DICOM segmentation, pictures."""
