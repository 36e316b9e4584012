"""One file an object: how an assessment leaves as files and as DICOM."""
