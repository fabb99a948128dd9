"""One worker or many: the cluster, its replicas, who waits for whom."""
