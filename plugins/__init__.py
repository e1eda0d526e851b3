"""The built-in plugins. Each is found through the entry-point group ``altgrad``, like anyone else's."""
