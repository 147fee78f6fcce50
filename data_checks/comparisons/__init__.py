"""What compares items with each other: signatures, near copies, likely label errors, labels of one modality."""
