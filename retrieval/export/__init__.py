"""Exported encoders: ONNX, OpenVINO and TorchScript, checked on pictures before they are kept."""
