"""Several hubs on one Redis, under load, while something breaks: who loses what, and is told so?"""
