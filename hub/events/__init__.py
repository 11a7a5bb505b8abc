"""Events inside the application: the bus, `@on_event`, and the listeners that are found by name."""
