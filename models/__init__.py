"""Arrays in, arrays out: the learned networks, their weights and their training. No geometry, no DICOM."""
