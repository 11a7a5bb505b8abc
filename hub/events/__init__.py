"""Events inside the application: the bus, `@on_event`, and the loader that finds listeners by module name."""
