"""The rules by which claims are judged, one function a claim."""
