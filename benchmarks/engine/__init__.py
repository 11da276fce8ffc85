"""Plans, trains, evaluates, resumes and writes what a file in ``benchmarks/experiments`` says."""
