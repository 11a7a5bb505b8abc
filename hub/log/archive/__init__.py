"""Archives: the format of a history as JSON lines, and the file in which one is verified before an import."""
