"""The Linux personality: exec, tasks, signals, system calls, files and /proc."""
