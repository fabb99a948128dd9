"""Where a job runs and how it ends: `gate` before its submission, `running` after it."""
