"""What a trained network responds to: covariance between layers, strongest patches, the deconvolution view."""
