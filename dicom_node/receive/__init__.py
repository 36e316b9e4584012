"""What comes in by DICOM: associations, their requests, and the way of an instance into the store."""
