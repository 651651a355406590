"""The stream: one Flink job, SQL first, and the committer that brings its files into Delta."""
