"""Volumes in, assessment out: pure functions. No DICOM, no files, no clock, no logging."""
