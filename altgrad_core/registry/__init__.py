"""Discovery of plugins and the hooks that they implement."""
