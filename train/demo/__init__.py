"""All of Framebank on clips that it makes itself; nothing else of train is imported here."""
