"""Archives: a history as a file of JSON lines, and the disk it waits on while it is read or written."""
