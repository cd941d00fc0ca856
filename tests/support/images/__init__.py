"""Images made for tests: pictures, DICOM files, archives of them, and the squares that they become."""
