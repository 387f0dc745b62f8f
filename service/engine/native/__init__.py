"""The native engine: a version's weights, computed by C written for this network, without TensorFlow."""
