"""Latency of networks on a target: measured, and predicted from measurements."""
