"""What each command of the command line does; ``fastneg.cli`` has their flags."""
