"""What a job is given: files, folders, globs, prefixes and manifests become videos."""
