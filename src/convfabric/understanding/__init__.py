"""Views of a trained network: covariance between layers, strongest patches, deconvolution."""
