"""What a puzzle is: one subpackage per task, without any network in it."""
