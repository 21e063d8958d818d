"""How well a network answers, and when one with several exits may stop."""
