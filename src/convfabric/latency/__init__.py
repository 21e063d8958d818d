"""What a network takes on this device and runtime: measured, and predicted from what was measured."""
