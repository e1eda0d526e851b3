"""Suite file -> validated Suite -> Plan -> frozen RunSpec. Free of torch."""
