"""The OpenVINO engines: the network in float32 and bfloat16, and quantised to int8."""
