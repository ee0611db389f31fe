"""Search, training, trimming and shipping of networks within a latency budget."""
