"""What every command needs of the machine: files, locks, outputs, schemas."""
