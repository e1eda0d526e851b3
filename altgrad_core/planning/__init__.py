"""Suite file -> validated Suite -> Plan -> frozen RunSpec. Free of torch. Import the modules, not this package."""
