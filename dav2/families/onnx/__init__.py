"""Networks of other programs in ONNX files, as a family that can label and be judged, but not be trained."""
