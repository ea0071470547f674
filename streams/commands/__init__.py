"""The commands of ``tocsin``: they parse and print; what they do is done in the modules beside this package."""
