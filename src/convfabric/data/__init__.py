"""From folders, tables and named sets to checked batches."""
