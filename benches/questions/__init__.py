"""One program per question; each can be run alone: ``cd benches; python -m questions.throughput stdlib``."""
