"""What only sysfs knows of a host, laid over what libvirt says; or all of it, without libvirt."""
