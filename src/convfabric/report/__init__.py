"""Tables, drawings and pages, from graphs, costs and recorded numbers."""
