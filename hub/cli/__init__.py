"""`hub serve | publish | listen | history | load`: the hub on the command line."""
