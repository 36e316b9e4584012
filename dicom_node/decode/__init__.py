"""DICOM series, plans and regions in; a `pipeline.case.Case` out."""
