"""The audit trail: who looked, who came in, what was received and sent, as DICOM audit messages (PS3.15 A.5)."""
