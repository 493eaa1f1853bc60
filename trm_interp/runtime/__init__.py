"""What every command needs of the machine: files, limits, locks, outputs, schemas."""
