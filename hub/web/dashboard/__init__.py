"""`/dashboard`: a page for operators, with what it shows of the hub as it is now."""
